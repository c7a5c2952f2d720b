"""`attrtrain find`: what it writes is a configuration that training takes."""

import errno
import gc
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from attrtrain.cli import main
from attrtrain.config.load import load_config
from attrtrain.engine.finders import RateFound
from attrtrain.engine.state import Learner
from attrtrain.errors import ConfigError
from attrtrain.models.network import AttributeModel
from attrtrain.runtime import Runtime

SMALL = ["--data.image_px", "32", "--model.backbone", "resnet18", "--train.global_batch", "8"]


def test_what_is_found_is_a_configuration(toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["demo", "--data.shards", str(toy_shards), *SMALL, "--optim.name", "sgd"]
    words = ["find", "--out", str(tmp_path / "found.yaml"), "--steps", "30", "--from", "1e-6", "--to", "1e5"]
    assert main([*words, *given]) == 0
    told = capsys.readouterr().out.splitlines()
    found, before = load_config([str(tmp_path / "found.yaml")]), load_config(given)
    assert found.optim.lr != before.optim.lr and 1e-6 < found.optim.lr < 1e4
    assert f"optim.lr {found.optim.lr:g}: a tenth of the rate at which the smoothed loss was lowest" in told
    assert found.train.micro_batch in (0, 2, 4)  # 8 is all of it
    assert sum(line.startswith("micro-batch ") and line.endswith(" objects a second") for line in told) == 3
    assert found.model == before.model and found.data == before.data
    comments = [line for line in (tmp_path / "found.yaml").read_text().splitlines() if line.startswith("#")]
    assert [line.removeprefix("# ") for line in comments[1:]] == told[:-1]


def test_the_same_micro_batch_has_the_same_rate(toy_shards: Path, tmp_path: Path) -> None:
    # A global batch of 2 has one micro-batch. At 32 pixels, batch normalisation of two objects is mostly chance.
    given = ["demo", "--data.shards", str(toy_shards), *SMALL, "--train.global_batch", "2", "--data.image_px", "64"]
    own = ["--steps", "30", "--from", "1e-6", "--to", "1e5"]
    found = []
    for number, words in enumerate(([*own, *given], [*given, *own])):  # its own flags may stand anywhere
        assert main(["find", "--out", str(tmp_path / f"{number}.yaml"), *words]) == 0
        found.append(load_config([str(tmp_path / f"{number}.yaml")]))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "missing/found.yaml"], "missing/found.yaml: cannot be written there"),
        (["--out", "found.yaml", "--from", "2"], "--from 2 --to 1"),
        (
            ["--out", "found.yaml", "--to", "inf"],
            "--to inf: the first must be above 0 and below the second, which may be 1e+12 times as large",
        ),
        (["--out", "found.yaml", "--steps", "3"], "--steps 3: fewer than 10"),
        (["--out", "found.yaml", "demo"], "data.shards: names no shard folder"),
        (["--out", "found.yaml", "demoo"], "demoo: neither a preset"),
    ],
)
def test_what_cannot_be_found_is_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["find", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and told in line
    assert not list(tmp_path.iterdir())


def test_the_first_network_is_gone_while_the_rate_is_looked_for(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []

    def look(runtime: Runtime, learner: Learner, *_: object) -> RateFound:
        gc.collect()
        alive.append(sum(type(one) is AttributeModel for one in gc.get_objects()))
        assert [one.optimizer for one in runtime.accelerator._optimizers] == [learner.bare_optimizer]
        return RateFound(0.1, [1.0], [1.0])

    gc.collect()
    before = sum(type(one) is AttributeModel for one in gc.get_objects())
    monkeypatch.setattr("attrtrain.starting_point.find_learning_rate", look)
    given = ["demo", "--data.shards", str(toy_shards), *SMALL, "--train.ema", "0"]
    assert main(["find", "--out", str(tmp_path / "found.yaml"), *given]) == 0
    assert alive == [before + 1]


def test_the_micro_batch_is_told_before_the_rate_is_looked_for(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of them takes minutes, and the second may find nothing."""
    told: list[str] = []

    def find_nothing(*_: object) -> RateFound:
        told.extend(capsys.readouterr().out.splitlines())
        raise ConfigError("--from: the loss only rose from the lowest rate on; begin lower")

    monkeypatch.setattr("attrtrain.starting_point.find_learning_rate", find_nothing)
    out = tmp_path / "found.yaml"
    assert main(["find", "--out", str(out), "demo", "--data.shards", str(toy_shards), *SMALL]) == 2
    assert [line.split(":")[0] for line in told[:-1]] == ["micro-batch 8", "micro-batch 4", "micro-batch 2"]
    assert told[-1].startswith("train.micro_batch ")
    assert capsys.readouterr().err.startswith("error: --from: ") and not out.exists()


def test_what_was_found_is_told_where_it_cannot_be_written(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("attrtrain.starting_point.find_learning_rate", lambda *_: RateFound(0.125, [1.0], [1.0]))
    monkeypatch.setattr("attrtrain.files.os.fsync", full)
    out = tmp_path / "found.yaml"
    assert main(["find", "--out", str(out), "demo", "--data.shards", str(toy_shards), *SMALL]) == 2
    printed = capsys.readouterr()
    assert "\noptim.lr 0.125: " in printed.out and "\ntrain.micro_batch " in printed.out
    assert f"{out} has both" not in printed.out and not list(tmp_path.iterdir())
    assert printed.err.splitlines()[-1] == f"error: --out {out}: No space left on device"


@pytest.mark.parametrize(("flags", "why"), [(0, "Permission denied"), (os.ST_RDONLY, "Read-only file system")])
def test_a_folder_that_may_not_be_written_to_is_told_before_anything_is_looked_for(
    flags: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("attrtrain.starting_point.find_start", lambda *_: pytest.fail("minutes that come to nothing"))
    monkeypatch.setattr("attrtrain.urls.os.access", lambda *_: False)  # root may write to whatever mode forbids
    monkeypatch.setattr("attrtrain.urls.os.statvfs", lambda _: SimpleNamespace(f_flag=flags))
    assert main(["find", "--out", str(tmp_path / "found.yaml"), "demo", "--data.shards", "shards"]) == 2
    assert capsys.readouterr().err == f"error: --out {tmp_path}: {why}\n"
