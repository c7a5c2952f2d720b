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

import os
import sys

from attrtrain.config.load import load_config
from attrtrain.errors import AttrtrainError, OneProcessError, PreemptedError, ProcessLostError, refused_by_system
from attrtrain.process_exit import end_within_group


def _speaks_for(error: AttrtrainError) -> bool:
    """Whether this process, where it is one of several, is to print an error.

    One process of each machine does: a folder may be missing on one of them alone. Being stopped is told once, by rank 0; what only one process knows, by that one.
    """
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    local_rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", rank))
    match error:
        case OneProcessError() | ProcessLostError():  # who is left when a process dies may be any
            return True
        case PreemptedError():
            return rank == "0"
        case _:
            return local_rank == "0"


def main(argv: list[str] | None = None) -> int:
    """Runs one training process; returns its exit code. A user's mistake becomes one line on stderr."""
    try:
        config = load_config(sys.argv[1:] if argv is None else argv)  # before anything heavy is imported
        from attrtrain.wiring import run

        run(config)
    except PreemptedError as error:
        if _speaks_for(error):
            print(error, file=sys.stderr)
        return error.exit_code
    except AttrtrainError as error:
        if _speaks_for(error):
            print(f"error: {error}", file=sys.stderr)
        return end_within_group(error.exit_code)
    except (OSError, MemoryError) as error:
        if (refusal := refused_by_system(error)) is None:
            raise
        print(f"error: {refusal}", file=sys.stderr)
        return end_within_group(1)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on from the last checkpoint", file=sys.stderr)
        return end_within_group(130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
