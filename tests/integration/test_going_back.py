"""A run that goes back to an older checkpoint, goes on in another folder, or has lost its bundle: it ends with its own
best epoch, and nothing that somebody may want is deleted.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from attrtrain import checkpoint, run_completion
from attrtrain.bundle import read_card
from attrtrain.config.schema import TrainConfig
from attrtrain.data.order import TrainOrder
from attrtrain.data.reader import ShardSet
from attrtrain.engine import fit
from attrtrain.engine.evaluate import Evaluation, EvaluationStoppedError
from attrtrain.engine.resume import identity
from attrtrain.errors import MemoryExceededError
from attrtrain.shards.manifest import MANIFEST, VocabularyRecord, read_manifest
from attrtrain.vocabulary import AttributeVocabulary
from tests.damage import damage_crop
from tests.small_training import logged, train

KEEP = ("--checkpoint.keep_last", "9")
SPARING = ("--checkpoint.keep_last", "1", "--checkpoint.every_epochs", "9")


@pytest.fixture(scope="module")
def whole(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs, of which every checkpoint is kept."""
    run = tmp_path_factory.mktemp("back") / "whole"
    assert train(run, toy_shards, "--train.epochs", "4", *KEEP) == 0
    return run


@contextmanager
def second_epoch_is_best(shards: Path) -> Iterator[None]:
    """Evaluations of training find the network of epoch 2 best, whenever they meet it: batch normalisation counts the
    steps that a network has taken.
    """
    original, in_epoch = fit.evaluate, len(ShardSet([shards], "train")) // 64

    def judged(runtime: object, model: nn.Module, *rest: object, **options: object) -> Evaluation:
        found = original(runtime, model, *rest, **options)
        taken = next(int(value) for name, value in model.named_buffers() if name.endswith("num_batches_tracked"))
        return replace(found, scores=replace(found.scores, map=0.9 if taken == 2 * in_epoch else 0.1 + taken / 1000))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit, "evaluate", judged)
        yield


@pytest.fixture(scope="module")
def peaked(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs, of which the second is the best, that keep no more checkpoints than they must."""
    run = tmp_path_factory.mktemp("back") / "peaked"
    with second_epoch_is_best(toy_shards):
        assert train(run, toy_shards, "--train.epochs", "4", *SPARING) == 0
    return run


def steps(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def best(run: Path) -> dict[str, object]:
    """What the newest checkpoint says of the best epoch."""
    return checkpoint.load_state(steps(run)[-1])["position"]


def require_consistent(run: Path) -> None:
    """The bundle is the best epoch's, by its weights, its card, and what the run says at its end."""
    position, card = best(run), read_card(run / "bundle")
    at_best = checkpoint.load(checkpoint.of_step(run / "checkpoints", position["best_step"]))
    weights = load_file(run / "bundle" / "weights.safetensors")
    source = at_best.tensors.get("average", at_best.tensors["model"])
    assert all(values.equal(source[name if name in source else f"module.{name}"]) for name, values in weights.items())
    assert card.metrics["val.map"] == position["best_map"]
    assert json.loads((run / "result.json").read_text())["best_epoch"] == position["best_epoch"]


def test_going_back_to_an_older_checkpoint_sets_the_newer_ones_aside(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    _, second, third, fourth = steps(run)
    flags = ("--checkpoint.resume", str(second), "--optim.lr", "1e-6", "--checkpoint.keep_last", "1")
    assert train(run, toy_shards, "--train.epochs", "3", *flags) == 0
    told = capsys.readouterr().out
    assert f"going on from {second}" in told
    assert f"2 newer checkpoints are set aside in {run}/checkpoints/set-aside" in told
    aside = [run / "checkpoints" / "set-aside" / one.name for one in (third, fourth)]
    assert all(checkpoint.damage(one) is None for one in aside)
    assert steps(run)[-1].name == third.name and (run / "checkpoints" / "latest").read_text() == third.name
    require_consistent(run)
    assert train(run, toy_shards, "--train.epochs", "4", *flags) == 0  # the same command goes on where it was
    assert f"going on from {third}" in capsys.readouterr().out
    require_consistent(run)


def test_a_single_checkpoint_that_is_set_aside_is_told_as_one(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    flags = ("--checkpoint.resume", str(steps(run)[2]), *KEEP)
    assert train(run, toy_shards, "--train.epochs", "3", *flags) == 0
    assert f"\n1 newer checkpoint is set aside in {run}/checkpoints/set-aside\n" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_told_whichever_way_the_run_goes_on(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ("--checkpoint.resume", str(steps(whole)[0]), *KEEP)
    assert train(run, toy_shards, "--train.epochs", "3", *command) == 0
    second, third = steps(run)[-2:]
    (third / "optimizer.pt").write_bytes(b"half")
    for flags in (command, KEEP):
        again = shutil.copytree(run, tmp_path / f"again{len(flags)}")
        capsys.readouterr()
        assert train(again, toy_shards, "--train.epochs", "4", *flags) == 0
        told = capsys.readouterr()
        assert f"going on from {again / 'checkpoints' / second.name}" in told.out
        assert (
            f"{third.name} is damaged (optimizer.pt is not as it was written); going back to the one before" in told.err
        )


def test_the_same_checkpoint_with_other_settings_is_gone_back_to_again(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    second, third = steps(run)[1:3]
    flags = ("--checkpoint.resume", str(second), "--train.epochs", "3", *KEEP)
    for rate in ("1e-3", "1e-4"):
        assert train(run, toy_shards, *flags, "--optim.lr", rate) == 0
        assert f"going on from {second}" in capsys.readouterr().out
        assert checkpoint.load_state(third)["config"]["optim"]["lr"] == float(rate)
        require_consistent(run)


def test_a_run_that_goes_on_elsewhere_takes_its_best_along(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, position = tmp_path / "run", best(whole)
    flags = ("--checkpoint.resume", str(steps(whole)[-1]), *KEEP)
    assert train(run, toy_shards, "--train.epochs", "4", *flags) == 0  # nothing is left to train
    made = checkpoint.of_step(whole / "checkpoints", position["best_step"])
    assert (
        f"{run}/bundle was not of epoch {position['best_epoch']}, the best so far; made anew from {made}"
        in capsys.readouterr().out
    )
    result = [json.loads((folder / "result.json").read_text()) for folder in (run, whole)]
    assert result[0]["best_epoch"] == result[1]["best_epoch"] and result[0]["val"] == result[1]["val"]
    assert (run / "config.yaml").is_file()
    weights = [load_file(folder / "bundle" / "weights.safetensors") for folder in (run, whole)]
    assert all(values.equal(weights[1][name]) for name, values in weights[0].items())


def test_a_course_that_was_set_aside_is_taken_up_as_it_was(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoints in the folder have the same names, and are of another course."""
    run = shutil.copytree(whole, tmp_path / "run")
    first, last = steps(run)[0], steps(run)[-1]
    flags = ("--train.epochs", "4", *KEEP, "--checkpoint.resume")
    assert train(run, toy_shards, *flags, str(first), "--optim.lr", "1e-6") == 0
    aside = run / "checkpoints" / "set-aside" / last.name
    capsys.readouterr()
    assert train(run, toy_shards, *flags, str(aside)) == 0
    assert f"4 other checkpoints are set aside in {run}/checkpoints/set-aside" in capsys.readouterr().out
    for name in ("weights.safetensors", "model.json"):
        assert (run / "bundle" / name).read_bytes() == (whole / "bundle" / name).read_bytes()
    assert best(run) == best(whole)
    assert not (run / "metrics.jsonl").read_text() and (aside.parent / "metrics.jsonl").read_text()
    assert train(run, toy_shards, *flags[:-1]) == 0  # without the flag, it goes on from what is in the folder now
    assert "is finished after 4 epochs" in capsys.readouterr().out
    shutil.rmtree(run / "checkpoints" / "set-aside")
    shutil.rmtree(run / "bundle")
    assert train(run, toy_shards, *flags[:-1]) == 0
    assert (run / "bundle" / "weights.safetensors").read_bytes() == (
        whole / "bundle" / "weights.safetensors"
    ).read_bytes()


def test_a_lost_bundle_is_made_anew(whole: Path, toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "bundle")
    assert train(run, toy_shards, "--train.epochs", "4", *KEEP) == 0
    for name in ("weights.safetensors", "model.json"):
        assert (run / "bundle" / name).read_bytes() == (whole / "bundle" / name).read_bytes()


def test_the_checkpoint_of_the_best_epoch_is_there_whatever_else_is_kept_and_gives_its_bundle_again(
    peaked: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    position, run = best(peaked), shutil.copytree(peaked, tmp_path / "run")
    of_best = checkpoint.of_step(run / "checkpoints", position["best_step"])
    assert position["best_epoch"] == 2 and position["best_step"] * 2 == position["step"]
    assert checkpoint.damage(of_best) is None and len(steps(run)) == 2
    shutil.rmtree(run / "bundle")
    with second_epoch_is_best(toy_shards):
        assert train(run, toy_shards, "--train.epochs", "4", *SPARING) == 0
    assert f"made anew from {of_best}" in capsys.readouterr().out
    require_consistent(run)
    for name in ("weights.safetensors", "model.json"):
        assert (run / "bundle" / name).read_bytes() == (peaked / "bundle" / name).read_bytes()


def test_training_goes_on_from_its_last_step_also_where_the_best_bundle_was_made_anew(
    peaked: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = []
    for name in ("with", "without"):
        run = shutil.copytree(peaked, tmp_path / name)
        if name == "without":
            shutil.rmtree(run / "bundle")
        with second_epoch_is_best(toy_shards):
            assert train(run, toy_shards, "--train.epochs", "5", *SPARING) == 0
        assert ("made anew from" in capsys.readouterr().out) == (name == "without")
        require_consistent(run)
        ends.append(checkpoint.load(steps(run)[-1]))
    one, other = ends
    assert one.state["position"]["epoch"] == other.state["position"]["epoch"] == 5
    assert all(values.equal(other.tensors["model"][name]) for name, values in one.tensors["model"].items())
    one_state, other_state = (end.optimizer["optimizer"]["state"] for end in ends)
    assert one_state.keys() == other_state.keys() and one_state
    for name, moments in one_state.items():
        assert all(torch.equal(values, other_state[name][which]) for which, values in moments.items()), name


def test_a_run_that_went_on_elsewhere_keeps_its_best_whatever_becomes_of_where_it_came_from(
    peaked: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, run = shutil.copytree(peaked, tmp_path / "first"), tmp_path / "run"
    flags = ("--train.epochs", "4", *SPARING)
    with second_epoch_is_best(toy_shards):
        assert train(run, toy_shards, *flags, "--checkpoint.resume", str(steps(first)[-1])) == 0
        shutil.rmtree(first)
        shutil.rmtree(run / "bundle")
        assert train(run, toy_shards, *flags) == 0
    of_best = checkpoint.of_step(run / "checkpoints", best(run)["best_step"])
    assert f"made anew from {of_best}" in capsys.readouterr().out
    require_consistent(run)


def without_its_best(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint, of an older version, that tells of a best epoch of which nothing else is there."""
    alone = Path(shutil.copytree(source, folder / "alone" / source.name))
    state = json.loads((alone / "state.json").read_text())
    state["position"].update(best_step=1, best_epoch=1, best_map=0.999)
    del state["position"]["sought_since"]
    (alone / "state.json").write_text(json.dumps(state))
    marker = json.loads((alone / "complete.json").read_text())
    size, sha256 = (alone / "state.json").stat().st_size, checkpoint.sha256_of(alone / "state.json")
    marker["state.json"] = {"bytes": size, "sha256": sha256}
    (alone / "complete.json").write_text(json.dumps(marker))
    return alone


def test_without_bundle_and_checkpoint_of_the_best_it_is_looked_for_anew_or_refused(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = without_its_best(steps(whole)[-1], tmp_path)
    flags = ("--checkpoint.resume", str(alone))
    assert train(tmp_path / "finished", toy_shards, "--train.epochs", "4", *flags) == 1
    assert "neither the bundle nor the checkpoint of epoch 1, its best" in capsys.readouterr().err
    assert train(tmp_path / "longer", toy_shards, "--train.epochs", "5", *flags) == 0
    assert "the best is looked for from here on" in capsys.readouterr().out
    assert best(tmp_path / "longer")["best_epoch"] == 5
    require_consistent(tmp_path / "longer")


ALIKE = {
    "run.seed": [("--run.seed", "5")],
    "train.global_batch": [("--train.global_batch", "32")],
    "train.ema": [("--train.ema", "0.9")],
    "model": [("--model.head", "mlp"), ("--model.hidden", "8"), ("--model.frozen", "1")],
    "optim.name": [("--optim.name", "sgd")],
    "data.order": [("--data.order", "block"), ("--data.repeat_below", "0.5")],
    "data.train_split": [("--data.shards", "{renamed}", "--data.train_split", "learn")],
    "data.val_split": [("--data.val_split", "train")],
    "labels.positive_at": [("--labels.positive_at", "0.4")],
    "attributes": [],  # which are part of the training data
    "training data": [("--data.shards", "{relabelled}")],
}
"""What a run and its checkpoint must have in common → flags that change nothing else. {relabelled}: shards of the same
objects with other labels; {renamed}: the same shards, of which split train is called learn.
"""


def copied(source: Path, folder: Path, **fields: object) -> Path:
    """The same shards, of which the manifest tells something else."""
    shutil.copytree(source, folder)
    manifest = read_manifest(source).model_copy(update=fields)
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return folder


def with_train_split_renamed(shards: Path, folder: Path) -> Path:
    manifest = read_manifest(shards)
    names = {"train": "learn", "val": "val"}
    infos = [info.model_copy(update={"split": names[info.split]}) for info in manifest.shards]
    splits = {names[split]: found for split, found in manifest.splits.items()}
    return copied(shards, folder, shards=infos, splits=splits)


def differing(error: str) -> list[str]:
    """What the line that refuses a checkpoint says is not alike."""
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    inside = line.partition("belongs to another run (")[2].rpartition("); choose")[0]
    return [part.partition(": ")[0] for part in inside.split("; ")]


@pytest.mark.parametrize(("key", "flags"), [(key, flags) for key, all_flags in ALIKE.items() for flags in all_flags])
def test_what_may_not_change_is_refused_and_named(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, flags: tuple[str, ...]
) -> None:
    copies = {
        "relabelled": copied(toy_shards, tmp_path / "relabelled", labels_sha256="0" * 64),
        "renamed": with_train_split_renamed(toy_shards, tmp_path / "renamed"),
    }
    given = [word.format(**copies) for word in flags]
    source = ("--checkpoint.resume", str(steps(whole)[-1]))
    assert train(tmp_path / "run", toy_shards, "--train.epochs", "5", *source, *given) == 1
    assert differing(capsys.readouterr().err) == [key]


def test_other_attributes_are_refused_and_named_beside_the_data_they_are_part_of(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("something else", *read_manifest(toy_shards).vocabulary.names[1:])
    other = VocabularyRecord.of(AttributeVocabulary.from_names(names))
    copy = copied(toy_shards, tmp_path / "copy", vocabulary=other)
    source = ("--checkpoint.resume", str(steps(whole)[-1]))
    assert train(tmp_path / "run", copy, "--train.epochs", "5", *source) == 1
    assert set(differing(capsys.readouterr().err)) == {"attributes", "training data"}


def test_all_that_may_not_change_is_tried(toy_shards: Path) -> None:
    assert ALIKE.keys() == identity(TrainConfig(), ShardSet([toy_shards], "train")).keys()


@pytest.mark.parametrize("left", ["checkpoints", "result.json"])
def test_a_run_that_may_not_go_on_is_refused_by_whatever_it_has_left(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    copy = shutil.copytree if (whole / left).is_dir() else shutil.copy
    copy(whole / left, run / left)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train(run, toy_shards, "--train.epochs", "5", "--checkpoint.resume", "never") == 1
    assert f"error: {run} holds a run and checkpoint.resume is never" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_a_result_stands_for_all_epochs_that_were_asked_for(
    whole: Path, toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    monkeypatch.setattr("attrtrain.wiring.fit", lambda *_: (_ for _ in ()).throw(MemoryError))
    assert train(run, toy_shards, "--train.epochs", "5", *KEEP) == 1
    assert not (run / "result.json").exists()


def test_a_full_disk_is_one_line_wherever_it_is_met(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def no_right(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr("attrtrain.run_opening.dump_config", no_right)
        assert train(tmp_path / "locked", toy_shards, "--train.epochs", "4") == 1
    told = f"error: {tmp_path / 'locked'}: Operation not permitted; mend that and run the same command again to go on\n"
    assert capsys.readouterr().err.replace("\r", "\n").endswith(told)
    for name in ("wiring.write_contract", "run_opening.dump_config", "run_completion.write_run_report"):
        run = tmp_path / name
        if name == "run_completion.write_run_report":
            shutil.copytree(whole, run)
            (run / "result.json").unlink()  # killed before it was judged
        with monkeypatch.context() as patched:
            patched.setattr(f"attrtrain.{name}", no_room)
            assert train(run, toy_shards, "--train.epochs", "4") == 1
        lines = [
            line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error: ")
        ]
        assert lines == [f"error: {run}: No space left on device; free space and run the same command again to go on"]


def test_what_a_kill_left_half_written_is_no_obstacle(whole: Path, toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    left = [run / ".bundle.partial" / "model.json", run / "bundles" / ".epoch-004.partial" / "model.json"]
    left += [run / ".config.yaml.0123456789ab.partial", run / "evaluation" / ".metrics.json.0123456789ab.partial"]
    for place in left:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"{")
    assert train(run, toy_shards, "--train.epochs", "5", *KEEP) == 0
    assert not list(run.glob("**/*.partial"))
    assert best(run)["best_epoch"] and len(steps(run)) == 5


def test_a_folder_of_checkpoints_is_no_checkpoint_and_the_shards_are_no_run(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (whole, whole / "checkpoints"):
        assert train(tmp_path / "run", toy_shards, "--checkpoint.resume", str(place)) == 1
        told = f"{place} is no checkpoint, but holds some; give one of them, such as {steps(whole)[-1]}\n"
        assert capsys.readouterr().err.endswith(told)
    shards = tmp_path / "shards"
    shutil.copytree(toy_shards, shards)
    before = sorted(shards.iterdir())
    assert train(shards, shards) == 2
    assert capsys.readouterr().err == f"error: run.dir: {shards} holds the shards; give the run a folder of its own\n"
    assert sorted(shards.iterdir()) == before


def test_a_finished_run_is_left_as_it_is(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for flags in ((), ("--optim.lr", "0.5", "--loss.name", "focal"), ("--train.epochs", "2")):
        assert train(run, toy_shards, "--train.epochs", "4", *KEEP, *flags) == 0
        told = capsys.readouterr().out
        assert f"{run} is finished after 4 epochs, and is left as it is: nothing was trained" in told
        assert ("settings changed since: " in told) == bool(flags)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_finished_run_that_goes_back_is_judged_as_what_it_is_then(
    whole: Path, toy_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    first = steps(run)[0]
    assert train(run, toy_shards, "--train.epochs", "1", *KEEP, "--checkpoint.resume", str(first)) == 0
    require_consistent(run)
    assert best(run)["best_epoch"] == 1
    result, document = (json.loads((run / name).read_text()) for name in ("result.json", "evaluation/metrics.json"))
    assert (
        result["val"]["map"]
        == document["overall"]["map"]
        == pytest.approx(read_card(run / "bundle").metrics["val.map"])
    )
    assert (run / "config.yaml").read_text() == (whole / "config.yaml").read_text()  # what it was trained by


def test_a_run_all_of_whose_checkpoints_are_damaged_is_not_begun_anew(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for place in steps(run):
        (place / "optimizer.pt").write_bytes(b"half")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train(run, toy_shards, "--train.epochs", "5") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (
        str(steps(run)[-1]) in line and "optimizer.pt is not as it was written" in line and "another --run.dir" in line
    )
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_each_going_back_sets_aside_is_kept_and_a_place_is_known_in_any_spelling(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    second, third = steps(run)[1:3]
    flags = ("--train.epochs", "3", *KEEP, "--checkpoint.resume")
    for spelling, rate in ((f"{second}", "1e-6"), (f"{second}/", "1e-6"), (f"{steps(run)[0]}", "1e-5")):
        assert train(run, toy_shards, *flags, spelling, "--optim.lr", rate) == 0
    told = capsys.readouterr().out
    assert told.count("newer checkpoints are set aside") == 2 and told.count("is finished after 3 epochs") == 1
    aside = run / "checkpoints" / "set-aside"
    assert {path.name for path in aside.glob(f"{third.name}*")} == {third.name, f"{third.name}.2"}
    assert all(checkpoint.damage(place) is None for place in aside.iterdir())


@pytest.mark.parametrize("momenta", [("0", "0"), ("0.9", "0"), ("0", "0.9")])
def test_an_optimizer_without_memory_goes_on(toy_shards: Path, tmp_path: Path, momenta: tuple[str, str]) -> None:
    for epochs, momentum in zip(("1", "2"), momenta, strict=True):
        flags = ("--optim.name", "sgd", "--optim.momentum", momentum, "--train.epochs", epochs)
        assert train(tmp_path / "run", toy_shards, *flags) == 0
    assert best(tmp_path / "run")["epoch"] == 2


def test_weights_that_are_no_numbers_are_never_saved(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = (
        "--train.epochs",
        "1",
        "--checkpoint.every_steps",
        "1",
        "--track.every_steps",
        "100",
        "--train.global_batch",
        "16",
    )
    wild = ("--optim.name", "sgd", "--optim.lr", "1e30", "--train.clip_norm", "0")
    assert train(run, toy_shards, *flags, *wild) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "lower optim.lr" in line and "no finite numbers any more" in line
    assert "train.precision" not in line  # which is "no" already
    for place in steps(run):
        assert all(values.isfinite().all() for values in load_file(place / "model.safetensors").values())


def test_too_little_memory_for_a_step_is_one_line(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")

    monkeypatch.setattr("attrtrain.engine.fit.optimizer_step", no_memory)
    assert train(tmp_path / "run", toy_shards, "--train.epochs", "1") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "Tried to allocate 20.00 MiB" in line and "lower train.micro_batch" in line and "attrtrain find" in line


def test_too_little_memory_for_an_evaluation_is_told_as_that(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")

    monkeypatch.setattr("attrtrain.engine.evaluate.filled_up", no_memory)
    assert train(tmp_path / "run", toy_shards, "--train.epochs", "1") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "64 objects of 32 x 32 pixels" in line and "Tried to allocate 20.00 MiB" in line
    assert "data.image_px" in line and "train.micro_batch" not in line  # which decides nothing there


def test_patience_counts_from_where_the_best_is_looked_for_anew(
    whole: Path, toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, run = without_its_best(steps(whole)[-1], tmp_path), tmp_path / "run"
    flags = ("--checkpoint.resume", str(source), "--train.epochs", "9", "--train.patience", "2", "--optim.lr", "1e-12")
    assert train(run, toy_shards, *flags) == 0
    assert "best is looked for from here on" in (told := capsys.readouterr().out)
    assert best(run)["epoch"] >= 7 and best(run)["best_epoch"] >= 5
    assert best(run)["epoch"] == 9 or f"of epoch {best(run)['epoch'] - 2}, for 2 epochs (train.patience)" in told
    require_consistent(run)


@pytest.mark.parametrize("when", ["of an epoch", "of the bundle"])
def test_a_stop_in_an_evaluation_leaves_with_85_and_loses_no_time(
    whole: Path, toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    place = {"of an epoch": fit, "of the bundle": run_completion}[when]
    original, run = place.evaluate, tmp_path / "run"

    def stopped(*arguments: object, **options: object) -> None:
        assert options["stop"] is not None
        raise EvaluationStoppedError

    monkeypatch.setattr(place, "evaluate", stopped)
    assert train(run, toy_shards, "--train.epochs", "1", *KEEP) == 85
    assert not (run / "result.json").exists()
    spent = best(run)["seconds"]
    assert spent > 0
    monkeypatch.setattr(place, "evaluate", original)
    assert train(run, toy_shards, "--train.epochs", "1", *KEEP) == 0
    require_consistent(run)
    (line,) = [line for line in logged(run) if line["kind"] == "val"]
    assert json.loads((run / "result.json").read_text())["seconds"] == pytest.approx(line["seconds"])
    assert line["seconds"] > spent if when == "of an epoch" else line["seconds"] == pytest.approx(spent)


def test_what_accelerate_would_take_from_the_environment_changes_nothing(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for name in ("plain", "divided"):
        assert train(tmp_path / name, toy_shards, "--train.epochs", "1", "--train.clip_norm", "0") == 0
        losses.append([line["loss"] for line in logged(tmp_path / name)])
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    assert losses[0] == losses[1]


def seen_first_in_step(step: int, shards: ShardSet, run: Path) -> int:
    seed = checkpoint.load_state(steps(run)[-1])["config"]["run"]["seed"]
    order = TrainOrder(len(shards), seed, global_batch=64, micro_batch=64, rank=0, world_size=1)
    return int(next(order.steps(epoch=0, first=step)).index[0])


def require_same_end(run: Path, undisturbed: Path) -> None:
    """Asks for equal weights, and for equal lines of every step and epoch."""
    last = [load_file(steps(folder)[-1] / "model.safetensors") for folder in (run, undisturbed)]
    assert last[0].keys() == last[1].keys() and all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    told = [
        [(line["kind"], line["step"], line.get("loss")) for line in logged(folder)] for folder in (run, undisturbed)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_object_costs_no_step_that_was_taken_before_it(
    toy_shards: Path, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    shards, run, flags = tmp_path / "shards", tmp_path / "run", ("--train.epochs", "4", *KEEP)
    shutil.copytree(toy_shards, shards)
    there = ShardSet([shards], split)
    if split == "train":
        trained, position = 1, seen_first_in_step(1, there, whole)
    else:
        trained, position = len(ShardSet([shards], "train")) // 64, 0
    object_id, _ = damage_crop(there, position)
    assert train(run, shards, *flags) == 1
    assert f"error: object {object_id} in " in capsys.readouterr().err
    assert [path.name for path in steps(run)][-1] == f"step-{trained:08d}"
    shutil.copytree(toy_shards, shards, dirs_exist_ok=True)
    assert train(run, shards, *flags) == 0
    assert f"going on from {run / 'checkpoints' / f'step-{trained:08d}'}" in capsys.readouterr().out
    require_same_end(run, whole)


def test_an_evaluation_that_does_not_fit_costs_no_epoch(
    toy_shards: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object, **__: object) -> Evaluation:
        raise MemoryExceededError("an evaluation does not fit")

    run, flags = tmp_path / "run", ("--train.epochs", "4", *KEEP)
    with monkeypatch.context() as patched:
        patched.setattr(fit, "evaluate", too_large)
        assert train(run, toy_shards, *flags) == 1
    assert [path.name for path in steps(run)] == [f"step-{len(ShardSet([toy_shards], 'train')) // 64:08d}"]
    assert train(run, toy_shards, *flags) == 0
    require_same_end(run, whole)
