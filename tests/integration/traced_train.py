"""Trains as `python -m attrtrain.train` does and writes down which samples each step trained on, and how many prepared
models there still were when the group of processes was ended. Started by tests, one a rank.

With HOLD_AT_STEP in the environment, that step makes the file `held` in the run directory and never ends.
"""

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from attrtrain.engine import step as engine_step
from tools.soak_resume import traced_training


def hold(run: Path, at_step: int) -> None:
    optimizer_step = engine_step.optimizer_step

    def holding(runtime: Any, model: Any, optimizer: Any, batches: Any, step: int, settings: Any) -> Any:
        if step == at_step:
            (run / "held").touch()
            while True:
                time.sleep(1)
        return optimizer_step(runtime, model, optimizer, batches, step, settings)

    vars(engine_step)["optimizer_step"] = holding


def watch_leaving(run: Path) -> None:
    destroy = torch.distributed.destroy_process_group

    def watched(*arguments: Any) -> None:
        alive = sum(isinstance(one, DistributedDataParallel) for one in gc.get_objects())
        (run / f"models_alive_{os.environ['RANK']}").write_text(str(alive))
        destroy(*arguments)

    vars(torch.distributed)["destroy_process_group"] = watched


if __name__ == "__main__":
    run = Path(sys.argv[1])
    watch_leaving(run)
    if "HOLD_AT_STEP" in os.environ:
        hold(run, int(os.environ["HOLD_AT_STEP"]))
    sys.exit(traced_training(sys.argv[2:], run))
