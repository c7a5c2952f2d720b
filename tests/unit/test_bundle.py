"""The card of a bundle, of this version and of the one before."""

import hashlib
import json
import resource
from dataclasses import fields as fields_of
from pathlib import Path

import pytest
import torch

from attrtrain.bundle import bundle_fingerprint, load_model, model_name, read_bundle, read_card
from attrtrain.config.schema import DataConfig, ModelConfig
from attrtrain.errors import WeightsError
from attrtrain.framing import Framing
from attrtrain.inference.predictor import Predictor
from tests.bundles import NAMES, draw_bundle


def rewritten(folder, **fields):
    card = json.loads((folder / "model.json").read_text())
    for name, value in fields.items():
        if value is None:
            del card[name]
        else:
            card[name] = value
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def test_a_bundle_of_version_1_has_no_thresholds_and_counts_from_one_half(tmp_path):
    folder = rewritten(draw_bundle(tmp_path / "b"), schema_version=1, thresholds=None)
    _, card = read_bundle(folder)
    assert card.thresholds is None and card.schema_version == 1
    predictor = Predictor(folder, "cpu")
    assert predictor.thresholds == [0.5] * len(NAMES)
    assert predictor.threshold_note.startswith("no attribute has a threshold tuned on labels")


def test_a_bundle_older_than_framing_is_the_model_that_it_was(tmp_path):
    folder = draw_bundle(tmp_path / "b")
    now = Predictor(folder, "cpu")
    told = json.loads((folder / "model.json").read_text())
    for name in ("mean", "std", "categories"):  # which are not that old either
        del told["architecture"][name]
    decisive = {
        name: told[name] for name in ("architecture", "vocabulary", "image_px", "crop", "precision", "channels_last")
    }
    written = ",".join(f'"{name}":{json.dumps(told[name], separators=(",", ":"))}' for name in told if name in decisive)
    content = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    before = hashlib.sha256(f"{content}\n{{{written}}}".encode()).hexdigest()  # as versions without the field had it
    then = Predictor(rewritten(folder, framing=None, architecture=told["architecture"]), "cpu")
    assert then.card.framing == Framing() and then.fingerprint == now.fingerprint == before


def test_a_bundle_that_does_not_say_how_it_was_trained_on_mirrored_crops_still_loads(tmp_path):
    folder = draw_bundle(tmp_path / "b", mirrored="swapped")
    assert read_bundle(folder)[1].mirrored == "swapped"
    assert read_bundle(rewritten(folder, mirrored=None))[1].mirrored is None


def test_a_card_takes_all_that_a_configuration_may_ask_for(tmp_path):
    """Else a run would end with its first epoch, when its first bundle is written."""
    folder = draw_bundle(tmp_path / "b")
    known = json.loads((folder / "model.json").read_text())["architecture"]
    bounds = {
        knob.name: knob.metadata.get("bounds", {}) for kind in (DataConfig, ModelConfig) for knob in fields_of(kind)
    }
    for rule in ("at least", "at most"):
        asked = {name: bounds[name][rule] for name in ("hidden", "dropout")}
        rewritten(folder, image_px=bounds["image_px"][rule], architecture={**known, **asked})
        card = read_card(folder)
        assert card.architecture.hidden == asked["hidden"] and card.image_px == bounds["image_px"][rule]


def test_a_full_disk_is_one_line_and_the_bundle_before_stays(tmp_path):
    folder = draw_bundle(tmp_path / "b")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))  # no file may grow further, as on a disk that fills up
    try:
        with pytest.raises(WeightsError, match=r"/b: .+; free space and run the same command again") as caught:
            draw_bundle(folder, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_path_that_is_no_folder_is_told_for_what_it_is(tmp_path):
    with pytest.raises(WeightsError, match=r"nope\.pth: no such file or folder; give a run"):
        load_model(tmp_path / "nope.pth", num_attributes=204)
    weights = draw_bundle(tmp_path / "b") / "weights.safetensors"
    with pytest.raises(WeightsError, match=r"weights\.safetensors: a file, and only attrtrain\.load_model takes"):
        read_bundle(weights)


def test_thresholds_come_back_as_they_were_saved(tmp_path):
    thresholds = [0.1, None, 1.0, 0.0, 0.25, 0.5, 0.123456789]
    folder = draw_bundle(tmp_path / "b", thresholds=thresholds)
    assert read_bundle(folder)[1].thresholds == thresholds and read_bundle(folder)[1].schema_version == 2
    predictor = Predictor(folder, "cpu")
    assert predictor.thresholds == [0.1, 0.5, 1.0, 0.0, 0.25, 0.5, 0.123456789]
    assert predictor.threshold_note.startswith("1 of 7 attributes has no threshold")
    assert Predictor(draw_bundle(tmp_path / "c", thresholds=[0.5] * 7), "cpu").threshold_note == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"schema_version": 3},
        {"thresholds": [0.5]},
        {"thresholds": [2.0] * 7},
        {"mirrored": "often"},
        {"more": 1},
        {"image_px": 0},
        {"image_px": 10**9},
        {"image_px": "64"},
        {"vocabulary": {"names": ["a"], "source_ids": [0], "groups": [], "fingerprint": "x"}},
        {"vocabulary": {"names": ["\x1b[2J"], "source_ids": [0], "groups": [""], "fingerprint": "x"}},
        {"vocabulary": {"names": ["a"], "source_ids": [0], "groups": [""], "fingerprint": "x"}},
        *({"architecture": {"backbone": "resnet18", "head": "linear", "hidden": 16, "dropout": 0.0, **wrong}} for wrong in
          ({"hidden": -1}, {"dropout": 7}, {"std": [0.2, 0.0, 0.2]})),
    ],
)  # fmt: skip
def test_a_card_that_does_not_fit_is_one_line_that_names_the_field(tmp_path, fields):
    folder = rewritten(draw_bundle(tmp_path / "b"), **fields)
    with pytest.raises(WeightsError, match=r"model\.json: damaged, or written by a newer attrtrain \(") as caught:
        read_bundle(folder)
    (field,) = fields
    told = str(caught.value)
    assert "\n" not in told and "\x1b" not in told
    assert (
        f"({field}" in told
        or "(file: Value error, 1 thresholds for 7 attributes)" in told
        or "(file: Value error, vocabulary: " in told
        or "the vocabulary's fingerprint" in told
    )


def test_a_model_is_called_as_people_know_it(tmp_path, monkeypatch):
    (tmp_path / "run" / "bundle").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    assert [model_name(place) for place in (".", "bundle", tmp_path / "run" / "bundle")] == ["run"] * 3
    assert model_name(tmp_path) == tmp_path.name
    assert model_name(tmp_path / "run" / "bundles" / "epoch-003") == "run-epoch-003"
    repositories = ["hf:me/toy", "hf:me/toy@v2"]
    assert [model_name(Path(place)) for place in repositories] == repositories


def test_a_bundle_older_than_mean_and_std_has_imagenets_and_the_fingerprint_it_had(tmp_path):
    folder = draw_bundle(tmp_path / "b")
    card = json.loads((folder / "model.json").read_text())
    assert card["architecture"].pop("mean") == [0.485, 0.456, 0.406]
    assert card["architecture"].pop("std") == [0.229, 0.224, 0.225]
    assert card["architecture"].pop("categories") == []
    _, newer = read_bundle(folder)
    (folder / "model.json").write_text(json.dumps(card))
    model, older = read_bundle(folder)
    assert model.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    decisive = {"architecture", "vocabulary", "image_px", "crop", "precision", "channels_last"}
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    before = json.loads(older.model_dump_json(include=decisive))
    for name in ("mean", "std", "categories"):
        del before["architecture"][name]
    told = json.dumps(before, separators=(",", ":"), ensure_ascii=False)  # as it was written then
    expected = hashlib.sha256(f"{weights}\n{told}".encode()).hexdigest()
    assert bundle_fingerprint(folder, newer) == bundle_fingerprint(folder, older) == expected


@pytest.mark.parametrize("framing", [{"fit": "pad"}, {"context": 0.05}], ids=str)
def test_a_bundle_older_than_interpolation_has_the_fingerprint_it_had(tmp_path, framing):
    folder = draw_bundle(tmp_path / "b", framing=Framing(**framing))
    told = json.loads((folder / "model.json").read_text())
    assert told["framing"].pop("interpolation") == "bilinear"
    for name in ("mean", "std", "categories"):
        del told["architecture"][name]
    decisive = ("architecture", "vocabulary", "image_px", "crop", "framing", "precision", "channels_last")
    before = json.dumps({name: told[name] for name in told if name in decisive}, separators=(",", ":"))
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    expected = hashlib.sha256(f"{weights}\n{before}".encode()).hexdigest()
    assert bundle_fingerprint(folder, read_card(folder)) == expected
    rewritten(folder, framing=told["framing"])
    assert bundle_fingerprint(folder, read_card(folder)) == expected


def test_all_that_decides_scores_decides_the_fingerprint_and_nothing_else_does(tmp_path):
    folder = draw_bundle(tmp_path / "b")
    card = read_card(folder)
    architecture = card.architecture
    decisive = [
        {"framing": Framing(fit="pad")},
        {"framing": Framing(context=0.05)},
        {"framing": Framing(interpolation="bicubic")},
        {"framing": Framing(fit="pad", interpolation="bicubic")},
        {"architecture": architecture.model_copy(update={"mean": (0.5, 0.456, 0.406)})},
        {"architecture": architecture.model_copy(update={"std": (0.5, 0.224, 0.225)})},
        {"architecture": architecture.model_copy(update={"categories": ["cat"]})},
        {"architecture": architecture.model_copy(update={"categories": ["dog"]})},
        {"crop": card.crop.model_copy(update={"context": 0.2})},
        {"precision": "bf16"},
        {"channels_last": False},
    ]
    known = bundle_fingerprint(folder, card)
    found = {known, *(bundle_fingerprint(folder, card.model_copy(update=fields)) for fields in decisive)}
    assert len(found) == 1 + len(decisive)
    for fields in (
        {"thresholds": [0.5] * 7},
        {"metrics": {"val.map": 0.1}},
        {"untrained": ["round"]},
        {"selected_on": "val"},
        {"attrtrain_version": "0"},
    ):
        assert bundle_fingerprint(folder, card.model_copy(update=fields)) == known


@pytest.mark.parametrize("other", [{"names": NAMES[:5]}, {"categories": ("cat", "dog")}], ids=str)
def test_weights_of_another_model_are_one_line(tmp_path, other):
    folder, weights = draw_bundle(tmp_path / "b"), draw_bundle(tmp_path / "other", **other) / "weights.safetensors"
    weights.replace(folder / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"/b/weights\.safetensors: does not fit model\.json \(.*head") as caught:
        read_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_bundle_is_told_when_it_has_one(tmp_path):
    with pytest.raises(WeightsError, match=r"no bundle here, nor in a bundle folder below; give a run directory"):
        read_bundle(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(
        WeightsError, match=r"folder below \(a run writes its bundle after its first evaluation\); give"
    ):
        read_bundle(tmp_path)
    draw_bundle(tmp_path / "bundle")
    assert read_bundle(tmp_path)[1] == read_bundle(tmp_path / "bundle")[1]


def test_a_plain_state_dict_or_a_bundle_is_loaded_with_as_many_attributes_as_it_has(tmp_path):
    folder = draw_bundle(tmp_path / "b")
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = []
    for path in (folder, folder / "weights.safetensors"):
        for given in (None, 7):
            model, device = load_model(path, given, "cpu")
            assert not model.training and device == torch.device("cpu")
            with torch.inference_mode():
                logits.append(model(pixels))
        with pytest.raises(WeightsError, match="the model has 7 attributes, not 8"):
            load_model(path, 8, "cpu")
    assert all(one.equal(logits[0]) for one in logits)


@pytest.mark.parametrize("backbone", ["resnet51", "timm:nothing_like_it"])
def test_a_backbone_that_cannot_be_built_here_is_one_line(tmp_path, backbone):
    folder = draw_bundle(tmp_path / "b")
    card = json.loads((folder / "model.json").read_text())
    rewritten(folder, architecture={**card["architecture"], "backbone": backbone})
    with pytest.raises(WeightsError, match=r"model\.json: its network cannot be built") as caught:
        read_bundle(folder)
    assert "\n" not in str(caught.value)
