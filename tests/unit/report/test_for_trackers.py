"""What trackers are shown of a judgement is what the report shows."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_data import document_of, drawn_predictions
from sklearn.calibration import calibration_curve as sklearn_calibration
from sklearn.metrics import auc, precision_recall_curve

from attrtrain.data.reader import ShardSet
from attrtrain.predictions import Predictions
from attrtrain.report.cells import Cells
from attrtrain.report.for_trackers import (
    attribute_table,
    calibration_curve,
    describe_shards,
    precision_recall_curves,
    track_judgement,
)
from attrtrain.tracking.trackers import NullTracker, Picture


def test_the_table_has_every_attribute_beside_its_prior() -> None:
    predictions = drawn_predictions()
    document = document_of(predictions)
    table = attribute_table(document)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert sorted(str(row["attribute"]) for row in rows) == sorted(predictions.names)
    entries = {entry.name: entry for entry in document.attributes}
    for row in rows:
        entry = entries[str(row["attribute"])]
        assert (row["AP"], row["prior"], row["positives"], row["unknowns"]) == (
            entry.ap, entry.prior, entry.positives, entry.unknowns,
        )  # fmt: skip
    scores = [-1.0 if row["AP"] is None else row["AP"] for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_curves_are_those_of_scikit_learn() -> None:
    predictions = drawn_predictions(objects=300)
    document = document_of(predictions)
    cells = Cells.of(predictions, 0.5, 0.5)
    drawn = precision_recall_curves(document, predictions, cells).lines
    assert len(drawn) == 9  # all attributes together, and eight alone
    known = ~np.isnan(predictions.labels)
    for name, (recall, precision) in drawn.items():
        column = slice(None) if name == "all attributes" else predictions.names.index(name)
        chosen = known[:, column]
        truth = predictions.labels[:, column][chosen] >= 0.5
        exact_precision, exact_recall, _ = precision_recall_curve(truth, predictions.logits[:, column][chosen])
        assert len(recall) == len(precision) <= 64
        assert auc(recall, precision) == pytest.approx(auc(exact_recall[:-1], exact_precision[:-1]), abs=0.02)
    scores, share = calibration_curve(cells).lines["share present"]
    expected_share, expected_scores = sklearn_calibration(
        predictions.labels[known] >= 0.5, 1 / (1 + np.exp(-predictions.logits[known].astype(np.float64))), n_bins=15
    )
    np.testing.assert_allclose(share, expected_share, atol=1e-6)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_lines_are_of_the_judged_attributes_with_the_most_positives_and_what_has_no_score_comes_last() -> None:
    predictions = drawn_predictions()
    labels = predictions.labels.copy()
    labels[:, 2] = np.nan
    labels[:, 5] = 1  # the most positives of all, and no negative to be judged by
    predictions = replace(predictions, labels=labels)
    document = document_of(predictions)
    assert {str(row[0]) for row in attribute_table(document).rows[-2:]} == {"attribute 2", "attribute 5"}
    positives = {name: int((labels[:, column] == 1).sum()) for column, name in enumerate(predictions.names)}
    others = sorted(set(positives) - {"attribute 2", "attribute 5"}, key=lambda name: -positives[name])
    lines = precision_recall_curves(document, predictions, Cells.of(predictions, 0.5, 0.5)).lines
    assert list(lines) == ["all attributes", *others[:8]]


class Gallery(NullTracker):
    def log_pictures(self, name: str, step: int, pictures: list[Picture]) -> None:  # type: ignore[override]
        self.shown = (name, step, pictures)


def test_the_gallery_is_small_crops_with_what_is_said_of_them(toy_shards: Path) -> None:
    shards = ShardSet([toy_shards], "val")
    rng = np.random.default_rng(0)
    labels = shards.labels(np.arange(len(shards)))
    predictions = Predictions(
        names=shards.vocabulary.names, object_id=shards.object_ids, image_id=shards.column("image_id"),
        category=np.array(shards.categories()), logits=rng.normal(size=labels.shape).astype(np.float32), labels=labels,
    )  # fmt: skip
    tracker = Gallery()
    track_judgement(tracker, 7, document_of(predictions), predictions, shards)
    name, step, pictures = tracker.shown
    assert (name, step, len(pictures)) == ("best/gallery", 7, 24)
    of = {str(number): row for row, number in enumerate(predictions.object_id)}
    for picture in pictures:
        title, _, said = picture.caption.partition(": ")
        row = of[title.rsplit(" ", 1)[-1]]
        assert title.startswith(str(predictions.category[row]))
        for guess in filter(None, said.split(", ")):
            attribute, score, sign = guess.rsplit(" ", 2)
            column = predictions.names.index(attribute)
            assert float(score) == pytest.approx(1 / (1 + np.exp(-predictions.logits[row, column])), abs=0.0051)
            assert sign == {True: "✓" if float(score) > 0.5 else "missed", False: "✗"}.get(
                None if np.isnan(labels[row, column]) else bool(labels[row, column] >= 0.5), "?"
            )  # fmt: skip
        with Image.open(io.BytesIO(picture.content)) as image:
            assert max(image.size) <= 224
    assert sum(len(picture.content) for picture in pictures) < 1_000_000


def test_a_data_set_is_known_by_its_manifests(toy_shards: Path) -> None:
    one = describe_shards(ShardSet([toy_shards], "train"))
    assert one.name == f"shards-{toy_shards.name}" and one.files == {
        "manifest.json": (toy_shards / "manifest.json").read_bytes()
    }
    manifest = json.loads((toy_shards / "manifest.json").read_text())
    assert one.facts["objects"] == {name: split["objects"] for name, split in sorted(manifest["splits"].items())}
    two = describe_shards(ShardSet([toy_shards, toy_shards], "train"))
    assert list(two.files) == ["0/manifest.json", "1/manifest.json"]
    assert two.facts["objects"]["train"] == 2 * one.facts["objects"]["train"]
    assert two.facts["fingerprint"] != one.facts["fingerprint"]
