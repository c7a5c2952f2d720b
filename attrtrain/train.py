"""Trains a model: reads the configuration, then hands it to attrtrain.wiring, which imports torch.

    accelerate launch -m attrtrain.train resnet50 --data.shards shards/coco --run.dir runs/coco

A run directory:

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

import sys

from attrtrain.config.load import load_config
from attrtrain.entry_point import exit_code_of


def main(argv: list[str] | None = None) -> int:
    """Runs one training process; returns its exit code. A user's mistake becomes one line on stderr."""

    def train() -> int:
        config = load_config(sys.argv[1:] if argv is None else argv)  # before anything heavy is imported
        from attrtrain.wiring import run

        run(config)
        return 0

    return exit_code_of(train, "run the same command again to go on from the last checkpoint")


if __name__ == "__main__":
    sys.exit(main())
