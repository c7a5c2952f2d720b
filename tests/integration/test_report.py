"""`attrtrain report` on run directories."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from report_data import drawn_predictions

from attrtrain.cli import main
from attrtrain.data.reader import ShardSet
from attrtrain.metrics.document import write_metrics
from attrtrain.metrics.judge import judge
from attrtrain.predictions import write_predictions
from attrtrain.shards.manifest import VocabularyRecord
from tests.bundles import draw_bundle


def run_directory(folder, shards_at, *, seed=0, fingerprint=None, split="val"):
    """A run as training leaves it, without the model, judged on a split."""
    shards = ShardSet([shards_at], split)
    predictions = drawn_predictions(objects=len(shards), attributes=8, known=0.9, seed=0)
    noise = np.random.default_rng(seed).normal(size=predictions.logits.shape).astype(np.float32)
    predictions = replace(
        predictions, object_id=shards.object_ids, image_id=shards.column("image_id"),
        logits=predictions.logits + 0.5 * noise,
    )  # fmt: skip
    source = {"model": str(folder), "split": split, "data_fingerprint": fingerprint or shards.fingerprint}
    (folder / "evaluation").mkdir(parents=True)
    write_metrics(judge(predictions, source=source, replicates=20), folder / "evaluation" / "metrics.json")
    write_predictions(folder / "evaluation" / "predictions.npz", predictions)
    (folder / "config.yaml").write_text(
        f"run:\n  seed: {seed}\ndata:\n  shards:\n  - {shards_at}\n  val_split: val\nknob_of_another_version: 3\n"
    )
    lines = [{"kind": "val", "step": 5 * e, "epoch": e, "map": 0.1 * e, "prior_map": 0.1, "loss": 0.5} for e in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "audit.json").write_text(json.dumps({"verdict": "learnable", "p_value": 0.001, "effect": 0.3}))
    return folder


@pytest.fixture
def run(tmp_path, toy_shards):
    return run_directory(tmp_path / "run", toy_shards)


def refusal(capsys, *arguments):
    """The line on stderr of a command that fails."""
    assert main(["report", *map(str, arguments)]) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def test_a_runs_report_is_written_anew(run, capsys):
    (run / "report.html").write_text("old")
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Label audit: learnable" in page and "best after epoch 2" in page and "knob_of_another_version" in page
    assert page.count("data:image/webp;base64,") > 24
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'} (0.")


def test_curves_are_of_the_split_that_training_was_judged_on(run):
    """Whatever split `attrtrain evaluate --out RUN/evaluation` has judged since."""
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("val_split: val", "val_split: dev"))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "mAP on “dev” and the prior" in page and "of split “val”" in page


def test_a_run_that_was_judged_on_another_split_than_it_validates_on_shows_that_ones_crops(tmp_path, toy_shards):
    run = run_directory(tmp_path / "run", toy_shards, split="train")
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert page.count("data:image/webp;base64,") > 24 and "There are no pictures" not in page


def test_another_file_can_be_named(run, tmp_path):
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").is_file() and not (run / "report.html").exists()


def test_what_evaluate_wrote_can_be_reported_on(run, capsys):
    assert main(["report", str(run / "evaluation")]) == 0
    page = (run / "evaluation" / "report.html").read_text()
    assert "best after epoch 2" in page and page.count("data:image/webp;base64,") > 24  # it lies in the run's folder
    alone = run.rename(run.with_name("moved")) / "evaluation"
    alone = alone.rename(run.with_name("results"))
    capsys.readouterr()
    assert main(["report", str(alone)]) == 0
    assert "no config.yaml says where the shards are" in capsys.readouterr().out
    assert "no config.yaml says where the shards are" in (alone / "report.html").read_text()


def test_a_page_of_evaluate_is_made_anew_with_its_pictures_from_anywhere(toy_shards, tmp_path, monkeypatch):
    shards, out = ShardSet([toy_shards], "val"), tmp_path / "results"
    vocabulary = VocabularyRecord.of(shards.vocabulary)
    model = draw_bundle(tmp_path / "bundle", shards.vocabulary.names, crop=shards.crop, vocabulary=vocabulary)
    monkeypatch.chdir(toy_shards.parent)
    assert main(["evaluate", "--model", str(model), "--shards", toy_shards.name, "--out", str(out)]) == 0
    first = (out / "report.html").read_text()
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(out)]) == 0
    again = (out / "report.html").read_text()
    pictures = re.compile(r"data:image/webp;base64,[^\"']+")
    assert pictures.findall(again) == pictures.findall(first) and len(pictures.findall(again)) > 24
    assert str(toy_shards) not in again and str(toy_shards) not in first  # the page is for others, too


@pytest.mark.parametrize(
    ("written", "pictures"),
    [("shards: {}", True), ("shards: 5", False), ("shards: {{a: {}}}", False), ("x: {}", False)],
)
def test_a_config_that_somebody_edited_shows_pictures_or_says_why_not(run, toy_shards, capsys, written, pictures):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(f"shards:\n  - {toy_shards}", written.format(toy_shards)))
    assert main(["report", str(run)]) == 0
    assert ("no config.yaml says where the shards are" in capsys.readouterr().out) != pictures
    (run / "evaluation" / "metrics.json").unlink()
    assert f"--shards {toy_shards if pictures else 'DIR'} --out" in refusal(capsys, run)


@pytest.mark.parametrize("written", ["5", "true", "[5]", '{"a": 1}', "[]", "gone", "[" * 100_000])
def test_shards_of_a_metrics_json_that_somebody_edited_are_those_of_config_yaml(run, written):
    metrics = run / "evaluation" / "metrics.json"
    content = json.loads(metrics.read_text())
    metrics.write_text(json.dumps({**content, "source": {**content["source"], "shards": written}}))
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text().count("data:image/webp;base64,") > 24


def test_without_its_shards_the_page_has_no_pictures_and_says_so(run, capsys):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("- /", "- /gone/"))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "There are no pictures: /gone/" in page and "data:image" not in page.split("<main")[1]
    assert "There are no pictures: /gone/" in capsys.readouterr().out


def test_a_manifest_without_its_shards_gives_a_page_without_pictures(tmp_path, toy_shards):
    copy = tmp_path / "shards"
    shutil.copytree(toy_shards, copy)
    run = run_directory(tmp_path / "run", copy)
    for shard in copy.glob("val-*.tar"):
        shard.unlink()
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "There are no pictures: " in page and "attrtrain verify" in page and "data:image/webp" not in page


@pytest.mark.parametrize("other", [False, True])
def test_a_full_disk_is_one_line_and_leaves_the_old_page(run, tmp_path, capsys, monkeypatch, other):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (run / "report.html").write_text("old")
    monkeypatch.setattr("attrtrain.report.render.atomic_write", full)
    assert "No space left on device" in refusal(capsys, run, *([run] if other else []))
    assert (run / "report.html").read_text() == "old"


def test_folders_whose_names_are_no_text_are_reported_on(tmp_path, toy_shards, capsys):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    names = {"a": os.fsdecode(b"\xe9t\xe9"), "b": "b"}
    runs = [run_directory(tmp_path / name, toy_shards).rename(folder / names[name]) for name in names]
    for run in runs:
        assert main(["report", str(run)]) == 0
    assert r"<h1>\udce9t\udce9" in (runs[0] / "report.html").read_text()
    assert main(["report", *map(str, runs)]) == 0
    assert r"\udce9t\udce9 and b" in (runs[1] / "compare.html").read_text()
    (runs[0] / "config.yaml").unlink()
    metrics = runs[0] / "evaluation" / "metrics.json"
    content = json.loads(metrics.read_text())
    content["source"]["shards"] = json.dumps([str(folder / "gone")])
    metrics.write_text(json.dumps(content))
    assert main(["report", str(runs[0])]) == 0
    assert r"caf\udce9/gone is not there" in (runs[0] / "report.html").read_text()


def test_shards_whose_names_are_no_text_are_judged_and_shown(tmp_path, toy_shards):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(toy_shards, folder / "shards")
    shards = ShardSet([toy_shards], "val")
    vocabulary = VocabularyRecord.of(shards.vocabulary)
    model = draw_bundle(tmp_path / "model", shards.vocabulary.names, crop=shards.crop, vocabulary=vocabulary)
    out = folder / "results"
    assert main(["evaluate", "--model", str(model), "--shards", str(folder / "shards"), "--out", str(out)]) == 0
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_text().count("data:image/webp;base64,") > 24


def test_shards_that_were_made_anew_are_not_mistaken_for_the_old_ones(tmp_path, toy_shards):
    run = run_directory(tmp_path / "run", toy_shards, fingerprint="0" * 64)
    assert main(["report", str(run)]) == 0
    assert "holds other data than the run was judged on" in (run / "report.html").read_text()


def test_a_run_without_an_evaluation_names_the_command_that_makes_one(run, toy_shards, capsys):
    (run / "evaluation" / "predictions.npz").unlink()
    line = refusal(capsys, run)
    assert f"`attrtrain evaluate --model {run} --shards {toy_shards} --out {run}/evaluation`" in line
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evaluation/metrics.json", b"{}"),
        ("evaluation/metrics.json", b"\x00"),
        ("evaluation/predictions.npz", b"PK"),
        ("audit.json", b"[1"),
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"- 1"),
        ("config.yaml", b"\xff\xfe\xff"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(run, capsys, name, content):
    (run / name).write_bytes(content)
    assert str(run / name) in refusal(capsys, run)
    assert not (run / "report.html").exists()


def test_predictions_of_another_model_beside_the_metrics_are_refused(run, tmp_path, toy_shards, capsys):
    """As an evaluation that is killed between its two files leaves them."""
    other = run_directory(tmp_path / "other", toy_shards, seed=1)
    shutil.copy(other / "evaluation" / "predictions.npz", run / "evaluation")
    line = refusal(capsys, run)
    assert f"{run / 'evaluation'}: metrics.json and predictions.npz are of different evaluations" in line
    assert not (run / "report.html").exists()
    assert line == refusal(capsys, other, run)


def test_what_is_no_run_is_told(tmp_path, run, capsys):
    assert "no such folder" in refusal(capsys, tmp_path / "absent")
    assert "attrtrain evaluate" in refusal(capsys, tmp_path)
    assert "is a folder" in refusal(capsys, run, "--out", tmp_path)
    assert "there is no folder" in refusal(capsys, run, "--out", tmp_path / "absent" / "page.html")


def test_two_runs_are_compared(run, tmp_path, toy_shards, capsys):
    other = run_directory(tmp_path / "other", toy_shards, seed=1)
    assert main(["report", str(run), str(other)]) == 0
    out = capsys.readouterr().out
    assert f"A = {run}, B = {other}" in out and "\nmAP " in out and "compare.html" in out
    page = (other / "compare.html").read_text()
    assert "run.seed" in page and "data.shards" not in page
    assert main(["report", str(run), str(other), "--out", str(tmp_path / "c.html")]) == 0
    assert (tmp_path / "c.html").read_text() == page


def test_runs_on_other_objects_are_refused(run, tmp_path, toy_shards, capsys):
    other = run_directory(tmp_path / "other", toy_shards)
    predictions = drawn_predictions(objects=30, attributes=8)
    write_predictions(other / "evaluation" / "predictions.npz", predictions)
    write_metrics(judge(predictions, source={}, replicates=0), other / "evaluation" / "metrics.json")
    assert "other objects" in refusal(capsys, run, other)
    assert not (other / "compare.html").exists()


def test_help_answers_without_anything_heavy():
    script = (
        "import sys\nfrom attrtrain.cli import main\ntry: main(['report', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'jinja2', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "RUN_B" in done.stdout and "attrtrain report runs/before runs/after" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]" and done.stderr == ""
