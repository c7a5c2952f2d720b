"""Cells, mistakes, the table of objects, and the gallery."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from report_data import drawn_predictions
from sklearn.metrics import auc, precision_recall_curve

from attrtrain.data.reader import ShardSet
from attrtrain.metrics.judge import judge
from attrtrain.report.cells import Cells, probabilities
from attrtrain.report.gallery import draw_gallery
from attrtrain.report.mistakes import MISTAKES, add_pictures, find_mistakes
from attrtrain.report.payload import build_payload
from attrtrain.report.pictures import Pictures
from attrtrain.report.samples import draw_rows, tabulate


@pytest.fixture
def drawn():
    predictions = drawn_predictions()
    return predictions, Cells.of(predictions, 0.5, 0.5)


def no_pictures(predictions):
    return Pictures(None, predictions.object_id, 1_000_000)


def verdict(predictions, row, column, threshold=0.5):
    """What a reader would say of one cell, or None where there is nothing to say."""
    named = 1 / (1 + np.exp(-float(predictions.logits[row, column]))) >= threshold
    label = predictions.labels[row, column]
    if np.isnan(label):
        return "unknown" if named else None
    if label >= 0.5:
        return "right" if named else "missed"
    return "wrong" if named else None


def test_every_cell_has_the_verdict_a_reader_would_give(drawn):
    predictions, cells = drawn
    for row in range(50):
        for column in range(12):
            told = [name for name in ("right", "wrong", "missed", "unknown") if getattr(cells, name)[row, column]]
            assert told == [said for said in [verdict(predictions, row, column)] if said]


def test_a_huge_logit_is_a_score_of_0_or_1():
    predictions = drawn_predictions(objects=2, attributes=1)
    predictions.logits[:, 0] = [1e30, -1e30]
    assert probabilities(Cells.of(predictions, 0.5, 0.5).logits[:, 0]).tolist() == [1, 0]


def test_a_score_at_the_threshold_is_not_named():
    """As in metrics, and in VAW's evaluation."""
    predictions = drawn_predictions(objects=3, attributes=1)
    predictions.logits[:, 0] = [0.0, 1e-30, -1e-30]
    assert Cells.of(predictions, 0.5, 0.5).named[:, 0].tolist() == [False, True, False]
    predictions.logits[:, 0] = [np.log(0.3 / 0.7) + 1e-3, 0.0, np.log(0.3 / 0.7) - 1e-3]
    assert Cells.of(predictions, 0.5, 0.3).named[:, 0].tolist() == [True, True, False]


def test_a_vote_share_at_positive_at_is_present():
    predictions = drawn_predictions(objects=3, attributes=1)
    predictions.labels[:, 0] = [0.5, 0.49, np.nan]
    cells = Cells.of(predictions, 0.5, 0.5)
    assert cells.present[:, 0].tolist() == [True, False, False]
    assert cells.absent[:, 0].tolist() == [False, True, False]


def test_mistakes_are_the_most_confident_ones_first(drawn):
    predictions, cells = drawn
    for column, found in enumerate(find_mistakes(cells)):
        rows = range(len(predictions))
        wrong = [row for row in rows if verdict(predictions, row, column) == "wrong"]
        missed = [row for row in rows if verdict(predictions, row, column) == "missed"]
        assert found.wrong == sorted(wrong, key=lambda row: -predictions.logits[row, column])[:MISTAKES]
        assert found.missed == sorted(missed, key=lambda row: predictions.logits[row, column])[:MISTAKES]


def test_objects_are_counted_over_known_cells(drawn):
    predictions, cells = drawn
    table = tabulate(cells, predictions.object_id, entries=10**9)
    assert table.rows.tolist() == list(range(len(predictions)))
    for place in range(40):
        said = [verdict(predictions, place, column) for column in range(12)]
        known = ~np.isnan(predictions.labels[place])
        assert table.known[place] == known.sum()
        assert table.named[place] == said.count("right") + said.count("wrong")
        assert table.present[place] == said.count("right") + said.count("missed")
        assert table.correct[place] == known.sum() - said.count("wrong") - said.count("missed")
        assert table.unknown[place] == said.count("unknown")
        for name in ("right", "wrong", "missed"):
            assert getattr(table, name)[place] == [column for column, word in enumerate(said) if word == name]


def test_a_table_that_would_be_too_long_has_objects_drawn_by_id(drawn):
    predictions, cells = drawn
    whole = tabulate(cells, predictions.object_id, entries=10**9)
    part = tabulate(cells, predictions.object_id, entries=600)
    assert 0 < len(part.rows) < len(whole.rows)
    entries = sum(6 + len(part.right[i]) + len(part.wrong[i]) + len(part.missed[i]) for i in range(len(part.rows)))
    assert entries <= 600
    assert set(part.rows) == set(draw_rows(predictions.object_id, len(part.rows)))


def test_what_is_drawn_depends_on_ids_alone(drawn):
    predictions, _ = drawn
    order = np.random.default_rng(1).permutation(len(predictions))
    shuffled = predictions.object_id[order]
    assert (
        predictions.object_id[draw_rows(predictions.object_id, 20)].tolist()
        == shuffled[draw_rows(shuffled, 20)].tolist()
    )


def test_a_card_is_silent_of_attributes_that_no_object_has_a_label_of(drawn):
    predictions, _ = drawn
    labels = predictions.labels.copy()
    labels[:, :6] = np.nan
    predictions = replace(predictions, labels=labels)
    for card in draw_gallery(predictions, Cells.of(predictions, 0.5, 0.5), no_pictures(predictions)):
        said = [verdict(predictions, card.row, column) for column in range(6, 12)]
        assert len(card.guesses) + card.more_known + card.more_unknown == sum(word is not None for word in said)
        assert {guess.name for guess in card.guesses} <= set(predictions.names[6:])


def test_a_card_tells_labelled_attributes_first_and_how_many_more_there_are(drawn):
    predictions, cells = drawn
    for card in draw_gallery(predictions, cells, no_pictures(predictions)):
        said = [verdict(predictions, card.row, column) for column in range(12)]
        assert card.uri is None
        assert len(card.guesses) + card.more_known + card.more_unknown == sum(word is not None for word in said)
        assert card.more_unknown == max(0, said.count("unknown") - 3)
        unlabelled = [guess.verdict == "unknown" for guess in card.guesses]
        assert unlabelled == sorted(unlabelled)
        for guess in card.guesses:
            assert guess.verdict == said[predictions.names.index(guess.name)]


def test_a_card_tells_what_is_named_likeliest_first_and_then_what_is_missed(drawn):
    predictions, cells = drawn
    seen = set()
    for card in draw_gallery(predictions, cells, no_pictures(predictions)):
        named, missed, unknown = (
            [guess.score for guess in card.guesses if guess.verdict in verdicts]
            for verdicts in (("right", "wrong"), ("missed",), ("unknown",))
        )
        assert [guess.score for guess in card.guesses] == [
            *(score for scores in (named, missed, unknown) for score in sorted(scores, reverse=True))
        ]
        seen |= {guess.verdict for guess in card.guesses}
    assert seen == {"right", "wrong", "missed", "unknown"}


def test_curves_and_bins_of_an_attribute_are_of_its_known_cells(drawn):
    """In whichever order the attributes of the document are."""
    predictions, cells = drawn
    document = judge(predictions, source={}, replicates=0)
    document = document.model_copy(update={"attributes": document.attributes[::-1]})
    payload = build_payload(
        document, predictions, cells, curves={}, mistakes=find_mistakes(cells),
        samples=tabulate(cells, predictions.object_id, 10**6), pictures=no_pictures(predictions), gallery=[],
    )  # fmt: skip
    for column, entry in enumerate(payload["attributes"]):
        known = ~np.isnan(predictions.labels[:, column])
        truth = predictions.labels[known, column] >= 0.5
        assert (entry["positives"], entry["negatives"]) == (truth.sum(), (~truth).sum())
        recall, precision = (np.array(points) / 1000 for points in entry["pr"])
        exact_precision, exact_recall, _ = precision_recall_curve(truth, predictions.logits[known, column])
        assert auc(recall, precision) == pytest.approx(auc(exact_recall[:-1], exact_precision[:-1]), abs=0.02)
        assert (recall[-1], precision[-1]) == (1, pytest.approx(truth.mean(), abs=0.0006))
        scores, present, objects = np.array(entry["bins"]).T
        assert objects.sum() == known.sum()
        assert (present * objects).sum() / 1000 == pytest.approx(truth.sum(), abs=0.0006 * known.sum())
        mean = (1 / (1 + np.exp(-predictions.logits[known, column]))).mean()
        assert (scores * objects).sum() / 1000 == pytest.approx(mean * known.sum(), abs=0.0006 * known.sum())


def test_pictures_are_the_crops_of_their_objects_made_small(toy_shards):
    shards = ShardSet([toy_shards], "val")
    ids = shards.object_ids[::-1].copy()  # in another order than the shards'
    pictures = Pictures(shards, ids, 10**9)
    for row in (0, 3, len(ids) - 1):
        assert pictures.add(row, 64)
        kind, text = pictures.uris[row].split(",")
        small = Image.open(io.BytesIO(base64.b64decode(text)))
        crop = Image.open(io.BytesIO(shards.jpeg(len(ids) - 1 - row))).convert("RGB")
        assert kind == "data:image/webp;base64" and max(small.size) == min(64, max(crop.size))
        difference = np.subtract(small.resize((16, 16)), crop.resize((16, 16)), dtype=float)
        assert np.abs(difference).mean() < 12


def test_an_object_the_shards_do_not_have_has_no_picture(toy_shards):
    pictures = Pictures(ShardSet([toy_shards], "val"), np.array([-5, 10**15]), 10**9)
    assert not pictures.add(0, 64) and not pictures.add(1, 64) and pictures.uris == {}


def test_saturated_scores_are_ranked_by_their_logits():
    labels = np.repeat([[1.0], [0.0]], 20, axis=1).reshape(-1, 1).astype(np.float32)
    logits = np.linspace(40, 20, 40, dtype=np.float32)[:, None]  # whose probabilities are all 1 in single precision
    predictions = replace(drawn_predictions(objects=40), names=("furry",), logits=logits, labels=labels)
    cells = Cells.of(predictions, positive_at=0.5, threshold=0.5)
    assert find_mistakes(cells)[0].wrong == [20, 21, 22, 23, 24, 25]
    document = judge(predictions, source={}, replicates=20)
    payload = build_payload(
        document, predictions, cells, curves={}, mistakes=find_mistakes(cells),
        samples=tabulate(cells, predictions.object_id, 10**6), pictures=Pictures(None, predictions.object_id, 0), gallery=[],
    )  # fmt: skip
    assert document.overall["map"] == 1.0 and payload["attributes"][0]["pr"][1][:20] == [1000] * 20
    assert payload["attributes"][0]["mistakes"][0] == [[row, 1000] for row in range(20, 26)]


def test_what_the_script_shows_is_the_number_itself_rounded_once():
    """The script shows scores with three decimals and those of mistakes with two, as the tables and the gallery do."""
    predictions = drawn_predictions(attributes=60)
    document, cells = judge(predictions, source={}, replicates=20), Cells.of(predictions, 0.5, 0.5)
    mistakes = find_mistakes(cells)
    payload = build_payload(
        document, predictions, cells, curves={}, mistakes=mistakes,
        samples=tabulate(cells, predictions.object_id, 10**6), pictures=no_pictures(predictions), gallery=[],
    )  # fmt: skip
    for column, (told, entry) in enumerate(zip(payload["attributes"], document.attributes, strict=True)):
        measured = {name: value for name, value in dict(entry).items() if isinstance(value, float)}
        assert {name: f"{told[name]:.3f}" for name in measured} == {
            name: f"{value:.3f}" for name, value in measured.items()
        }
        assert [f"{end:.3f}" for end in told["interval"]] == [f"{end:.3f}" for end in entry.ap_interval]
        for row, score in [*told["mistakes"][0], *told["mistakes"][1]]:
            assert f"{score / 1000:.2f}" == f"{1 / (1 + np.exp(-float(predictions.logits[row, column]))):.2f}"


def test_pictures_end_with_the_budget_worst_mistakes_first(toy_shards):
    shards = ShardSet([toy_shards], "val")
    everything = Pictures(shards, shards.object_ids, 10**9)
    rng = np.random.default_rng(0)
    labels = shards.labels(np.arange(len(shards)))
    known = ~np.isnan(labels)
    logits = rng.normal(size=labels.shape).astype(np.float32)
    cells = Cells(logits, logits >= 0, labels >= 0.5, known & (labels < 0.5))
    mistakes = find_mistakes(cells)
    add_pictures(everything, mistakes, 64)
    assert set(everything.uris) == {row for entry in mistakes for row in (*entry.wrong, *entry.missed)}
    worst = {row for entry in mistakes for row in (*entry.wrong[:1], *entry.missed[:1])}
    assert set(list(everything.uris)[: len(worst)]) == worst  # of every attribute, before the second worst of any
    budget = sum(map(len, everything.uris.values())) // 2
    half = Pictures(shards, shards.object_ids, budget)
    add_pictures(half, mistakes, 64)
    assert 0 < sum(map(len, half.uris.values())) <= budget
    assert list(half.uris) == list(everything.uris)[: len(half.uris)]
    assert {entry.wrong[0] for entry in mistakes if entry.wrong} & set(half.uris)
