"""The most important numbers as text: each score beside its interval and beside what guessing scores."""

from attrtrain.metrics.decisions import TOP_K
from attrtrain.metrics.document import MetricsDocument
from attrtrain.wording import counted, some_of

_ROWS = {
    "map": "mAP", "auroc": "AUROC", "cf1": "CF1", "of1": "OF1", "cf1_tuned": "CF1, tuned", "of1_tuned": "OF1, tuned", "mA": "mA",
    f"mean_recall_at_{TOP_K}": f"mean recall at {TOP_K}", f"f1_at_{TOP_K}": f"F1 at {TOP_K}", "instance_f1": "instance F1",
    "cell_accuracy": "cell accuracy", "ece": "calibration error", "loss": "loss",
}  # fmt: skip
_NAMES_SHOWN = 8


def overview(document: MetricsDocument) -> str:
    """The overall scores as a table, and what has to be known to read them."""
    judged = len(document.attributes) - document.left_out.count
    lines = [
        f"{counted(document.objects, 'object')} in {counted(document.images, 'photograph')}, {judged} of {len(document.attributes)} attributes judged"
        if document.bootstrap.unit == "image"
        else f"{counted(document.objects, 'object')}, {judged} of {len(document.attributes)} attributes judged",
        "",
        f"{'':<19}{'score':>7}  {'95 % interval':<16}{'prior':>8}{'shuffled':>10}{'category':>10}",
    ]
    for key, title in _ROWS.items():
        between = document.intervals.get(key)
        shown = f"{between[0]:.4f}–{between[1]:.4f}" if between else "–"
        guesses = [(document.baselines.get(name) or {}).get(key) for name in ("prior", "permutation", "category")]
        prior, shuffle, category = map(_number, guesses)
        lines.append(
            f"{title:<19}{_number(document.overall.get(key)):>7}  {shown:<16}{prior:>8}{shuffle:>10}{category:>10}"
        )
    return "\n".join([*lines, "", *_notes(document)])


def _notes(document: MetricsDocument) -> list[str]:
    """What has to be known to read the table."""
    bootstrap = document.bootstrap
    notes = [f"Predicted is a probability above {document.threshold:g}; {document.tuned_on}."]
    if bootstrap.replicates and bootstrap.unit == "object":
        notes.append(
            f"Intervals: {bootstrap.replicates} bootstrap replicates over objects, since no photographs were given; they are too narrow if objects share photographs."
        )
    elif bootstrap.replicates:
        notes.append(f"Intervals: {bootstrap.replicates} bootstrap replicates over photographs.")
    if document.permutation_p is not None:
        notes.append(f"Shuffled scores reach this mAP with p = {document.permutation_p:.4f}.")
    if document.left_out.count:
        notes.append(
            f"Left out of means over attributes, with fewer than {document.left_out.min_positives} known positives or {document.left_out.min_negatives} negatives: "
            f"{document.left_out.count} ({some_of(document.left_out.names, _NAMES_SHOWN)})."
        )
    return notes


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
