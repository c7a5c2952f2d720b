"""metrics.json: what was written is read, and no NaN gets in."""

import json

import pytest
from pydantic import ValidationError

from attrtrain.errors import PredictionsError
from attrtrain.metrics.document import (
    AttributeEntry,
    Bootstrap,
    GroupEntry,
    LeftOut,
    MetricsDocument,
    ViewEntry,
    read_metrics,
    write_metrics,
)


def document(**change):
    content = {
        "source": {"scores": "pred.npy", "split": None},
        "objects": 4,
        "images": 2,
        "positive_at": 0.5,
        "threshold": 0.5,
        "tuned_on": None,
        "overall": {"map": 0.5, "auroc": None},
        "intervals": {"map": (0.25, 0.75), "auroc": None},
        "bootstrap": Bootstrap(replicates=100, seed=0, unit="image"),
        "baselines": {"prior": {"map": 0.25}, "category": None},
        "permutation_p": 0.01,
        "category_from": None,
        "attributes": [AttributeEntry(name="furry", judged=True, positives=2, negatives=2, unknowns=0, ap=1, ap_interval=(0.5, 1.0))],
        "left_out": LeftOut(min_positives=5, min_negatives=5, count=0, names=[]),
        "groups": {"frequency": [GroupEntry(name="head", attributes=1, objects=4, map=0.5)]},
        "views": {"masked": ViewEntry(rule="known cells", objects=4, overall={"map": 0.5})},
    }  # fmt: skip
    return MetricsDocument(**{**content, **change})


def test_what_was_written_is_read(tmp_path):
    write_metrics(document(), tmp_path / "metrics.json")
    assert read_metrics(tmp_path / "metrics.json") == document()
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["overall"] == {"map": 0.5, "auroc": None} and content["schema_version"] == 1
    assert content["attributes"][0]["ap_interval"] == [0.5, 1.0]


@pytest.mark.parametrize(
    "change",
    [
        {"overall": {}},
        {"overall": {"map": float("nan")}},
        {"intervals": {"map": (0.0, float("inf"))}},
        {"objects": "4"},
        {"extra": 1},
    ],
)
def test_no_nan_nothing_unknown_and_nothing_without_its_map_gets_in(change):
    with pytest.raises(ValidationError):
        document(**change)


def test_another_version_is_one_line_with_the_field(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**document().model_dump(), "schema_version": 2}))
    with pytest.raises(PredictionsError, match=r"metrics\.json: .*schema_version"):
        read_metrics(path)
