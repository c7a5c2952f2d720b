"""What a page says of its numbers."""

import pytest
from report_data import document_of, drawn_predictions

from attrtrain.report.headline import ladder, metric_rows, sentence
from attrtrain.report.metric_names import in_sections, metric_name
from attrtrain.report.render import along, breakable, exact, interval, percent, score, signed
from attrtrain.wording import counted


@pytest.fixture(scope="module")
def predictions():
    return drawn_predictions()


def test_a_model_above_every_guess(predictions):
    document = document_of(predictions)
    assert document.intervals["map"][0] > 0.35
    assert sentence(document) == (
        "The whole interval lies above every way of guessing; the strongest of them is by each attribute's rate (0.396). "
        "Against shuffled scores, p = 0.01."
    )


def test_a_model_that_cannot_be_told_from_a_guess(predictions):
    document = document_of(predictions)
    within = {"permutation": {"map": document.overall["map"] + 0.01}, "prior": {"map": 0.1}, "category": None}
    text = sentence(document_of(predictions, baselines=within))
    assert (
        text.startswith("The interval contains what guessing by shuffled scores") and "cannot be told from it" in text
    )


def test_a_model_below_a_guess(predictions):
    text = sentence(document_of(predictions, baselines={"prior": {"map": 0.99}, "permutation": None, "category": None}))
    assert text.startswith("Guessing by each attribute's rate (0.990) does better than the model")


def test_without_numbers_nothing_is_claimed(predictions):
    nothing = document_of(predictions, overall={"map": None}, intervals={}, permutation_p=None)
    assert sentence(nothing) == "No attribute has enough known labels to be judged, so there is no mAP."
    bare = document_of(predictions, intervals={}, permutation_p=None)
    assert "says nothing about chance" in sentence(bare)


def test_a_perfect_ranking_is_told_without_an_interval(predictions):
    document = document_of(predictions)
    perfect = document_of(
        predictions, overall={**document.overall, "map": 1.0}, intervals={**document.intervals, "map": None}
    )
    assert sentence(perfect) == (
        "mAP is 1: no ranking has a mistake, and so none that is drawn of these objects, which gives no interval. Against shuffled scores, p = 0.01."
    )


def test_the_picture_has_the_model_and_the_baselines_there_are(predictions):
    document = document_of(predictions)
    assert [rung.kind for rung in ladder(document)] == ["model", "prior", "permutation", "category"]
    assert ladder(document)[0].interval == document.intervals["map"]
    without = document_of(predictions, baselines={"prior": {"map": 0.1}, "permutation": None, "category": None})
    assert [rung.kind for rung in ladder(without)] == ["model", "prior"]


def test_every_score_stands_in_the_table_beside_its_baselines(predictions):
    document = document_of(predictions)
    rows = [row for _, section in metric_rows(document) for row in section]
    assert len(rows) == len(document.overall) - 1  # prior_map is a column
    best = rows[0]
    assert (best.label, best.value, best.interval) == ("mAP", document.overall["map"], document.intervals["map"])
    assert (best.prior, best.permutation, best.category) == (document.overall["prior_map"], 0.32, 0.35)


def test_keys_are_named_in_sections():
    keys = ["loss", "cf1_tuned", "f1_at_7", "brand_new", "map", "permutation_map", "or", "instance_f1"]
    assert in_sections(keys) == [
        ("Ranking", ["map", "f1_at_7"]),
        ("Decisions at the threshold", ["or"]),
        ("Decisions at tuned thresholds", ["cf1_tuned"]),
        ("Per object", ["instance_f1"]),
        ("Probabilities", ["loss"]),
        ("Others", ["brand_new"]),
    ]
    assert metric_name("f1_at_7").label == "F1 at 7" and "the 7 highest" in metric_name("f1_at_7").meaning
    assert metric_name("brand_new").label == "brand_new"
    assert [key for key in keys if metric_name(key).lower_is_better] == ["loss"]


def test_numbers_are_written_for_people():
    assert (score(0.81667), score(None), interval((0.1, 0.25)), interval(None)) == ("0.817", "–", "0.100 to 0.250", "–")
    assert (signed(0.1), signed(-0.1), signed(None)) == ("+0.100", "−0.100", "–")
    assert (along(0.5), along(-1), along(7)) == ("50.00%", "0.00%", "100.00%")
    assert (exact(1 / 3), exact(None)) == ("0.333333333", "")
    assert (percent(0.5), percent(0.031), percent(0.0)) == ("50 %", "3.1 %", "0 %")
    assert (counted(1, "object"), counted(12345, "object")) == ("1 object", "12,345 objects")


def test_a_long_name_may_break_and_is_never_markup():
    assert breakable("a_b<i>") == "a_<wbr>b&lt;i&gt;"
    assert breakable("</script>") == "&lt;/script&gt;"
