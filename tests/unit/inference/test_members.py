"""Models that answer together, and views of a crop, beside plain loops over single models."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import expit, logit

from attrtrain.bundle import load_model, read_bundle
from attrtrain.errors import ConfigError
from attrtrain.framing import Framing
from attrtrain.inference.members import PLAIN, Pass, View, views_of
from attrtrain.inference.predictor import Predictor
from attrtrain.shards.manifest import CropSettings
from tests.bundles import IMAGE_PX, NAMES, draw_bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    return [
        draw_bundle(folder / "a", seed=1, thresholds=[0.5, 0.3, None, 1.0, 0.2, 0.9, 0.0]),
        draw_bundle(folder / "b", seed=2, thresholds=[0.5, 0.6, 0.4, 0.5, 0.2, 0.7, 0.5], untrained=["round", "furry"]),
        draw_bundle(folder / "larger", seed=3, image_px=48, thresholds=[0.5] * 7),
    ]


@pytest.fixture(scope="module")
def crops():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    squares = [
        np.asarray(Image.fromarray(one).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR)) for one in small
    ]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def alone(bundle, images):
    model, _ = load_model(bundle, device="cpu")
    with torch.inference_mode():
        return model(images).numpy()


def resized(images, side):
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in images]
    squares = [np.asarray(one.resize((side, side), Image.Resampling.BILINEAR)) for one in pictures]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def test_views_are_all_scales_plain_and_mirrored_the_models_own_first():
    assert views_of(False, []) == (PLAIN,)
    assert views_of(True, [0.5, 1, 0.5]) == (View(), View(True), View(False, 0.5), View(True, 0.5))


def test_models_that_see_other_parts_of_crops_do_not_answer_together(bundles, tmp_path):
    crop = CropSettings(store_px=48, quality=85, context=0.1)
    other = draw_bundle(tmp_path / "padded", crop=crop, framing=Framing(context=0.05, fit="pad"))
    with pytest.raises(
        ConfigError,
        match=r"context 0\.05 of a box's sides, padded to a square; context 0\.1 of a box's sides, squashed",
    ):
        Predictor([bundles[0], other], "cpu")


def test_models_whose_crops_are_resized_otherwise_answer_together_on_those_of_the_first(bundles, tmp_path, crops):
    crop = read_bundle(bundles[0])[1].crop
    other = draw_bundle(tmp_path / "other", crop=crop, framing=Framing(interpolation="bicubic"))
    assert Predictor([other, bundles[0]], "cpu").card.framing.interpolation == "bicubic"
    together = Predictor([bundles[0], other], "cpu")
    assert together.card.framing.interpolation == "bilinear"
    expected = (alone(bundles[0], crops) + alone(other, crops)) / 2
    np.testing.assert_allclose(together(crops).logits.numpy(), expected, atol=1e-4)


def test_several_models_give_their_mean_logits(bundles, crops):
    predictor = Predictor(bundles[:2], "cpu")
    expected = (alone(bundles[0], crops) + alone(bundles[1], crops)) / 2
    assert np.abs(alone(bundles[0], crops) - alone(bundles[1], crops)).max() > 0.5
    np.testing.assert_allclose(predictor(crops).logits.numpy(), expected, atol=1e-4)
    single = Predictor(bundles[0], "cpu")(crops)
    np.testing.assert_array_equal(predictor(crops).features.numpy(), single.features.numpy())


def test_views_are_mirrored_and_resized_crops(bundles, crops):
    predictor = Predictor(bundles[0], "cpu", views_of(True, [1.5]))
    seen = [crops, crops.flip(-1), resized(crops, 48), resized(crops.flip(-1), 48)]
    each = np.stack([alone(bundles[0], images) for images in seen])
    assert np.ptp(each, axis=0).max() > 0.5  # so that a view left out is noticed
    np.testing.assert_allclose(predictor(crops).logits.numpy(), each.mean(axis=0), atol=0.05)


SIDED = ("left wrist", "furry", "right wrist", "left-facing", "Left_Eye", "round", "Right_Eye")
BACK = [2, 1, 0, 3, 6, 5, 4]


@pytest.mark.parametrize("mirrored", ["never", "swapped", "kept", None])
def test_a_mirrored_view_is_swapped_back_where_the_model_tells_sides(tmp_path, crops, mirrored):
    bundle = draw_bundle(tmp_path / "b", SIDED, mirrored=mirrored)
    predictor = Predictor(bundle, "cpu", views_of(True, []))
    plain, flipped = alone(bundle, crops), alone(bundle, crops.flip(-1))
    swapped = flipped[:, BACK] if mirrored in ("never", "swapped") else flipped
    assert np.abs(flipped[:, BACK] - flipped).max() > 0.5
    np.testing.assert_allclose(predictor(crops).logits.numpy(), (plain + swapped) / 2, atol=1e-4)
    with torch.inference_mode():  # as `evaluate` calls it
        np.testing.assert_allclose(Pass(predictor.members[0], View(True))(crops), swapped, atol=1e-4)
        np.testing.assert_allclose(Pass(predictor.members[0], PLAIN)(crops), plain, atol=1e-4)
    assert len(predictor.mirror_notes) == (mirrored is None)
    assert all(note.startswith(f"{bundle}: its bundle is of a version") for note in predictor.mirror_notes)
    assert not Predictor(bundle, "cpu").mirror_notes


def test_each_of_several_models_is_swapped_back_by_how_it_was_trained(tmp_path, crops):
    trained = {
        name: draw_bundle(tmp_path / name, SIDED, seed=seed, mirrored=name)
        for seed, name in enumerate(("never", "kept"))
    }
    both = Predictor(list(trained.values()), "cpu", [View(True)])
    told = {name: alone(bundle, crops.flip(-1)) for name, bundle in trained.items()}
    np.testing.assert_allclose(both(crops).logits.numpy(), (told["never"][:, BACK] + told["kept"]) / 2, atol=1e-4)


def test_what_is_swapped_back_is_part_of_the_fingerprint_and_nothing_else_changes_it(tmp_path, bundles):
    made = {
        mirrored: draw_bundle(tmp_path / str(mirrored), SIDED, mirrored=mirrored)
        for mirrored in ("never", "swapped", "kept", None)
    }
    plain = {name: Predictor(bundle, "cpu").fingerprint for name, bundle in made.items()}
    assert len(set(plain.values())) == 1  # so results of crops as they are can be gone on with
    flipped = {name: Predictor(bundle, "cpu", views_of(True, [])).fingerprint for name, bundle in made.items()}
    assert flipped["never"] == flipped["swapped"] != flipped["kept"] == flipped[None]
    unsided = draw_bundle(tmp_path / "unsided", seed=1, mirrored="never", thresholds=[0.5] * 7)
    both = [Predictor(bundle, "cpu", views_of(True, [])) for bundle in (unsided, bundles[0])]
    assert both[0].fingerprint == both[1].fingerprint and not any(one.mirror_notes for one in both)


def test_a_model_of_another_size_sees_crops_in_its_own(bundles, crops):
    predictor = Predictor([bundles[0], bundles[2]], "cpu")
    assert predictor.card.image_px == 48
    large = resized(crops, 48)
    expected = (alone(bundles[0], resized(large, IMAGE_PX)) + alone(bundles[2], large)) / 2
    np.testing.assert_allclose(predictor(large).logits.numpy(), expected, atol=0.05)


def test_thresholds_meet_at_their_mean_log_odds_and_doubt_is_kept(bundles):
    predictor = Predictor(bundles[:2], "cpu")
    assert predictor.tuned[0] == 0.5 and predictor.tuned[2] is None
    assert predictor.tuned[3] == 1 and predictor.tuned[6] == 0 and predictor.tuned[4] == 0.2
    assert predictor.tuned[1] == pytest.approx(expit((logit(0.3) + logit(0.6)) / 2))
    assert predictor.card.untrained == ["furry", "round"]
    assert "1 of 7 attributes has no threshold" in predictor.threshold_note
    assert "those of the models by themselves" in Predictor(bundles[2], "cpu", views_of(True, [])).threshold_note
    assert Predictor(bundles[2], "cpu").threshold_note == ""


def test_what_one_model_never_saw_is_never_present_whatever_the_others_lack(tmp_path):
    never = draw_bundle(tmp_path / "never", seed=1, thresholds=[1.0, 0.5, *[0.4] * 5])
    unsure = draw_bundle(tmp_path / "unsure", seed=2, thresholds=[None, 0.5, *[0.4] * 5])
    older = draw_bundle(tmp_path / "older", seed=3)
    assert Predictor([never, unsure], "cpu").tuned[:2] == [1.0, 0.5]
    assert Predictor([unsure, never, older], "cpu").tuned[:2] == [1.0, None]


def test_the_fingerprint_tells_models_and_views_apart(bundles):
    first, second = bundles[:2]
    made = [
        Predictor(first, "cpu"),
        Predictor([first, second], "cpu"),
        Predictor([second, first], "cpu"),
        Predictor(first, "cpu", views_of(True, [])),
        Predictor(first, "cpu", views_of(True, [1.5])),
    ]
    assert len({predictor.fingerprint for predictor in made}) == 5
    assert Predictor([first], "cpu").fingerprint == made[0].fingerprint


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"names": (*NAMES[:-1], "other")}, "other attributes"),
        ({"crop": CropSettings(store_px=48, quality=85, context=0.5)}, "context 0.5 and 0.1"),
        ({"positive_at": 0.25}, "positive_at 0.25 and 0.5"),
    ],
)
def test_models_that_do_not_fit_together_are_refused_in_one_line(bundles, tmp_path, fields, told):
    with pytest.raises(ConfigError, match=told) as caught:
        Predictor([bundles[0], draw_bundle(tmp_path / "other", **fields)], "cpu")
    assert "\n" not in str(caught.value)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bundle").symlink_to(bundles[0])
    for same in (bundles[0], tmp_path / "run", tmp_path / "run" / "bundle"):
        with pytest.raises(ConfigError, match=f"--model {same}: is the model of --model {bundles[0]}; give it once"):
            Predictor([bundles[0], same], "cpu")


def test_what_is_said_of_thresholds_is_true_of_those_that_are_used(tmp_path, bundles):
    tuned = [draw_bundle(tmp_path / str(seed), seed=seed, thresholds=[0.4] * len(NAMES)) for seed in (0, 1)]
    assert Predictor(tuned[0], "cpu").threshold_note == ""
    together = "thresholds are those of the models by themselves; answering together, others may serve better"
    for several in (Predictor(tuned, "cpu"), Predictor(tuned[0], "cpu", views_of(True, []))):
        assert several.threshold_note == together
    assert Predictor(bundles[0], "cpu").threshold_note.startswith("1 of 7 attributes has no threshold tuned on labels")
    none = Predictor(draw_bundle(tmp_path / "none"), "cpu")
    assert none.threshold_note.startswith("no attribute has a threshold tuned") and none.thresholds == [0.5] * 7


def test_each_model_is_told_categories_by_its_own_codes(tmp_path, crops):
    kinds = [("cat", "dog", "horse"), ("ant", "dog", "zebra")]
    folders = [
        draw_bundle(tmp_path / str(seed), seed=seed, categories=categories) for seed, categories in enumerate(kinds)
    ]
    blind = draw_bundle(tmp_path / "blind", seed=2)
    predictor = Predictor([*folders, blind], "cpu")
    assert predictor.categories == ["ant", "cat", "dog", "horse", "zebra"]
    names = ["dog", "zebra", "", "cat", "unicorn"]
    said = [alone(blind, crops)]
    for folder, categories in zip(folders, kinds, strict=True):
        model, _ = load_model(folder, device="cpu")
        codes = torch.tensor([categories.index(name) + 1 if name in categories else 0 for name in names])
        with torch.inference_mode():
            said.append(model(crops, codes).numpy())
    assert np.abs(said[1] - said[2]).max() > 0.5
    np.testing.assert_allclose(predictor(crops, names).logits.numpy(), np.mean(said, axis=0), atol=1e-4)
