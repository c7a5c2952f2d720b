"""Which kind of device computes: attrtrain's answer is Accelerate's, whatever way the switch is written; and copies to
it.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import parse_flag_from_env

from attrtrain.data.loader import Batch
from attrtrain.device import device_type
from attrtrain.runtime import Runtime


@pytest.mark.parametrize("switch", ["1", "true", "True", "yes", "on", "y", "t", "0", "false", "no", "off", None])
def test_the_switch_for_the_cpu_is_read_as_accelerate_reads_it(
    monkeypatch: pytest.MonkeyPatch, switch: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    if switch is not None:
        monkeypatch.setenv("ACCELERATE_USE_CPU", switch)
    assert device_type() == ("cpu" if parse_flag_from_env("ACCELERATE_USE_CPU") else "cuda")


@pytest.mark.parametrize(("kind", "left_to_run"), [("cuda", True), ("mps", False)])
def test_only_a_copy_to_a_cuda_gpu_is_left_to_run(
    monkeypatch: pytest.MonkeyPatch, kind: str, left_to_run: bool
) -> None:
    """An Apple GPU may read the memory later, when the next batch is in it."""
    device = torch.device(kind)
    copies: list[tuple[torch.device, bool]] = []

    def to(tensor: torch.Tensor, where: torch.device, *, non_blocking: bool = False) -> torch.Tensor:
        copies.append((where, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    batch: Any = Batch(*(torch.zeros(2) for _ in range(4)), epoch=0, step_known=1)
    batch.to(device)
    Runtime.to_device(SimpleNamespace(device=device), torch.zeros(2))  # type: ignore[arg-type]  # all it looks at
    assert copies == [(device, left_to_run)] * 4
