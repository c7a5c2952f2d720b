"""Two runs beside each other."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_data import drawn_predictions

from attrtrain.errors import PredictionsError
from attrtrain.metrics.decisions import GivenThresholds
from attrtrain.metrics.judge import judge
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.report.compare import as_text, compare
from attrtrain.report.compare_report import sentence, write_comparison
from attrtrain.report.run_directory import JudgedRun


def judged(name, predictions, config=None, **rules):
    document = judge(predictions, source={"model": name}, replicates=50, **rules)
    return JudgedRun(Path(name), document, predictions, "", config or {}, None, None)


def noisier(predictions, columns):
    """The same objects, judged worse by a model that guesses some attributes."""
    logits = predictions.logits.copy()
    logits[:, columns] = np.random.default_rng(5).normal(size=logits[:, columns].shape)
    return replace(predictions, logits=logits)


@pytest.fixture(scope="module")
def good():
    return drawn_predictions(objects=400)


@pytest.fixture(scope="module")
def comparison(good):
    return compare(judged("runs/a", noisier(good, [3, 7, 10])), judged("runs/b", good))


def test_differences_are_those_of_the_two_documents(comparison):
    a, b = comparison.a.document, comparison.b.document
    first = comparison.scores[0]
    assert (first.label, first.a, first.b) == ("mAP", a.overall["map"], b.overall["map"])
    assert first.difference == b.overall["map"] - a.overall["map"] > 0
    assert first.interval[0] < first.difference < first.interval[1] and first.prior == a.overall["prior_map"]
    for row, entry, other in zip(comparison.attributes, a.attributes, b.attributes, strict=True):
        assert (row.label, row.a, row.b) == (entry.name, entry.ap, other.ap)


def test_what_was_made_worse_is_found_and_the_rest_is_level(comparison):
    found = {row.label: row.finding for row in comparison.attributes}
    assert {name for name, finding in found.items() if finding == "better"} == {
        "attribute 3",
        "attribute 7",
        "attribute 10",
    }
    assert comparison.scores[0].finding == "better"
    loss = next(row for row in comparison.scores if row.label == "loss")
    assert loss.difference < 0 and loss.finding == "better"
    assert sentence(comparison.scores[0]).startswith("B is better than A")


def test_seen_from_the_other_side_it_is_worse(good):
    back = compare(judged("runs/b", good), judged("runs/a", noisier(good, [3, 7, 10])))
    assert back.scores[0].finding == "worse" and sentence(back.scores[0]).startswith("B is worse than A")


def test_a_run_beside_itself_cannot_be_told_apart(good):
    same = compare(judged("runs/a", good), judged("runs/b", good))
    assert {row.difference for row in same.scores} <= {0.0, None}
    assert {row.finding for row in same.scores + same.attributes} <= {"open", ""}
    assert "cannot be told apart" in sentence(same.scores[0])


def test_the_order_of_objects_does_not_matter(good, comparison):
    order = np.random.default_rng(2).permutation(len(good))
    shuffled = replace(
        good, **{name: getattr(good, name)[order] for name in ("object_id", "image_id", "category", "logits", "labels")}
    )
    again = compare(comparison.a, judged("runs/b", shuffled))
    assert again.scores[0].difference == pytest.approx(comparison.scores[0].difference, abs=1e-12)
    assert again.scores[0].interval == pytest.approx(comparison.scores[0].interval, abs=1e-12)


def test_settings_that_differ(good):
    a = {"optim": {"lr": 0.1, "name": "sgd"}, "data": {"shards": ["x"]}, "old": 1}
    b = {"optim": {"lr": 0.2, "name": "sgd"}, "data": {"shards": ["x"], "new": True}}
    found = compare(judged("a", good, a), judged("b", good, b)).settings
    assert found == [("optim.lr", "0.1", "0.2"), ("old", "1", "–"), ("data.new", "–", "True")]


def other_attributes(good):
    return replace(good, names=("other", *good.names[1:]))


def other_objects(good):
    return replace(good, object_id=good.object_id + 1)


def other_labels(good):
    return replace(good, labels=np.where(np.isnan(good.labels), 0, good.labels))


@pytest.mark.parametrize(
    ("change", "told"),
    [(other_attributes, "11 in common"), (other_objects, "other objects"), (other_labels, "other labels")],
)
def test_what_was_judged_otherwise_is_refused_in_one_line(good, change, told):
    with pytest.raises(PredictionsError) as refused:
        compare(judged("runs/a", good), judged("runs/b", change(good)))
    line = str(refused.value)
    assert line.startswith("runs/a and runs/b") and told in line and "\n" not in line


def test_another_threshold_is_refused(good):
    with pytest.raises(PredictionsError, match=r"threshold 0\.5 and 0\.3"):
        compare(judged("runs/a", good), judged("runs/b", good, threshold=0.3))


def test_runs_that_were_judged_by_other_rules_than_the_usual_have_intervals_all_the_same(good):
    shares = np.where(
        np.isnan(good.labels), np.nan, np.where(good.labels > 0, 1, np.arange(len(good))[:, None] % 2 / 4)
    )
    good = replace(good, labels=shares.astype(np.float32))
    rules = {"threshold": 0.3, "positive_at": 0.25}
    comparison = compare(judged("runs/a", noisier(good, [3, 7]), **rules), judged("runs/b", good, **rules))
    scores = {row.label: row for row in comparison.scores}
    for label in ("mAP", "CF1", "OF1", "mA"):
        row = scores[label]
        assert row.interval[0] < row.difference < row.interval[1]
    assert all(row.interval for row in comparison.attributes)


def test_of_one_photograph_nothing_is_concluded(good):
    alone = replace(good, image_id=np.zeros_like(good.image_id))
    comparison = compare(judged("runs/a", noisier(alone, [3])), judged("runs/b", alone))
    assert {row.interval for row in comparison.scores} == {None} and comparison.scores[0].difference > 0
    assert sentence(comparison.scores[0]).startswith("Without mAP of both and an interval, nothing can be said")


def test_the_page_begins_with_what_became_most_better_and_has_room_for_every_whisker(good, tmp_path):
    comparison = compare(judged("runs/b", good), judged("runs/a", noisier(good, [3, 7, 10])))  # the longest go left
    write_comparison(tmp_path / "compare.html", comparison)
    page = (tmp_path / "compare.html").read_text()
    gains = [row.label for row in sorted(comparison.attributes, key=lambda row: -row.difference)]
    assert re.findall(r'<th scope="row" data-value="(attribute \d+)"', page) == gains
    (reach,) = re.findall(r"… \+([\d.]+)<", page)
    ends = [abs(end) for row in comparison.attributes for end in row.interval]
    assert float(reach) == pytest.approx(max(ends), rel=0.05)


def test_scores_at_thresholds_that_were_tuned_by_other_rules_are_not_compared(good, tmp_path):
    values = np.full(len(good.names), 0.3, dtype=good.logits.dtype)
    given = GivenThresholds(values, "thresholds tuned on split 'dev'", JudgedSet.of(good, 0.5))
    mixed = compare(judged("runs/a", good), judged("runs/b", good, tuned=given))
    tuned = [row for row in mixed.scores if row.label.startswith("tuned ")]
    assert len(tuned) == 6 and all(row.a is not None and row.b is not None for row in tuned)
    assert {row.difference for row in tuned} == {None} and {row.finding for row in tuned} == {""}
    (note,) = mixed.notes
    assert "thresholds tuned on split 'dev'" in note and "other half" in note and note in as_text(mixed)
    write_comparison(tmp_path / "compare.html", mixed)
    assert "Tuned scores are not compared" in (tmp_path / "compare.html").read_text()
    alike = compare(judged("runs/a", good, tuned=given), judged("runs/b", noisier(good, [3]), tuned=given))
    tuned = [row for row in alike.scores if row.label.startswith("tuned ")]
    assert all(row.difference for row in tuned) and {row.interval for row in tuned} == {None}
    assert alike.notes[0].startswith("Differences of tuned scores have no interval")
    (note,) = compare(
        judged("runs/a", good), judged("runs/b", good)
    ).notes  # cross-fitted: the chance of tuning is in no replicate either
    assert note == alike.notes[0]


def test_the_table_for_a_terminal_is_aligned(comparison):
    lines = as_text(comparison).splitlines()
    assert "400 objects of 134 photographs" in lines[0]
    assert lines[1].index("B − A") + len("B − A") == lines[2].index("+", 30) + len("+0.000")
    assert lines[2].startswith("mAP ") and lines[-1].startswith(
        "average precision: B is clearly better at 3 attributes"
    )


def test_the_page_has_it_all_and_hostile_names_stay_text(tmp_path, good):
    hostile = replace(good, names=("</script><script>alert(1)</script>", *good.names[1:]))
    first = judged("runs/a", noisier(hostile, [3]), {"run": {"name": "<script>alert(2)</script>"}})
    write_comparison(tmp_path / "compare.html", compare(first, judged("runs/b", hostile)))
    page = (tmp_path / "compare.html").read_text()
    assert page.count("<script") == 2 and "alert(1)</script>" not in page and "alert(2)</script>" not in page
    assert "run.name" in page and "attribute 11" in page
    assert len(page) < 200_000
