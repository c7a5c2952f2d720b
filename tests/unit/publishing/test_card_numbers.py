"""What a model card says of scores, data and settings, counted anew."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from attrtrain.bundle import read_card
from attrtrain.config.schema import UnknownLabels
from attrtrain.metrics.document import AttributeEntry, MetricsDocument
from attrtrain.publishing.model_card import write_card
from attrtrain.publishing.options import CardOptions
from attrtrain.publishing.published_model import PublishedModel
from attrtrain.shards.manifest import CropSettings, Manifest, SourceRecord, SplitStatistics, VocabularyRecord
from attrtrain.vocabulary import AttributeVocabulary
from tests.bundles import draw_bundle
from tests.report_data import document_of, drawn_predictions

NAMES = ("furry", "wet", "round", "old", "young")
OWN = {"split": "val", "data_fingerprint": "0" * 64}  # of the shards that drawn bundles say they were trained on


def published(folder: Path, names: tuple[str, ...] = NAMES, selected_on: str = "", **told: Any) -> PublishedModel:
    """A model of which nothing is known but what is told."""
    card = read_card(draw_bundle(folder / "bundle", names, selected_on=selected_on))
    model = PublishedModel("toy", folder / "bundle", card, None, {}, None, {}, (), (), ())
    return replace(model, **told)


def written(model: PublishedModel) -> str:
    return write_card(model, CardOptions(), ".")


def drawn(attributes: int, **changes: Any) -> MetricsDocument:
    return document_of(drawn_predictions(attributes=attributes, objects=400), **{"source": OWN, **changes})


@pytest.mark.parametrize("attributes", [20, 25])
def test_of_many_attributes_both_ends_are_shown(tmp_path: Path, attributes: int) -> None:
    document = drawn(attributes)
    names = tuple(entry.name for entry in document.attributes)
    assert all(entry.judged for entry in document.attributes)
    far = {entry.name: (entry.ap or 0) - (entry.prior or 0) for entry in document.attributes}
    expected = sorted(names, key=lambda name: -far[name])
    card = written(published(tmp_path, names, metrics=document))
    heads = re.findall(r"### (.*)\n", card)
    shown = [re.findall(r"\| (attribute \d+) \|", part) for part in card.split("### ")[1:]]
    if attributes == 20:
        assert heads == ["Attributes, the farthest above their rate first"] and shown == [expected]
    else:
        assert heads == [f"The 10 attributes {which} above their rate" for which in ("farthest", "least")]
        assert shown == [expected[:10], expected[-10:]]


def test_above_chance_is_what_lies_above_both_guesses_with_its_whole_interval(tmp_path: Path) -> None:
    def entry(
        name: str, ap: float, interval: tuple[float, float] | None, prior: float, shuffled: float | None
    ) -> AttributeEntry:
        return AttributeEntry(
            name=name, judged=name != "f", positives=9, negatives=9, unknowns=0, ap=ap, ap_interval=interval, prior=prior,
            permutation_ap=shuffled,
        )  # fmt: skip

    entries = [
        entry("a", 0.5, (0.46, 0.6), 0.3, 0.45),  # above
        entry("b", 0.5, (0.40, 0.6), 0.3, 0.45),  # not above a random order
        entry("c", 0.5, (0.46, 0.6), 0.47, 0.45),  # not above its rate
        entry("d", 1.0, None, 0.5, 0.6),  # above: a perfect ranking has no interval
        entry("e", 0.9, None, 0.5, None),
        entry("f", 0.9, (0.8, 1.0), 0.5, None),  # not judged
    ]
    document = drawn(6).model_copy(update={"attributes": entries})
    assert "Of 5 judged attributes, 2 have an AP whose whole interval" in written(
        published(tmp_path, tuple("abcdef"), metrics=document)
    )


def manifest(counts: dict[str, tuple[list[int], list[int], list[int]]], source: str, **left_out: int) -> Manifest:
    """Of splits with so many known positives, negatives and unknown labels of each attribute."""
    splits = {
        split: SplitStatistics(objects=10, images=3, positives=present, negatives=absent, unknowns=unknown)
        for split, (present, absent, unknown) in counts.items()
    }
    return Manifest(
        vocabulary=VocabularyRecord.of(AttributeVocabulary.from_names(NAMES)), categories=["", f"kind of {source}", "cat"],
        shards=[], splits=splits, sources=[SourceRecord(name="shared", bytes=7, sha256="s" * 64), SourceRecord(name=source, bytes=5, sha256=source * 64)],
        crop=CropSettings(store_px=48, quality=85, context=0.1), split_note=f"split: of {source}", left_out=left_out,
        index_sha256="", labels_sha256="",
    )  # fmt: skip


TWO = (  # of which each has something that the other lacks
    manifest(
        {
            "train": ([4, 0, 0, 0, 1], [0, 5, 2, 0, 0], [6, 5, 8, 10, 9]),
            "val": ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [8, 8, 8, 8, 8]),
        },
        "a",
        crowd=2,
        box_empty=1,
    ),
    manifest({"train": ([2, 0, 3, 0, 0], [0, 1, 0, 0, 1], [8, 9, 7, 10, 9])}, "b", crowd=3),
)


def test_the_data_of_several_folders_are_counted_together(tmp_path: Path) -> None:
    card = written(published(tmp_path, manifests=TWO, config={"labels": {"unknown": "mask"}}))
    assert "| train | 20 | 6 | 19 % | 53 % |" in card  # 10 present and 9 absent of 100
    assert "| val | 10 | 3 | 20 % | 50 % |" in card
    assert "- Left out when crops were cut: crowd 5, box empty 1." in card
    assert card.count("Made from shared") == card.count("Made from a,") == card.count("Made from b,") == 1
    assert "They hold 3 kinds: cat, kind of a, kind of b." in card
    assert "Where the splits come from: of a; of b." in card
    assert "1 attribute had no known label in training, and the model scores it all the same" in card
    assert "**Never seen present** in training, so their scores can only be low: wet.\n" in card
    assert "**Never seen absent** in training, so their scores can only be high: furry.\n" in card


@pytest.mark.parametrize(
    ("config", "result", "rows"),
    [
        ({"model": {"weights": "none"}}, {"seconds": 3600}, ["random weights", "60.0 minutes"]),
        ({"model": {"weights": "imagenet"}}, {"seconds": 5400}, ["ImageNet", "1.5 hours"]),
        ({"model": {"weights": "/home/me/best.safetensors"}}, {"seconds": 90}, ["best.safetensors", "1.5 minutes"]),
        ({"model": {}}, {}, ["not known"]),
    ],
)
def test_settings_are_told_without_places_of_the_machine(
    tmp_path: Path, config: dict[str, Any], result: dict[str, Any], rows: list[str]
) -> None:
    card = written(published(tmp_path, config=config, result=result))
    assert f"| backbone starts from | {rows[0]} |" in card and "/home/me" not in card
    assert re.findall(r"\| training took \| (.*) \|", card) == rows[1:]


@pytest.mark.parametrize(
    ("split", "fingerprint", "told"),
    [
        ("val", "0" * 64, "- **Chosen on what it is judged on.** The epoch (3 of 9) is the one with the highest mAP on split val"),
        ("test", "0" * 64, "- The epoch (3 of 9) was chosen by its mAP on split val."),
        ("val", "1" * 64, "- The epoch (3 of 9) was chosen by its mAP on split val."),
    ],
)  # fmt: skip
def test_whether_the_epoch_was_chosen_on_what_is_judged(
    tmp_path: Path, split: str, fingerprint: str, told: str
) -> None:
    document = drawn(4, source={"split": split, "data_fingerprint": fingerprint})
    names = tuple(entry.name for entry in document.attributes)
    more = {"config": {"train": {"epochs": 9}}, "result": {"best_epoch": 3}}
    card = written(published(tmp_path, names, "val", metrics=document, **more))
    assert told in card and ("of other data than it was trained with" in card) == (fingerprint[0] == "1")
    assert ("Chosen on what it is judged on" in card) == ("Chosen" in told)


@pytest.mark.parametrize("unknown", get_args(UnknownLabels))
def test_scores_of_what_was_never_seen_absent_are_high_only_where_unknown_labels_count_as_nothing(
    tmp_path: Path, unknown: UnknownLabels
) -> None:
    card = written(published(tmp_path, manifests=TWO, config={"labels": {"unknown": unknown}}))
    counts_as_absent = "counted as absent in the loss" in card
    assert counts_as_absent == (unknown in ("negative", "hill", "splc"))
    assert ("**Never seen absent**" in card) != counts_as_absent
    assert "**Never seen present** in training, so their scores can only be low: wet.\n" in card
