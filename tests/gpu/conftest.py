"""Tests on a GPU, among all those that are made to compute on the CPU."""

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _computes_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accelerate keeps the device of a process's first runtime, which another test may have built."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
