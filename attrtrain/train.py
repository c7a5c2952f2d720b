"""Trains a model: reads the configuration, then hands it to attrtrain.wiring, which imports torch.

    accelerate launch -m attrtrain.train resnet50 --data.shards shards/coco --run.dir runs/coco

What a run leaves, and where, is drawn in attrtrain.run_layout.
"""

import sys

from attrtrain.config.load import load_config
from attrtrain.entry_point import exit_code_of
from attrtrain.garbage import no_garbage_collection
from attrtrain.process_exit import run_program


def main(argv: list[str] | None = None) -> int:
    """Runs one training process; returns its exit code. A user's mistake becomes one line on stderr."""

    def train() -> int:
        config = load_config(sys.argv[1:] if argv is None else argv)  # before anything heavy is imported
        with no_garbage_collection():
            from attrtrain.wiring import run
        run(config)
        return 0

    return exit_code_of(train, "run the same command again to go on from the last checkpoint")


if __name__ == "__main__":
    run_program(main)
