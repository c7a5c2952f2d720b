"""Compiled networks: the plain network's losses and names, one compilation a mode, and one line where there is no
compiler.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from attrtrain.engine.compiling import compile_in_place, explained_compile_failure
from attrtrain.errors import AttrtrainError
from attrtrain.models.network import AttributeModel

pytestmark = pytest.mark.filterwarnings("default")  # torch's compiler warns of itself


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def network() -> AttributeModel:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone.head_hidden_size = 8
    return AttributeModel(backbone, nn.Linear(8, 5))


def losses_and_scores(model: nn.Module) -> tuple[list[float], torch.Tensor]:
    """Three steps on batches of 6, then batches of 4 in evaluation mode, twice over."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        model.train()
        for _ in range(3):
            images = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8, generator=generator)
            loss = nn.functional.binary_cross_entropy_with_logits(model(images), torch.ones(6, 5))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        with torch.inference_mode():
            scores = torch.cat(
                [model(torch.randint(0, 256, (4, 3, 12, 12), dtype=torch.uint8, generator=generator)) for _ in range(3)]
            )
    return losses, scores


@pytest.mark.slow
def test_compiled_learns_as_the_plain_network_does_and_is_compiled_once_a_mode() -> None:
    plain = network()
    compiled = copy.deepcopy(plain)
    compile_in_place(compiled)
    expected_losses, expected = losses_and_scores(plain)
    losses, scores = losses_and_scores(compiled)
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    network().load_state_dict(compiled.state_dict())


def test_every_shape_is_compiled_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more than eight, as `data.scales` and the sizes that are tried bring, torch by itself compiles none of the
    others, nor the average when it is evaluated.
    """
    plain_compile = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part, **given: plain_compile(part, backend="eager", **given))
    model = network()
    average = copy.deepcopy(model)
    compile_in_place(model, average)
    for side in range(12, 24):
        model(torch.zeros((2, 3, side, side), dtype=torch.uint8))
    assert counters["stats"]["unique_graphs"] == 12
    average.eval()
    with torch.inference_mode():
        average(torch.zeros((4, 3, 12, 12), dtype=torch.uint8))
    assert counters["stats"]["unique_graphs"] == 13


def test_without_a_compiler_there_is_one_line_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    model = network()
    compile_in_place(model)
    with pytest.raises(AttrtrainError) as refused, explained_compile_failure(True):
        model(torch.zeros((2, 3, 12, 12), dtype=torch.uint8))
    told = str(refused.value)
    assert told.startswith("train.compile: torch.compile failed (") and "\n" not in told
    assert "--train.compile false" in told and "C++ compiler" in told


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else"), explained_compile_failure(True):
        raise RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"), explained_compile_failure(False):
        raise RuntimeError("something else")
