"""What is read of a run is of its model, and what is published holds no place of the machine."""

import json
from pathlib import Path

import pytest
import yaml

from attrtrain.data.reader import ShardSet
from attrtrain.errors import ConfigError, PredictionsError
from attrtrain.metrics.document import write_metrics
from attrtrain.publishing.hub_folder import write_hub_folder
from attrtrain.publishing.published_model import read_published_model
from tests.bundles import draw_bundle
from tests.report_data import document_of, drawn_predictions


def judged(run: Path, names: tuple[str, ...]) -> None:
    (run / "evaluation").mkdir()
    predictions = drawn_predictions(attributes=len(names), names=names)
    source = {"model": str(run), "split": "val", "shards": json.dumps(["/home/me/shards"])}
    write_metrics(document_of(predictions, source=source), run / "evaluation" / "metrics.json")


@pytest.mark.parametrize("own", [True, False])
def test_counts_are_of_the_data_that_the_model_was_trained_on_or_missing(
    tmp_path: Path, toy_shards: Path, own: bool
) -> None:
    """Shards that were made anew since the training hold other objects under the same name."""
    shards = ShardSet([toy_shards], "train")
    fingerprint = shards.fingerprint if own else "0" * 64
    draw_bundle(tmp_path / "bundle", shards.vocabulary.names, data_fingerprint=fingerprint)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"shards": [str(toy_shards)]}}))
    model = read_published_model(tmp_path)
    told = f"no counts of the data: {toy_shards} holds other data than the model was trained on"
    assert (told in model.missing) != own and len(model.manifests) == own
    assert model.data_names == (toy_shards.name,)


def test_an_evaluation_of_other_attributes_is_refused(tmp_path: Path) -> None:
    draw_bundle(tmp_path / "bundle", ("furry", "wet", "round"))
    judged(tmp_path, ("wet", "furry", "round"))
    with pytest.raises(PredictionsError, match=r"metrics\.json: is of other attributes than the model") as caught:
        read_published_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_published_folder_tells_scores_and_no_place_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = tmp_path / "toy", tmp_path / "published"
    draw_bundle(run / "bundle", ("furry", "wet", "round"))
    judged(run, ("furry", "wet", "round"))
    model = read_published_model(run)
    for _ in range(2):  # anew, and over what was published
        write_hub_folder(folder, model, "card\n")
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.md", "metrics.json", "model.json", "weights.safetensors"
        ]  # fmt: skip
    told = json.loads((folder / "metrics.json").read_text())
    assert told["source"] == {"model": "toy", "split": "val"} and model.metrics is not None
    assert told["overall"] == model.metrics.overall
    again = read_published_model(folder)
    assert again.metrics is not None and again.metrics.overall == model.metrics.overall
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="is the folder this was called in"):
        write_hub_folder(folder, model, "card\n")
    (folder / "mine.txt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"holds mine\.txt"):
        write_hub_folder(folder, model, "card\n")
    assert (folder / "mine.txt").exists() and (folder / "README.md").read_text() == "card\n"
