"""Tests on a GPU, among all those that are made to compute on the CPU; where there is none, on a pretended one, but for
those that ask what only a real one can answer.
"""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.gpu.pretended import pretended_gpu


@pytest.fixture(autouse=True)
def _computes_on_the_gpu(toy_shards: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accelerate keeps the device of a process's first runtime, which another test may have built. What tests share is
    drawn before, on the machine as it is.
    """
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    if torch.cuda.is_available():
        yield
    else:
        with pretended_gpu(monkeypatch):
            yield
    AcceleratorState._reset_state(reset_partial_state=True)
