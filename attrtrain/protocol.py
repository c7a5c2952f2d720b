"""The frozen evaluation protocol for COCO Attributes, and what of an evaluation does not follow it. docs/protocol.md
gives the reasons.

A protocol never changes: other rules get another name or version.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attrtrain.wording import by_reason

if TYPE_CHECKING:  # pydantic and NumPy take longer than `attrtrain evaluate --help` may, which names the protocol
    from attrtrain.config.schema import Fit
    from attrtrain.shards.manifest import CropSettings, Manifest

NAME = "coco-attributes"
TITLE = f"{NAME} v1"

PUBLISHED_OBJECTS = 188_426
# The 204 published names with their ids, as AttributeVocabulary hashes them.
VOCABULARY_FINGERPRINT = "238ca8d257b1fad7b95d76e85842229420e67355b962216fc8c240664dc32028"
CROP = {"store_px": 256, "quality": 90, "context": 0.0}  # of CropSettings
SPLIT, DEV, DEV_SHARE, DEV_SEED = "val", "dev", 0.1, 0
POSITIVE_AT = THRESHOLD = 0.5
REPLICATES, SEED = 1000, 0
FIT = "squash"
UNUSABLE = ("crowd", "box_not_finite", "box_empty", "box_outside_image")  # reasons for which objects are left out


@dataclass(frozen=True)
class Choices:
    """What was chosen in an evaluation, as far as it can be known.

    Attributes:
        split: that is judged.
        tuned_on: split that thresholds were tuned on; None for cross-fitting on the judged one.
        selected_on: split that the model's epoch was chosen on, "" where unknown.
        positive_at: vote share that counts as present.
        threshold: probability above which an attribute counts as predicted.
        replicates: of the bootstrap.
        models: that answer together.
        views: that each takes of a crop.
        fit: how a crop fills the network's square.
    """

    split: str
    tuned_on: str | None
    selected_on: str
    positive_at: float
    threshold: float
    replicates: int
    models: int
    views: int
    fit: "Fit"


def deviations(manifest: "Manifest", choices: Choices) -> list[str]:
    """What differs from the protocol, a line each; empty where all that can be checked follows it."""
    from attrtrain.annotations.coco_attributes import PUBLISHED_SHA256
    from attrtrain.shards.manifest import CropSettings

    crop = CropSettings.model_validate(CROP)
    label_file = manifest.sources[0] if manifest.sources else None
    is_published = label_file is not None and label_file.sha256 == PUBLISHED_SHA256
    lost = by_reason({reason: count for reason, count in manifest.left_out.items() if reason not in UNUSABLE})
    there = sum(split.objects for split in manifest.splits.values()) + sum(manifest.left_out.values())
    dev, train = (manifest.splits[name].objects if name in manifest.splits else 0 for name in (DEV, "train"))
    drawn = manifest.split_note.partition(f"; {DEV}: ")[2]
    checks = [
        (manifest.vocabulary.fingerprint == VOCABULARY_FINGERPRINT, "the attributes are not the 204 published ones"),
        (
            is_published,
            f"the label file is not the published pickle: {label_file.name}, sha256 {label_file.sha256}"
            if label_file
            else "the shards do not say what label file they come from",
        ),
        (
            not is_published or there == PUBLISHED_OBJECTS,
            f"{PUBLISHED_OBJECTS - there:,} of the {PUBLISHED_OBJECTS:,} published objects were not found; shard with both --instances files of 2017",
        ),
        (
            not lost,
            f"objects with usable boxes are left out: {', '.join(lost)}",
        ),
        (
            manifest.split_note.startswith("split: the label file's own") and "moved" not in manifest.split_note,
            f"the split is not the label file's own as it is ({manifest.split_note}); shard with --split official",
        ),
        (
            dev > 0 and abs(dev / (dev + train) - DEV_SHARE) < 0.02,
            f"{dev:,} objects of train are set aside as '{DEV}', not {DEV_SHARE:.0%}; shard with --dev-share {DEV_SHARE:g}",
        ),
        (
            not drawn or drawn.endswith(f" with seed {DEV_SEED}"),
            f"'{DEV}' was drawn with another seed than {DEV_SEED} ({drawn}); shard with --split-seed {DEV_SEED}",
        ),
        (manifest.crop == crop, f"crops were cut with {_differing(manifest.crop, crop)}"),
        (choices.split == SPLIT, f"split '{choices.split}' is judged, not '{SPLIT}'"),
        (
            choices.selected_on == DEV,
            f"the epoch was chosen on split '{choices.selected_on}', not '{DEV}'; train with --data.val_split {DEV}"
            if choices.selected_on
            else f"the model does not say on which split its epoch was chosen; it must be '{DEV}'",
        ),
        (
            choices.tuned_on == DEV,
            f"thresholds were {f'tuned on {choices.tuned_on!r}' if choices.tuned_on else 'cross-fitted on the judged split'}, not tuned on '{DEV}'",
        ),
        (choices.positive_at == POSITIVE_AT, f"positive is a vote share of {choices.positive_at:g}, not {POSITIVE_AT}"),
        (choices.threshold == THRESHOLD, f"the threshold is {choices.threshold:g}, not {THRESHOLD}"),
        (choices.replicates == REPLICATES, f"{choices.replicates} bootstrap replicates, not {REPLICATES:,}"),
        (choices.models == 1, f"{choices.models} models answer together, not one"),
        (choices.views == 1, f"{choices.views} views of each crop are averaged; the protocol takes one"),
        (choices.fit == FIT, f"crops fill the network's square by data.fit {choices.fit}, not {FIT}"),
    ]
    return [told for follows, told in checks if not follows]


def _differing(crop: "CropSettings", wanted: "CropSettings") -> str:
    mine, rule = crop.model_dump(), wanted.model_dump()
    return ", ".join(f"{name} {mine[name]} (not {rule[name]})" for name in rule if mine[name] != rule[name])
