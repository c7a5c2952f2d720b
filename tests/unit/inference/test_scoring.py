"""The loop from photographs and boxes to scores, beside an evaluation of the same objects' shards and beside one crop
at a time.
"""

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attrtrain.bundle import load_model
from attrtrain.data.loader import CropDataset
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import evaluate
from attrtrain.errors import AttrtrainError, ShardError
from attrtrain.framing import Framing
from attrtrain.inference.crops import CropBatch, CropCutter, cut_batches, stored_batches
from attrtrain.inference.objects import Objects, read_objects
from attrtrain.inference.predictor import Predictor
from attrtrain.inference.scoring import BATCH, score_batches
from attrtrain.runtime import build_runtime, usable_precision
from tests.bundles import IMAGE_PX, draw_bundle


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory, toy_shards: Path) -> Predictor:
    shards = ShardSet([toy_shards], "val")
    return Predictor(
        draw_bundle(tmp_path_factory.mktemp("model") / "bundle", shards.vocabulary.names, crop=shards.crop), "cpu"
    )


@pytest.fixture(scope="module")
def objects(toy_coco: Path) -> Objects:
    return read_objects([toy_coco / "annotations" / f"instances_{split}2017.json" for split in ("train", "val")], None)


def scored(
    predictor: Predictor, objects: Objects, folders: list[Path], *, first: int = 0, workers: int = 0, together: int = 2
):
    cutter = CropCutter(folders, predictor.card.crop, predictor.card.image_px, predictor.card.framing)
    batches = cut_batches(objects, first, BATCH, cutter, workers=workers, pin=False)
    return list(score_batches(predictor, batches, objects.category, together))


def all_rows(parts, name):
    return np.concatenate([getattr(part, name) for part in parts])


def test_objects_cut_out_of_photographs_get_the_logits_of_their_shards_to_the_bit(
    predictor, objects, toy_coco, toy_shards
):
    same_from_photographs_and_shards(predictor, objects, toy_coco, toy_shards)


@pytest.mark.parametrize(
    "framing", [Framing(context=0.2), Framing(context=0.1, fit="pad"), Framing(fit="pad")], ids=str
)
def test_and_where_the_network_sees_a_part_of_the_crop_or_it_is_padded(
    objects, toy_coco, wide_shards, tmp_path, framing
):
    shards = ShardSet([wide_shards], "val")
    names = shards.vocabulary.names
    folder = draw_bundle(tmp_path / "bundle", names, crop=shards.crop, framing=framing)
    plain = draw_bundle(tmp_path / "plain", names, crop=shards.crop)
    part, whole = Predictor(folder, "cpu"), Predictor(plain, "cpu")
    same_from_photographs_and_shards(part, objects, toy_coco, wide_shards)
    few = objects.take(slice(0, 10))
    folders = [toy_coco / "train2017", toy_coco / "val2017"]
    seen, all_of_it = (all_rows(scored(one, few, folders), "logits") for one in (part, whole))
    assert np.abs(seen - all_of_it).max() > 0.1 and part.fingerprint != whole.fingerprint


def same_from_photographs_and_shards(predictor, objects, toy_coco, folder):
    framing = predictor.card.framing
    parts = scored(predictor, objects, [toy_coco / "train2017", toy_coco / "val2017"])
    ids, logits = objects.object_id[all_rows(parts, "rows")], all_rows(parts, "logits")
    model, _ = load_model(predictor.members[0].folder, device="cpu")
    for split in ("train", "val"):
        shards = ShardSet([folder], split)
        expected = evaluate(
            build_runtime("no"),
            model,
            shards,
            image_px=IMAGE_PX,
            framing=framing,
            positive_at=0.5,
            channels_last=True,
            workers=0,
        )
        place = [ids.tolist().index(object_id) for object_id in shards.object_ids]
        assert len(place) > 30
        np.testing.assert_array_equal(logits[place], expected.logits)
        stored = list(
            score_batches(
                predictor,
                stored_batches(shards, 0, BATCH, IMAGE_PX, framing, predictor.device, workers=0),
                np.array(shards.categories()),
                1,
            )
        )
        np.testing.assert_array_equal(all_rows(stored, "logits"), expected.logits)
        np.testing.assert_array_equal(all_rows(stored, "features"), all_rows(parts, "features")[place])
        assert all_rows(stored, "rows").tolist() == list(range(len(shards)))


def test_pictures_that_were_scored_are_let_go(predictor):
    """Outputs of many batches wait to be written together; their pictures, on a GPU, need not."""
    alive: list[weakref.ref] = []
    most = 0

    def batches():
        nonlocal most
        for number in range(6):
            pixels = np.zeros((2, 3, IMAGE_PX, IMAGE_PX), dtype=np.uint8)
            alive.append(weakref.ref(pixels))
            yield CropBatch(np.arange(2) + 2 * number, torch.from_numpy(pixels), [])
            del pixels
            most = max(most, sum(one() is not None for one in alive))

    (found,) = score_batches(predictor, batches(), np.array([""] * 12), together=6)
    assert len(found.logits) == 12 and most <= 1


def test_a_crop_alone_gets_the_same_scores_and_the_head_turns_features_into_them(predictor, objects, toy_coco):
    parts = scored(predictor, objects.take(slice(0, 20)), [toy_coco / "train2017", toy_coco / "val2017"])
    rows, logits, features = (all_rows(parts, name) for name in ("rows", "logits", "features"))
    model, _ = load_model(predictor.members[0].folder, device="cpu")
    for row, expected, feature in zip(rows, logits, features, strict=True):
        name = objects.image[row]
        folder = next(folder for folder in ("train2017", "val2017") if (toy_coco / folder / name).exists())
        with Image.open(toy_coco / folder / name) as image:
            crop = predictor.crop(np.asarray(image.convert("RGB")), tuple(objects.box[row]))
        with torch.inference_mode():
            np.testing.assert_allclose(model(crop[None]).numpy()[0], expected, atol=1e-4)
            np.testing.assert_allclose(model.head(torch.from_numpy(feature)).numpy(), expected, atol=1e-4)
    assert features.shape == (len(rows), predictor.feature_width) == (len(rows), 512)
    assert np.ptp(logits, axis=0).min() > 0.1  # the bundle tells crops apart, else the above would say little


def test_workers_and_where_the_work_begins_change_nothing(predictor, objects, toy_coco):
    folders = [toy_coco / "train2017", toy_coco / "val2017"]
    whole = scored(predictor, objects, folders)
    for name in ("rows", "logits", "features"):
        np.testing.assert_array_equal(
            all_rows(scored(predictor, objects, folders, workers=2), name), all_rows(whole, name)
        )
    later = scored(predictor, objects, folders, first=2 * BATCH)
    assert len(whole) > 1
    for name in ("rows", "logits"):
        np.testing.assert_array_equal(all_rows(later, name), all_rows(whole[1:], name))


def test_stored_crops_are_gone_on_with_where_a_run_had_come_to(predictor, toy_shards):
    shards = ShardSet([toy_shards], "train")
    whole, later = (
        list(
            score_batches(
                predictor,
                stored_batches(shards, first, BATCH, IMAGE_PX, Framing(), predictor.device, workers=0),
                np.array(shards.categories()),
                1,
            )
        )
        for first in (0, BATCH)
    )
    assert len(whole) > 2
    for name in ("rows", "logits"):
        np.testing.assert_array_equal(all_rows(later, name), all_rows(whole[1:], name))


def test_what_cannot_be_cut_is_listed_and_costs_nothing_else(predictor, objects, toy_coco, tmp_path):
    photographs = list(dict.fromkeys(objects.image.tolist()))
    for folder in ("train2017", "val2017"):
        for path in (toy_coco / folder).iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / photographs[0]).unlink()
    (tmp_path / photographs[2]).write_bytes(b"no picture")
    box = objects.box.copy()
    outside = int(np.flatnonzero(objects.image == photographs[4])[0])
    box[outside] = [9000, 9000, 5, 5]
    damaged = Objects(objects.object_id, objects.image, objects.image_size, box, objects.category, objects.crowd, ())
    good, parts = (
        scored(predictor, objects, [tmp_path / "..", toy_coco / "train2017", toy_coco / "val2017"]),
        scored(predictor, damaged, [tmp_path]),
    )
    told = {failure.object_id: failure.reason for part in parts for failure in part.failures}
    expected = {int(i): "crowd" for i in objects.object_id[objects.crowd]}
    expected |= {int(i): "image_missing" for i in objects.object_id[objects.image == photographs[0]]}
    expected |= {int(i): "image_broken" for i in objects.object_id[objects.image == photographs[2]]}
    expected[int(objects.object_id[outside])] = "box_outside_image"
    assert told == expected
    left = [row for row in range(len(objects)) if int(objects.object_id[row]) not in expected]
    assert all_rows(parts, "rows").tolist() == left
    place = np.searchsorted(all_rows(good, "rows"), left)
    np.testing.assert_array_equal(all_rows(parts, "logits"), all_rows(good, "logits")[place])


def test_folders_without_one_photograph_cost_no_pass_through_the_model(predictor, objects, tmp_path):
    parts = scored(predictor, objects, [tmp_path])
    assert sum(len(part.failures) for part in parts) == len(objects)
    assert {part.logits.shape for part in parts} == {(0, len(predictor.names))}
    assert {part.features.shape for part in parts} == {(0, 512)}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_place_that_cannot_be_read_at_all_ends_the_work_with_its_one_line(predictor, objects, workers):
    with pytest.raises(ShardError) as caught:
        scored(predictor, objects, ["nosuchprotocol://bucket"], workers=workers)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def reader_of_categories(tmp_path_factory: pytest.TempPathFactory, toy_shards: Path) -> Predictor:
    """A model that says very different things of an object of another kind."""
    shards = ShardSet([toy_shards], "train")
    folder = tmp_path_factory.mktemp("told") / "bundle"
    kinds = tuple(sorted(set(shards.categories())))
    return Predictor(draw_bundle(folder, shards.vocabulary.names, crop=shards.crop, categories=kinds), "cpu")


def told(predictor: Predictor, crops: torch.Tensor, categories: list[str]) -> np.ndarray:
    """What the model itself says of crops of objects of these kinds."""
    model = predictor.members[0].model
    with torch.inference_mode():
        return model(crops, model.codes(categories)).numpy()


def test_a_head_that_reads_categories_is_told_each_objects_own_in_an_evaluation(reader_of_categories, toy_shards):
    model, _ = load_model(reader_of_categories.members[0].folder, device="cpu")
    shards = ShardSet([toy_shards], "train")
    assert len(shards) > 2 * BATCH
    found = evaluate(
        build_runtime("no"),
        model,
        shards,
        image_px=IMAGE_PX,
        framing=reader_of_categories.card.framing,
        positive_at=0.5,
        channels_last=True,
        workers=0,
        categories=model.categories,
    ).logits
    rows = np.r_[0:10, BATCH - 3 : BATCH + 10, len(shards) - 20 : len(shards)]
    crops, kinds = CropDataset(shards, IMAGE_PX)[BatchRequest(0, rows, rows)].image, shards.categories(rows)
    np.testing.assert_allclose(found[rows], told(reader_of_categories, crops, kinds), atol=1e-3)
    unknown = told(reader_of_categories, crops, [""] * len(rows))
    assert np.abs(found[rows] - unknown).max(axis=1).min() > 0.05


def test_and_where_objects_before_it_were_left_out(reader_of_categories, objects, toy_coco):
    photographs = [toy_coco / "train2017", toy_coco / "val2017"]
    box = objects.box.copy()
    box[[2, 7, 70]] = [9000, 9000, 5, 5]
    damaged = replace(objects, box=box)
    parts = scored(reader_of_categories, damaged, photographs)
    rows, logits = all_rows(parts, "rows"), all_rows(parts, "logits")
    assert not np.isin([2, 7, 70], rows).any() and rows[-1] > 2 * BATCH
    checked = [*range(8), *np.searchsorted(rows, [BATCH, 71]), *range(len(rows) - 20, len(rows))]
    crops = []
    for row in rows[checked]:
        path = next(path for folder in photographs if (path := folder / objects.image[row]).exists())
        with Image.open(path) as image:
            crops.append(reader_of_categories.crop(np.asarray(image.convert("RGB")), tuple(objects.box[row])))
    expected = told(reader_of_categories, torch.stack(crops), objects.category[rows[checked]].tolist())
    np.testing.assert_allclose(logits[checked], expected, atol=1e-3)
    stray = sum(objects.category[row] != objects.category[row % BATCH] for row in rows[checked])
    assert stray > 10  # of another kind than the object in the same place of the first batch


def test_logits_that_are_no_numbers_are_refused(predictor, tmp_path):
    path = draw_bundle(tmp_path / "b", predictor.names)
    broken = Predictor(path, "cpu")
    with torch.no_grad():
        broken.members[0].model.head.bias.fill_(float("nan"))
    batch = CropBatch(np.arange(3), torch.zeros((3, 3, IMAGE_PX, IMAGE_PX), dtype=torch.uint8), [])
    with pytest.raises(AttrtrainError, match="not finite"):
        list(score_batches(broken, [batch], np.array([""] * 3), 1))


def test_the_fingerprint_is_of_the_model_and_not_of_its_place_or_metrics(tmp_path):
    first = draw_bundle(tmp_path / "a", metrics={"val.map": 0.1})
    assert Predictor(first, "cpu").fingerprint == Predictor(draw_bundle(tmp_path / "b"), "cpu").fingerprint
    others = [
        draw_bundle(tmp_path / "c", seed=1),
        draw_bundle(tmp_path / "d", image_px=64),
        draw_bundle(tmp_path / "e", ("x", *"bcdefg")),
    ]
    assert len({Predictor(path, "cpu").fingerprint for path in (first, *others)}) == 4


def test_precision_is_the_cards_where_the_device_has_it(tmp_path):
    auto = build_runtime("auto").precision if not torch.cuda.is_available() else None
    for given, expected in (("no", "no"), ("fp16", auto), ("bf16", auto)):
        if expected is not None:
            assert Predictor(draw_bundle(tmp_path / given, precision=given), "cpu").precision == expected


@pytest.mark.parametrize(
    ("given", "kind", "has_bf16", "expected"),
    [
        ("no", "cuda", True, "no"), ("fp16", "cuda", True, "fp16"), ("bf16", "cuda", True, "bf16"), ("bf16", "cuda", False, "fp16"),
        ("fp16", "cuda", False, "fp16"), ("no", "cpu", True, "no"), ("auto", "cuda", False, "fp16"),
    ],
)  # fmt: skip
def test_a_gpu_computes_in_what_it_has(monkeypatch, given, kind, has_bf16, expected):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16 or including_emulation
    )
    assert usable_precision(given, kind) == expected
