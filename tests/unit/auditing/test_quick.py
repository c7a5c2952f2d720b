import numpy as np
import pytest

from attrtrain.auditing.quick import QuickAudit, quick_audit
from attrtrain.auditing.quick_shards import audit_shards
from attrtrain.contract import read_contract, write_contract
from attrtrain.errors import LabelError


def drawn(kind, objects=3000, attributes=30, known=0.5, seed=0):
    rng = np.random.default_rng(seed)
    categories = rng.choice(["dog", "cat", "car"], objects)
    rate = {name: rng.random(attributes) for name in ("dog", "cat", "car")}
    chance = 0.5 if kind == "coins" else np.array([rate[name] for name in categories])
    labels = (rng.random((objects, attributes)) < chance).astype(np.float32)
    labels[rng.random(labels.shape) > known] = np.nan
    return labels, categories, np.arange(objects) // 3


@pytest.mark.parametrize(("kind", "verdict"), [("coins", "noise"), ("by category", "learnable")])
def test_a_sample_is_enough_for_the_verdict(kind, verdict):
    labels, categories, image_ids = drawn(kind)
    asked = []

    def labels_of(rows):
        asked.extend(rows)
        return labels[rows]

    found = quick_audit(labels_of, lambda rows: categories[rows], image_ids)
    assert found.verdict == verdict
    assert found.objects == 3000 and found.sampled_objects == len(set(asked)) < 700
    assert "\n" not in found.line and f"p = {found.p_value:.3g}" in found.line


def test_boxes_alone_tell_what_follows_from_them():
    rng = np.random.default_rng(1)
    box = np.column_stack([np.zeros((500, 2)), np.exp(rng.normal(4, 0.5, (500, 2)))])
    large = (box[:, 2] * box[:, 3] > np.exp(8))[:, None] ^ (rng.random((500, 6)) < 0.2)
    sizes = np.zeros((500, 2), dtype=np.int64)
    found = quick_audit(
        lambda rows: large[rows].astype(np.float32),
        lambda rows: [""] * len(rows),
        np.arange(500),
        lambda rows: (box[rows], sizes[rows]),
    )
    assert found.verdict == "learnable" and found.decided_by == "category and box"


class Shards:
    """Objects of which every second is a dog, with these labels (A) of dogs and of others."""

    def __init__(self, dogs, others):
        self._labels = np.tile(np.array([dogs, others], dtype=np.float32), (300, 1))

    def labels(self, rows):
        return self._labels[rows]

    def categories(self, rows):
        return [("dog", "cat")[row % 2] for row in rows]

    def column(self, name):
        return np.arange(len(self._labels))

    def details(self, row):
        return {"source_box": [5, 5, 50, 40], "source_size": [640, 480]}


@pytest.mark.parametrize(
    ("dogs", "others", "positive_at", "verdict"),
    [
        ([0.4, 0.1], [0.1, 0.4], 0.5, "weak"),  # none is positive
        ([0.4, 0.1], [0.1, 0.4], 0.25, "learnable"),
        ([0.9, 0.6], [0.6, 0.9], 0.5, "weak"),  # all are
        ([0.9, 0.6], [0.6, 0.9], 0.75, "learnable"),
        ([1, np.nan], [np.nan, 1], 0.5, "weak"),  # what is known is positive, and unknown is not negative
    ],
)
def test_labels_of_shards_are_judged_as_the_training_reads_them(dogs, others, positive_at, verdict):
    assert audit_shards(Shards(dogs, others), positive_at).verdict == verdict


def test_photographs_are_those_of_the_objects_that_were_sampled():
    """The category tells the photograph and the label is the photograph's coin: to know a photograph again is no
    learning, which shows where its objects are in one fold.
    """
    rng = np.random.default_rng(3)
    image_ids = rng.permutation(np.repeat(np.arange(200), 20))
    coins = rng.permutation(np.arange(200) % 2).astype(np.float32)
    found = quick_audit(
        lambda rows: coins[image_ids[rows], None],
        lambda rows: [f"of photograph {image}" for image in image_ids[rows]],
        image_ids,
    )
    assert found.verdict == "weak" and found.sampled_objects < 700


def test_it_is_written_and_read_as_a_run_keeps_it(tmp_path):
    found = quick_audit(
        lambda rows: np.ones((len(rows), 2), dtype=np.float32), lambda rows: [""] * len(rows), np.arange(4)
    )
    assert found.verdict == "weak" and found.p_value == 1
    write_contract(found, tmp_path / "audit.json")
    assert read_contract(QuickAudit, tmp_path / "audit.json", LabelError) == found
