"""Networks through torch.compile.

Compiled in place, by `nn.Module.compile`: parameters keep their names, so checkpoints and bundles are those of the
plain network, and a run goes on with or without. Accelerate's plugin would wrap the network instead, which puts
`_orig_mod.` before every name, and would compile neither the moving average nor what is evaluated. Under
DistributedDataParallel the network inside is what is compiled: its graph is cut where DDP's buckets end, so that
gradients still travel during the backward pass.

Every shape is its own graph (`dynamic=False`), since there are two: micro-batches are all of one size, and so are
batches of an evaluation, whose last one is filled up. Left to itself torch would compile the second shape for any size,
which is slower. `data.scales`, and the sizes that `attrtrain find` tries, add shapes of their own. From its ninth on
torch would compile none of them, nor the evaluation, and say so in its log alone; so it is allowed more.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from attrtrain.errors import AttrtrainError
from attrtrain.wording import first_line

_GRAPHS = 128  # of one network; torch has a limit of 256 for all together


def compile_in_place(*networks: nn.Module) -> None:
    """Has networks compiled when they are first called, in training and in evaluation mode each."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    for network in networks:
        network.compile(dynamic=False)


@contextmanager
def explained_compile_failure(compiled: bool) -> Iterator[None]:
    """Turns a compilation that failed, which shows where a network is called, into one line.

    Args:
        compiled: whether there is anything that is compiled; importing torch's compiler to name its errors takes a
            second.

    Raises:
        AttrtrainError: there is no C++ compiler, or torch.compile cannot do this network on this device.
    """
    if not compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise AttrtrainError(
            f"train.compile: torch.compile failed ({first_line(error)}); install a C++ compiler (g++), and for a GPU Python's headers (python3-dev), if they are not there, or use --train.compile false"
        ) from None
