import pytest

from attrtrain.auditing.coverage import describe_coverage


def wrong(share, *names):
    return "; ".join(describe_coverage(1000, round(1000 * share), names, {}).likely_wrong)


def test_all_matched_is_nothing_wrong():
    coverage = describe_coverage(100, 99, ["instances_train2017.json", "instances_val2017.json"], {})
    assert coverage.share == 0.99 and coverage.likely_wrong == []


@pytest.mark.parametrize(
    ("given", "missing"),
    [("train2014", "val2014"), ("val2014", "train2014"), ("train2017", "val2017"), ("val2017", "train2017")],
)
def test_half_a_pair_is_told_with_the_other_half(given, missing):
    told = wrong(0.27, f"instances_{given}.json")
    assert f"{missing} is missing" in told and f"instances_{given}.json and instances_{missing}.json together" in told


def test_27_percent_with_both_files_is_a_wrong_or_incomplete_file_and_not_the_year():
    told = wrong(0.27, "instances_train2017.json", "instances_val2017.json")
    assert "incomplete, or of another data set" in told and "the year is not the reason" in told
    assert "is missing" not in told


def test_files_of_two_years_that_hold_all_of_coco_are_not_blamed_for_it():
    assert "is missing" not in wrong(0.5, "instances_train2017.json", "instances_val2014.json")
    assert "is missing" in wrong(0.7, "instances_train2014.json", "instances_val2017.json")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("person_keypoints_train2017.json", "persons only"),
        ("captions_val2017.json", "not an instances file"),
        ("lvis_v1_train.json", "numbers its annotations anew"),
        ("mine.json", "only one instances file"),
    ],
)
def test_other_files_are_named(name, told):
    assert told in wrong(0.27, name)


def test_shards_whose_files_are_not_known_any_more():
    assert "one of COCO's two instances files was missing" in wrong(0.27)
    assert "complete" in wrong(0.95)
