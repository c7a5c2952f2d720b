"""The frozen protocol: nothing to say where it is followed, and one line for each thing that is not."""

from dataclasses import replace

import pytest

from attrtrain.annotations.coco_attributes import PUBLISHED_SHA256
from attrtrain.protocol import (
    CROP,
    VOCABULARY_FINGERPRINT,
    Choices,
    deviations,
)
from attrtrain.shards.manifest import CropSettings, Manifest, SourceRecord, SplitStatistics, VocabularyRecord

FOLLOWING = Choices(
    split="val",
    tuned_on="dev",
    selected_on="dev",
    positive_at=0.5,
    threshold=0.5,
    replicates=1000,
    models=1,
    views=1,
    fit="squash",
)


def split(objects: int) -> SplitStatistics:
    return SplitStatistics(objects=objects, images=objects, positives=[], negatives=[], unknowns=[])


@pytest.fixture
def manifest() -> Manifest:
    """Of shards as the protocol wants them."""
    return Manifest(
        vocabulary=VocabularyRecord(names=[], source_ids=[], groups=[], fingerprint=VOCABULARY_FINGERPRINT),
        categories=[],
        shards=[],
        splits={"dev": split(10_000), "train": split(90_000), "val": split(88_400)},
        sources=[SourceRecord(name="cocottributes_eccv_version.pkl", bytes=1, sha256=PUBLISHED_SHA256)],
        crop=CropSettings.model_validate(CROP),
        split_note="split: the label file's own; dev: 100 objects of train set aside by photograph with seed 0",
        left_out={"crowd": 20, "box_empty": 6},
        index_sha256="",
        labels_sha256="",
    )


def test_nothing_is_said_where_all_is_followed(manifest: Manifest) -> None:
    assert deviations(manifest, FOLLOWING) == []


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("split", "test", "split 'test' is judged, not 'val'"),
        ("tuned_on", None, "thresholds were cross-fitted on the judged split, not tuned on 'dev'"),
        ("tuned_on", "train", "thresholds were tuned on 'train', not tuned on 'dev'"),
        ("selected_on", "val", "the epoch was chosen on split 'val', not 'dev'; train with --data.val_split dev"),
        ("selected_on", "", "the model does not say on which split its epoch was chosen; it must be 'dev'"),
        ("positive_at", 0.6, "positive is a vote share of 0.6, not 0.5"),
        ("threshold", 0.4, "the threshold is 0.4, not 0.5"),
        ("replicates", 100, "100 bootstrap replicates, not 1,000"),
        ("models", 2, "2 models answer together, not one"),
        ("views", 6, "6 views of each crop are averaged; the protocol takes one"),
        ("fit", "pad", "crops fill the network's square by data.fit pad, not squash"),
    ],
)
def test_each_choice_that_differs_is_one_line(manifest: Manifest, field: str, value: object, told: str) -> None:
    assert deviations(manifest, replace(FOLLOWING, **{field: value})) == [told]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"sources": []}, "do not say what label file"),
        ({"sources": [SourceRecord(name="other.jbl", bytes=1, sha256="ab")]}, "other.jbl, sha256 ab"),
        ({"split_note": "split: drawn by photograph with seed 0"}, "shard with --split official"),
        ({"split_note": "split: the label file's own, but 3 photographs … (9 objects moved)"}, "--split official"),
        (
            {
                "split_note": "split: the label file's own; dev: 100 objects of train set aside by photograph with seed 10"
            },
            "'dev' was drawn with another seed than 0",
        ),
        ({"splits": {"train": split(100_000), "val": split(88_400)}}, "0 objects of train are set aside as 'dev'"),
        (
            {"splits": {"dev": split(30_000), "train": split(70_000), "val": split(88_400)}},
            "30,000 objects of train are set aside as 'dev', not 10%",
        ),
        (
            {"splits": {"dev": split(10_000), "train": split(90_000), "val": split(44_200)}},
            "44,200 of the 188,426 published objects were not found; shard with both --instances files",
        ),
        (
            {
                "splits": {"dev": split(10_000), "train": split(90_000), "val": split(88_000)},
                "left_out": {"crowd": 20, "box_empty": 6, "image_missing": 400},
            },
            "objects with usable boxes are left out: 400 image missing",
        ),
        ({"crop": CropSettings(store_px=256, quality=80, context=0.1)}, "quality 80 (not 90), context 0.1 (not 0.0)"),
        (
            {"vocabulary": VocabularyRecord(names=["a"], source_ids=[0], groups=[""], fingerprint="x")},
            "the attributes are not the 204 published ones",
        ),
    ],
)
def test_each_property_of_the_shards_that_differs_is_one_line(
    manifest: Manifest, changed: dict[str, object], told: str
) -> None:
    found = deviations(manifest.model_copy(update=changed), FOLLOWING)
    assert len(found) == 1 and told in found[0]


@pytest.mark.shared_data
def test_the_vocabulary_is_the_published_one(shared_data) -> None:
    from attrtrain.annotations.coco_attributes import read_coco_attributes

    read = read_coco_attributes(shared_data / "coco_tiny" / "cocottributes_like.pkl")
    assert read.vocabulary.fingerprint == VOCABULARY_FINGERPRINT
