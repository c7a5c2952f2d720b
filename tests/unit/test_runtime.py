"""What a process chooses where nobody says it: its precision, its decoding threads, and how gradients are shared."""

import pytest
import torch
from accelerate.utils import DDPCommunicationHookType

from attrtrain import runtime
from attrtrain.errors import ConfigError
from attrtrain.runtime import DistributedOptions, decoding_workers, resolve_precision


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(False, False, "no"), (True, False, "bf16"), (False, True, "bf16"), (True, True, "bf16")],
)
def test_a_cpu_computes_in_bf16_where_it_has_either_instruction_set_for_it(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("auto", "mps") == "no"
    assert [resolve_precision(given, "cpu") for given in ("no", "bf16")] == ["no", "bf16"]  # also where it is slow
    with pytest.raises(ConfigError, match=r"train\.precision: fp16 needs a GPU"):
        resolve_precision("fp16", "cpu")


@pytest.mark.parametrize(
    ("kind", "asked", "cores", "workers"),
    [
        ("cuda", -1, 24, 8), ("cuda", -1, 4, 4), ("cuda", 0, 24, 0), ("cuda", 12, 24, 12), ("cpu", -1, 24, 0),
        ("cpu", 2, 24, 2), ("mps", -1, 24, 0),
    ],
)  # fmt: skip
def test_threads_decode_for_a_gpu_and_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, kind: str, asked: int, cores: int, workers: int
) -> None:
    monkeypatch.setattr(runtime, "process_cores", lambda: cores)
    assert decoding_workers(torch.device(kind), asked) == workers


@pytest.mark.parametrize("static_graph", [True, False])
@pytest.mark.parametrize("compress", [True, False])
def test_gradients_travel_as_bf16_where_that_is_asked_for_alone(static_graph: bool, compress: bool) -> None:
    found = DistributedOptions(static_graph, compress).handler()
    assert found.static_graph is static_graph
    assert (found.comm_hook == DDPCommunicationHookType.BF16) is compress
    assert (found.comm_hook == DDPCommunicationHookType.NO) is not compress
