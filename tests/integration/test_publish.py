"""A model card says what the run's files say, and a published folder or repository is the model it was made from."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_hub import TOKEN, Hub, serving
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt

from attrtrain import bundle
from attrtrain.cli import main
from attrtrain.framing import Framing
from attrtrain.inference.predictor import Predictor
from attrtrain.metrics.document import write_metrics
from attrtrain.metrics.judge import judge
from attrtrain.predictions import read_predictions
from attrtrain.publishing import hub_folder
from tests.bundles import draw_bundle

# huggingface_hub hands a file to its HTTP library in a way that the library no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

HOSTILE = "</td><script>| `x` *[a](b)* {{ 7 * 7 }}"
BACKBONE = ["--model.backbone", "resnet18", "--model.weights", "none", "--data.image_px", "32"]


@pytest.fixture(scope="module")
def run(toy_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on boxes with an attribute of each awkward kind; shards beside it."""
    folder = tmp_path_factory.mktemp("publish")
    rng = np.random.default_rng(0)
    names = ["left", "wide", HOSTILE, "only absent", "only present", "rare in val", "nobody said"]
    lines = [",".join(["file_name", "split", "category", "x", "y", "w", "h", *names])]
    for number, photograph in enumerate(sorted((toy_coco / "train2017").glob("*.jpg"))[:30]):
        split = "val" if number % 3 == 0 else "train"
        for x in (0, 20, 40):
            rare = "1" if split == "train" and x else "0"
            votes = [int(x == 0), int(rng.random() < 0.5), int(x < 40), 0, 1, rare, "" if split == "train" else int(x)]
            votes[-1] = "" if split == "train" else int(rng.random() < 0.5)
            lines.append(
                f"{photograph.name},{split},{'cat' if x else 'dog'},{x},5,{30 + x},40,{','.join(map(str, votes))}"
            )
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    sharding = ["--labels", folder / "boxes.csv", "--images", toy_coco / "train2017", "--out", folder / "shards"]
    assert main(["shard", *map(str, sharding), "--workers", "1"]) == 0
    flags = ["--data.shards", str(folder / "shards"), "--run.dir", str(folder / "toy"), "--track.wandb", "disabled"]
    flags += ["--train.epochs", "1", "--train.global_batch", "8", *BACKBONE]
    done = subprocess.run([sys.executable, "-m", "attrtrain.train", *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "toy"


@pytest.fixture(scope="module")
def card(run: Path) -> ModelCard:
    out = run.parent / "README.md"
    assert main(["card", str(run), "--license", "mit", "--datasets", "me/boxes", "--out", str(out)]) == 0
    return ModelCard.load(out)


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict:
    return json.loads((run / "evaluation" / "metrics.json").read_text())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A server in the Hub's place, which knows one token; nothing is cached yet."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def tables(card: ModelCard) -> list[list[list[str]]]:
    """The card's tables, by a Markdown reader that is not ours: rows of cells as a person sees them."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(card.text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and token.level == 4 + (1 if not found else 0):
            found[-1][-1].append(_seen(token))
    return found


def _seen(token) -> str:
    return "".join(child.content for child in token.children if child.type in ("text", "code_inline", "text_special"))


def limits(card: ModelCard, start: str) -> str:
    """The line of the limits that begins so, as a person sees it."""
    lines = [_seen(token) for token in MarkdownIt("commonmark").parse(card.text) if token.type == "inline"]
    return next(line for line in lines if line.startswith(start))


def prediction(model: str, photograph: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    capsys.readouterr()
    box = ["--box", "5,5,60,20", "--json", "--top", "99"]
    assert main(["predict", "--model", model, str(photograph), *box, *more]) == 0
    return json.loads(capsys.readouterr().out)


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    code = main(arguments)
    error = capsys.readouterr().err
    assert code != 0 and error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_the_numbers_of_a_card_are_those_of_metrics_json(card: ModelCard, metrics: dict) -> None:
    indexed = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert set(indexed) == {"map", "prior_map", "permutation_map", "category_map", "auroc"}
    assert indexed == {key: metrics["overall"][key] for key in indexed}
    assert {result.dataset_split for result in card.data.eval_results} == {"val"}
    ladder = tables(card)[0]
    for row, key in zip(ladder[1:], ("map", "prior_map", "permutation_map", "category_map"), strict=True):
        assert row[1] == f"{metrics['overall'][key]:.3f}"
        interval = metrics["intervals"][key]
        assert row[2] == (f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–")
    shown = {row[0]: row[1:] for row in tables(card)[2][1:]}
    judged = {entry["name"]: entry for entry in metrics["attributes"] if entry["judged"]}
    assert set(shown) == set(judged) and HOSTILE in shown
    for name, entry in judged.items():
        assert shown[name][0] == f"{entry['ap']:.3f}" and shown[name][2] == f"{entry['prior']:.3f}"
        assert shown[name][4] == f"{entry['positives']} / {entry['negatives']}"
    above = [entry["ap"] - entry["prior"] for entry in (judged[name] for name in shown)]
    assert above == sorted(above, reverse=True)


def test_the_front_matter_is_what_the_hub_asks_for(card: ModelCard) -> None:
    data = card.data.to_dict()
    assert data["license"] == "mit" and data["datasets"] == ["me/boxes"]
    assert data["library_name"] == "attrtrain" and data["pipeline_tag"] == "image-classification"
    assert data["model-index"][0]["name"] == "toy" and "resnet18" in data["tags"]


def test_a_card_names_what_the_model_cannot_do(run: Path, card: ModelCard) -> None:
    assert limits(card, "Scores without meaning").endswith("nothing trained: nobody said.")
    assert limits(card, "Never seen present").endswith(": only absent.")
    assert limits(card, "Never seen absent").endswith(": only present.")
    assert limits(card, "Not judged").endswith(": only absent, only present, rare in val.")
    assert bundle.read_card(run / "bundle").untrained == ["nobody said"]
    assert "There was one epoch, so none was chosen" in card.text


def test_the_data_of_a_card_are_those_of_the_manifest(run: Path, card: ModelCard) -> None:
    manifest = json.loads((run.parent / "shards" / "manifest.json").read_text())
    table = next(table for table in tables(card) if table[0][0] == "split")
    for name, objects, images, known, present in table[1:]:
        split = manifest["splits"][name]
        labelled = sum(split["positives"]) + sum(split["negatives"])
        assert (int(objects), int(images)) == (split["objects"], split["images"])
        assert float(known.removesuffix(" %")) == pytest.approx(100 * labelled / (7 * split["objects"]), abs=0.5)
        assert float(present.removesuffix(" %")) == pytest.approx(100 * sum(split["positives"]) / labelled, abs=0.5)
    assert manifest["sources"][0]["sha256"] in card.text and manifest["sources"][0]["name"] in card.text
    assert str(run.parent) not in card.content  # nothing of where it was made


def test_what_is_missing_is_said_as_missing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(run / "bundle"), "--out", str(tmp_path / "README.md")]) == 0
    told = capsys.readouterr().out
    assert "no metrics" in told and "no training settings" in told and "no counts of the data" in told
    card = ModelCard.load(tmp_path / "README.md")
    own = json.loads((run / "bundle" / "model.json").read_text())["metrics"]["val.map"]
    assert card.data.eval_results is None and f"its mAP on 30 objects was {own:.3f}" in card.text
    assert card.text.count("Missing: ") == 4 and "License: not stated" in card.text
    assert limits(card, "Scores without meaning").endswith(": nobody said.")


def test_a_config_edited_to_name_one_folder_without_a_list_is_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = tmp_path / "edited"
    shutil.copytree(run, edited)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (config["data"]["shards"],) = config["data"]["shards"]
    (edited / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["card", str(edited), "--out", str(tmp_path / "README.md")]) == 0
    assert "no counts of the data" not in capsys.readouterr().out


def test_a_card_can_tell_of_another_evaluation(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards, out = str(run.parent / "shards"), str(tmp_path / "train")
    assert main(["evaluate", "--model", str(run), "--shards", shards, "--split", "train", "--out", out]) == 0
    assert main(["card", str(run), "--evaluation", out, "--out", str(tmp_path / "README.md")]) == 0
    card, found = ModelCard.load(tmp_path / "README.md"), json.loads(Path(out, "metrics.json").read_text())
    told = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert told["map"] == found["overall"]["map"] and "of split train" in card.text
    assert limits(card, "Judged on what it was trained on.")
    found["source"]["data_fingerprint"] = "of another folder"
    Path(out, "metrics.json").write_text(json.dumps(found))
    assert main(["card", str(run), "--evaluation", out, "--out", str(tmp_path / "README.md")]) == 0
    card = ModelCard.load(tmp_path / "README.md")
    assert "of split train of other data than it was trained with" in card.text
    assert {result.dataset_name for result in card.data.eval_results} == {"not named"}
    assert "Judged on what it was trained on" not in card.text
    for source in (
        {"model": "runs/one + runs/two", "models": "2, averaged"},
        {"model": "runs/one", "views": "6 of each crop, averaged"},
    ):
        Path(out, "metrics.json").write_text(json.dumps({**found, "source": source}))
        assert "not of this model as it is" in failing(["card", str(run), "--evaluation", out], capsys)
    assert "has no metrics.json" in failing(["card", str(run), "--evaluation", str(tmp_path)], capsys)


@pytest.mark.parametrize("photographs", [1, 30])
def test_an_evaluation_without_intervals_is_told_of_without_them(run: Path, tmp_path: Path, photographs: int) -> None:
    """As of `--replicates 0`, or of a single photograph, of which none can be drawn."""
    predictions = read_predictions(run / "evaluation" / "predictions.npz")
    if photographs == 1:
        predictions = replace(predictions, image_id=np.zeros_like(predictions.image_id))
    document = judge(predictions, source={"split": "val"}, replicates=100 if photographs == 1 else 0)
    assert document.intervals == {} and document.overall["map"] is not None
    (tmp_path / "evaluation").mkdir()
    write_metrics(document, tmp_path / "evaluation" / "metrics.json")
    of = ["--evaluation", str(tmp_path / "evaluation")]
    assert main(["card", str(run), *of, "--out", str(tmp_path / "README.md")]) == 0
    assert main(["push", str(run), *of, "--to", str(tmp_path / "published")]) == 0
    for card in (ModelCard.load(tmp_path / "README.md"), ModelCard.load(tmp_path / "published" / "README.md")):
        assert f"**mAP {document.overall['map']:.3f}**. mAP is" in card.text and "No intervals were drawn" in card.text
        assert "replicates" not in card.text and "whole interval" not in card.text
        assert {row[2] for row in tables(card)[0][1:]} == {"–"}


def test_a_run_whose_name_is_no_text_has_a_card_and_is_pushed(run: Path, tmp_path: Path) -> None:
    named, folder = tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / "published"
    shutil.copytree(run, named)
    config = yaml.safe_load((named / "config.yaml").read_text())
    shutil.copytree(run.parent / "shards", tmp_path / os.fsdecode(b"shards\xe9"))
    config["data"]["shards"] = [str(tmp_path / os.fsdecode(b"shards\xe9"))]
    config["model"]["weights"] = os.fsdecode(b"w\xe9.safetensors")
    (named / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["card", str(named)]) == 0
    assert main(["push", str(named), "--to", str(folder)]) == 0
    for path in (named / "README.md", folder / "README.md"):
        card = ModelCard.load(path)
        assert _seen(MarkdownIt("commonmark").parse(card.text)[1]) == r"caf\udce9"
        assert card.data.model_name == r"caf\udce9" and r"w\udce9.safetensors" in card.text.replace("\\\\", "\\")
        assert "Where the splits come from" in card.text  # the shards were found
    assert json.loads((folder / "metrics.json").read_text())["source"]["model"] == r"caf\udce9"


def test_a_pushed_folder_predicts_as_the_run_does_and_its_own_example_works(
    run: Path, toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "published"
    for _ in range(2):  # a second time replaces it
        assert main(["push", str(run), "--to", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(hub_folder.NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
    photograph = sorted((toy_coco / "val2017").glob("*.jpg"))[0]
    assert prediction(str(folder), photograph, capsys) == prediction(str(run), photograph, capsys)
    assert str(run.parent) not in (folder / "metrics.json").read_text()
    readme = (folder / "README.md").read_text()
    shutil.copy(photograph, folder / "photo.jpg")
    monkeypatch.chdir(folder)
    command = re.search(r"```bash\nattrtrain (.+)\n```", readme)[1]
    assert main(command.replace("photo.jpg", str(photograph)).replace("120,40,200,310", "5,5,40,40").split()) == 0
    scores = run_example(readme, capsys)
    card = bundle.read_card(folder)
    assert card.untrained and set(scores) == set(card.vocabulary.names) - set(card.untrained)
    require_predicted(scores, prediction(str(folder), photograph, capsys))


@pytest.mark.parametrize("categories", [(), ("cat", "dog")])
def test_the_example_frames_crops_as_the_model_does(
    toy_coco: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    categories: tuple[str, ...],
) -> None:
    framing = Framing(fit="pad", interpolation="bicubic")
    folder = draw_bundle(tmp_path / "bundle", framing=framing, categories=categories)
    photograph = sorted((toy_coco / "val2017").glob("*.jpg"))[0]
    shutil.copy(photograph, tmp_path / "photo.jpg")
    assert main(["card", str(folder), "--out", str(tmp_path / "README.md")]) == 0
    monkeypatch.chdir(tmp_path)
    readme = (tmp_path / "README.md").read_text()
    assert ("an MLP head that reads the object's category, too" in readme) == bool(categories)
    require_predicted(run_example(readme, capsys), prediction(str(folder), photograph, capsys))
    if categories:
        told = run_example(readme.replace('category = ""', 'category = "cat"'), capsys)
        require_predicted(told, prediction(str(folder), photograph, capsys, "--category", "cat"))


def run_example(readme: str, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """What the card's Python prints, of another box."""
    code = re.search(r"```python\n(.+?)```", readme, re.DOTALL)[1]
    capsys.readouterr()
    exec(code.replace("(120, 40, 200, 310)", "(5, 5, 60, 20)"), {})
    return eval(capsys.readouterr().out)


def require_predicted(scores: dict[str, float], predicted: dict) -> None:
    told = {one["name"]: one["score"] for one in predicted["objects"][0]["attributes"]}
    assert len(told) > 2 and {name: pytest.approx(score, abs=2e-6) for name, score in told.items()} == {
        name: scores[name] for name in told
    }


def test_a_link_to_a_folder_goes_on_pointing_there(run: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert main(["push", str(run), "--to", str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "README.md").is_file()


def test_a_published_folder_is_published_again_with_its_metrics(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "published"
    assert main(["push", str(run), "--to", str(folder)]) == 0
    before = json.loads((folder / "metrics.json").read_text())
    assert main(["push", str(folder), "--to", str(folder), "--license", "mit"]) == 0
    after = json.loads((folder / "metrics.json").read_text())
    assert {**after, "source": None} == {**before, "source": None} and after["source"]["model"] == "published"
    told = {
        result.metric_type: result.metric_value for result in ModelCard.load(folder / "README.md").data.eval_results
    }
    assert told["map"] == before["overall"]["map"]
    monkeypatch.chdir(folder)
    assert "is the folder this was called in" in failing(["push", str(run), "--to", "."], capsys)
    for place in (".", "/"):
        assert f"--out {place}: is a folder" in failing(["card", str(run), "--out", place], capsys)


def test_a_push_that_fails_leaves_what_was_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "published"
    assert main(["push", str(run), "--to", str(folder)]) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(path: Path, document: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub_folder, "write_metrics", lambda document, path: full_disk(path, document))
    assert "No space left" in failing(["push", str(run), "--to", str(folder)], capsys)
    assert "No space left" in failing(["push", str(run), "--to", str(tmp_path / "new")], capsys)
    monkeypatch.undo()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model.json").write_bytes((run / "bundle" / "model.json").read_bytes())
    (damaged / "weights.safetensors").write_bytes((run / "bundle" / "weights.safetensors").read_bytes()[:-9])
    assert "weights.safetensors" in failing(["push", str(damaged), "--to", str(folder)], capsys)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "published"]


def test_a_folder_of_other_things_is_never_replaced(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "thesis.tex, which is not of a published model" in failing(["push", str(run), "--to", str(tmp_path)], capsys)
    assert "is a file" in failing(["push", str(run), "--to", str(tmp_path / "thesis.tex")], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("command", [["card"], ["push", "--to", "{tmp}/out"]])
def test_what_is_no_run_is_told_in_one_line(command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [word.format(tmp=tmp_path) for word in command]
    assert "no bundle here" in failing([given[0], str(tmp_path), *given[1:]], capsys)
    assert not list(tmp_path.iterdir())


def test_an_uploaded_model_is_private_and_predicts_as_the_run_does(
    run: Path, toy_coco: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "published"
    push = ["push", str(run), "--to", str(folder), "--upload", "me/toy"]
    assert main(push) == 0
    assert f"{hub.address}/me/toy" in capsys.readouterr().out
    uploaded = hub.repositories["me/toy"]
    assert uploaded["visibility"] == "private" and hub.commits == 1
    assert uploaded["files"] == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "attrtrain predict --model hf:me/toy" in uploaded["files"]["README.md"].decode()
    photograph = sorted((toy_coco / "val2017").glob("*.jpg"))[0]
    uploaded["files"]["evil.py"] = b"raise SystemExit"
    expected = prediction(str(run), photograph, capsys)
    assert prediction("hf:me/toy", photograph, capsys) == expected
    assert prediction(f"hf:me/toy@{hub.sha('me/toy')}", photograph, capsys) == expected
    assert Predictor("hf:me/toy", "cpu").fingerprint == Predictor(run, "cpu").fingerprint
    assert set(hub.fetched) == {"model.json", "weights.safetensors"}
    # A model without metrics takes the ones that are there away; other people's files stay.
    assert main(["push", str(run / "bundle"), "--to", str(folder), "--upload", "me/toy", "--public"]) == 0
    assert sorted(uploaded["files"]) == ["README.md", "evil.py", "model.json", "weights.safetensors"]
    assert uploaded["visibility"] == "private"
    assert main(["push", str(run), "--to", str(folder), "--upload", "me/open", "--public"]) == 0
    assert hub.repositories["me/open"]["visibility"] == "public"


def test_the_hub_is_found_as_its_users_name_it(run: Path, tmp_path: Path, hub: Hub) -> None:
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), **quiet}
    command = [sys.executable, "-m", "attrtrain", "push", str(run), "--to", str(tmp_path / "out"), "--upload", "me/toy"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert hub.commits == 1
    hub.fail_commits = True
    done = subprocess.run([*command, "--license", "mit"], capture_output=True, text=True, env=env)
    assert done.returncode == 1 and done.stderr == "error: me/toy: the server answered 500 (storage is down)\n"


@pytest.mark.parametrize(
    ("flags", "token", "told"),
    [
        (["--upload", "me/toy"], "", "no token to upload with; log in with `hf auth login`"),
        (["--upload", "me/toy"], "hf_old", "the token is not accepted"),
        (["--upload", "you/toy"], TOKEN, "you/toy: the token may not write there"),
        (["--upload", "a/b/c"], TOKEN, "a/b/c: names no repository; give OWNER/NAME"),
        (["--upload", "me/toy", "--license", "nonsense"], TOKEN, '"license" must be one of'),
        (["--public"], TOKEN, "--public: belongs to --upload"),
    ],
)
def test_an_upload_that_is_refused_is_told_in_one_line_and_changes_nothing(
    run: Path, tmp_path: Path, hub: Hub, capsys, monkeypatch, flags: list[str], token: str, told: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert told in failing(["push", str(run), "--to", str(tmp_path / "out"), *flags], capsys)
    assert hub.commits == 0 and not any(entry["files"] for entry in hub.repositories.values())


@pytest.mark.parametrize("name", ["toy", "a/b/c", "hf:me/toy", "me/my toy", "me/a--b", "me/", ""])
def test_a_name_that_is_no_repository_is_refused_before_a_folder_is_written(
    run: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch, name: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")  # nobody has to log in to learn of it
    told = failing(["push", str(run), "--to", str(tmp_path / "out"), "--upload", name], capsys)
    assert told.startswith(f"error: {name}: names no repository; give OWNER/NAME")
    assert not (tmp_path / "out").exists() and not hub.repositories


def test_without_a_network_there_is_one_line(
    run: Path, toy_coco: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    photograph = str(sorted((toy_coco / "val2017").glob("*.jpg"))[0])
    assert "no such repository" in failing(["predict", "--model", "hf:me/none", photograph], capsys)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be done with http://127.0.0.1:9" in failing(["predict", "--model", "hf:me/x", photograph], capsys)
    push = ["push", str(run), "--to", str(tmp_path / "out"), "--upload", "me/x"]
    assert "cannot be done with http://127.0.0.1:9" in failing(push, capsys)
    assert (tmp_path / "out" / "README.md").is_file()
