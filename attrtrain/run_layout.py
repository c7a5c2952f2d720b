"""What lies where in a run directory:

runs/coco/
config.yaml       the resolved configuration
metrics.jsonl     every number of the run, one JSON object a line; the source of truth
checkpoints/      to go on from, see attrtrain.checkpoint
bundle/           to use, the best epoch, see attrtrain.bundle
bundles/          epoch-003/ and so on, the newest epochs, with checkpoint.keep_bundles
audit.json        a quick look at the labels, see attrtrain.auditing
evaluation/       metrics.json and predictions.npz of the best epoch on the val split
report.html       what it learnt, as one page
result.json       best_epoch, val (map, map_interval, prior_map, objects), seconds; there once the run is finished
wandb/, wandb_id  what W&B keeps here, and the id of its run, see docs/tracking.md
tensorboard/      event files, with track.tensorboard
.lock             held by the process that trains, see attrtrain.run_lock
"""

CONFIG = "config.yaml"
HISTORY = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
BUNDLE = "bundle"
BUNDLES = "bundles"
AUDIT = "audit.json"
EVALUATION = "evaluation"
REPORT = "report.html"
RESULT = "result.json"
WANDB = "wandb"
WANDB_ID = "wandb_id"
TENSORBOARD = "tensorboard"
LOCK = ".lock"
