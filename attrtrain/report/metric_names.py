"""What the overall scores of metrics.json are called on a page, and what they mean, in the order in which they are
shown.
"""

import re
from dataclasses import dataclass

RANKING, DECISIONS, TUNED, OBJECTS, CALIBRATION, OTHER = (
    "Ranking", "Decisions at the threshold", "Decisions at tuned thresholds", "Per object", "Probabilities", "Others",
)  # fmt: skip


@dataclass(frozen=True)
class MetricName:
    """How a score is shown; `lower_is_better` only for errors and losses."""

    section: str
    label: str
    meaning: str
    lower_is_better: bool = False

    @property
    def full_label(self) -> str:
        """The label where no heading tells the section."""
        return {TUNED: f"tuned {self.label}", OBJECTS: f"{self.label} per object"}.get(self.section, self.label)


_NAMES = {
    "map": MetricName(RANKING, "mAP", "mean average precision over attributes"),
    "auroc": MetricName(RANKING, "AUROC", "mean over attributes; 0.5 is a coin"),
    "mean_recall_at_K": MetricName(RANKING, "mean recall at K", "the K highest scores of an object count as named"),
    "f1_at_K": MetricName(RANKING, "F1 at K", "the K highest scores of an object count as named"),
    "cp": MetricName(DECISIONS, "CP", "precision, averaged over attributes"),
    "cr": MetricName(DECISIONS, "CR", "recall, averaged over attributes"),
    "cf1": MetricName(DECISIONS, "CF1", "harmonic mean of CP and CR"),
    "op": MetricName(DECISIONS, "OP", "precision over all cells"),
    "or": MetricName(DECISIONS, "OR", "recall over all cells"),
    "of1": MetricName(DECISIONS, "OF1", "harmonic mean of OP and OR"),
    "mA": MetricName(DECISIONS, "mA", "mean of true positive and true negative rate, averaged over attributes"),
    "balanced_accuracy": MetricName(DECISIONS, "balanced accuracy", "mean over judged attributes; 0.5 is a coin"),
    "cell_accuracy": MetricName(DECISIONS, "cell accuracy", "share of known cells that are right; high where most are absent"),
    "instance_accuracy": MetricName(OBJECTS, "accuracy", "present and named, of present or named, averaged over objects"),
    "instance_precision": MetricName(OBJECTS, "precision", "averaged over objects"),
    "instance_recall": MetricName(OBJECTS, "recall", "averaged over objects"),
    "instance_f1": MetricName(OBJECTS, "F1", "harmonic mean of the two above"),
    "ece": MetricName(CALIBRATION, "calibration error", "expected gap between score and share present; lower is better", True),
    "loss": MetricName(CALIBRATION, "loss", "binary cross-entropy over known cells; lower is better", True),
}  # fmt: skip
_SECTIONS = (RANKING, DECISIONS, TUNED, OBJECTS, CALIBRATION, OTHER)
# These stand in columns of their own, beside the score that they belong to.
_BASELINES = re.compile(r"(prior|permutation|category)_map")


def metric_name(key: str) -> MetricName:
    """How the score of a key is shown; a key nobody thought of shows as itself."""
    if key.endswith("_tuned") and (plain := _NAMES.get(key.removesuffix("_tuned"))):
        return MetricName(TUNED, plain.label, plain.meaning)
    if at := re.fullmatch(r"(mean_recall_at|f1_at)_(\d+)", key):
        general = _NAMES[f"{at[1]}_K"]
        return MetricName(RANKING, general.label.replace("K", at[2]), general.meaning.replace("K", at[2]))
    return _NAMES.get(key, MetricName(OTHER, key, ""))


def in_sections(keys: list[str]) -> list[tuple[str, list[str]]]:
    """Keys by section, in the order in which they are shown, without those of baselines."""
    order = [plain + suffix for suffix in ("", "_tuned") for plain in _NAMES]
    place = {key: number for number, key in enumerate(order)}

    def rank(key: str) -> int:
        return place.get(re.sub(r"_at_\d+$", "_at_K", key), len(place))

    shown = sorted((key for key in keys if not _BASELINES.fullmatch(key)), key=rank)
    sections = [(section, [key for key in shown if metric_name(key).section == section]) for section in _SECTIONS]
    return [(section, own) for section, own in sections if own]
