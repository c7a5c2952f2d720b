"""Trains with the model sharded by FSDP2 on CPUs, which Accelerate offers on GPUs only: its `prepare` is replaced by
the calls it makes there.
"""

import sys
from pathlib import Path

from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from attrtrain.config.load import load_config
from attrtrain.optim import build_optimizer
from tools.soak_resume import traced_training


def prepare(accelerator, model, optimizer):
    mesh = init_device_mesh("cpu", (accelerator.num_processes,))
    for layer in (model.backbone.layer1, model.backbone.layer4, model):
        fully_shard(layer, mesh=mesh)
    return model, build_optimizer(model, load_config(sys.argv[2:]).optim)


if __name__ == "__main__":
    Accelerator.prepare = prepare
    sys.exit(traced_training(sys.argv[2:], Path(sys.argv[1])))
