"""Which kind of device computes: attrtrain's answer is Accelerate's, whatever way the switch is written."""

import pytest
import torch
from accelerate.utils import parse_flag_from_env

from attrtrain.device import device_type


@pytest.mark.parametrize("switch", ["1", "true", "True", "yes", "on", "y", "t", "0", "false", "no", "off", None])
def test_the_switch_for_the_cpu_is_read_as_accelerate_reads_it(
    monkeypatch: pytest.MonkeyPatch, switch: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    if switch is not None:
        monkeypatch.setenv("ACCELERATE_USE_CPU", switch)
    assert device_type() == ("cpu" if parse_flag_from_env("ACCELERATE_USE_CPU") else "cuda")
