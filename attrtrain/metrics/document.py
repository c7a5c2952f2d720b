"""metrics.json: everything that was measured of one set of predictions, and what guessing scores on the same objects.

Overall keys, in `overall`, `baselines`, `intervals`, groups and views alike (None where a number does not exist):

    map                        mean average precision over judged attributes
    prior_map                  the same of guessing by the share of positives
    permutation_map            the same of a random order: above the prior, most of all for rare attributes
    category_map               the same of guessing by the share of positives in the object's category
    auroc, balanced_accuracy   means over judged attributes
    ece                        mean expected calibration error over judged attributes
    cp, cr, cf1                precision and recall averaged over attributes, and their harmonic mean
    op, or, of1                precision and recall over all cells, and their harmonic mean
    …_tuned                    the same at thresholds tuned on other objects
    mA                         mean over attributes of (true positive rate + true negative rate) / 2
    mean_recall_at_15, f1_at_15  VAW's: the 15 highest scores of an object are its predicted attributes
    instance_…                 accuracy, precision, recall of each object, averaged over objects; F1 of these means
    cell_accuracy              share of known cells that are right
    loss                       mean binary cross-entropy over known cells
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator

from attrtrain.contract import Contract, read_contract, write_contract
from attrtrain.errors import PredictionsError

METRICS = "metrics.json"
SHARDS = "shards"
"""In `source`: the folders of the judged shards as a JSON list, which are for this machine alone."""

View = Literal["masked", "exhaustive", "legacy"]
Baseline = Literal["prior", "permutation", "category"]
Frequency = Literal["head", "medium", "tail"]
Grouping = Literal["attribute_group", "frequency", "category"]
Scores = dict[str, float | None]
Interval = tuple[float, float]


class _Part(Contract):
    """JSON has no NaN: a number that does not exist is None, and NaN is refused when it is put in."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Bootstrap(_Part):
    """How the 95 % intervals were drawn."""

    replicates: Annotated[int, Field(ge=0)]
    seed: int
    unit: Literal["image", "object"]
    """What was drawn again; "object" where nobody said which photograph an object lies in, and intervals are too narrow
    if some share one.
    """


class AttributeEntry(_Part):
    """One attribute. Counts and scores are over its known cells; precision, recall, F1 and balanced accuracy are at the
    document's threshold.
    """

    name: str
    group: str | None = None
    frequency: Frequency | None = None
    judged: bool
    """Whether it has positives and negatives enough to count in the means."""
    positives: int
    negatives: int
    unknowns: int
    ap: float | None = None
    ap_interval: Interval | None = None
    prior: float | None = None
    permutation_ap: float | None = None
    category_ap: float | None = None
    auroc: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    balanced_accuracy: float | None = None
    ece: float | None = None
    threshold_tuned: float | None = None
    """The tuned threshold on probabilities; None where it was cross-fitted and there are two."""
    precision_tuned: float | None = None
    recall_tuned: float | None = None
    f1_tuned: float | None = None


class LeftOut(_Part):
    """Attributes with too few known positives or negatives to be judged; they are in no mean over attributes."""

    min_positives: int
    min_negatives: int
    count: int
    names: list[str]


class GroupEntry(_Part):
    """The scores of some attributes on all objects, or of all attributes on some objects."""

    name: str
    attributes: int
    """Judged attributes in it."""
    objects: int
    map: float | None = None
    map_interval: Interval | None = None
    prior_map: float | None = None
    permutation_map: float | None = None
    auroc: float | None = None
    cf1: float | None = None
    of1: float | None = None
    mA: float | None = None


class ViewEntry(_Part):
    """The overall scores under one reading of the labels."""

    rule: str
    objects: int
    note: str | None = None
    """Why the view is empty."""
    overall: Scores


class MetricsDocument(_Part):
    """The whole of metrics.json."""

    schema_version: Literal[1] = 1
    source: dict[str, str | None]
    """What was judged: model or scores file, split, data_fingerprint, protocol …"""
    objects: int
    images: int
    positive_at: float
    threshold: float
    tuned_on: str | None
    """A sentence: how the tuned thresholds were found."""
    view: View = "masked"
    overall: Scores
    intervals: dict[str, Interval | None]
    bootstrap: Bootstrap
    baselines: dict[Baseline, Scores | None]
    """What each guesser scores on the same keys, judged by the same code."""
    permutation_p: float | None
    """Share of shuffles of the scores between photographs of like size whose mAP reaches the model's, (k + 1) / (n +
    1).
    """
    category_from: str | None
    """Where the category rates come from."""
    frequency_from: str | None = None
    """A sentence: what head, medium and tail are counted on, and the cuts."""
    attributes: list[AttributeEntry]
    left_out: LeftOut
    groups: dict[Grouping, list[GroupEntry]]
    views: dict[View, ViewEntry]

    @field_validator("overall")
    @classmethod
    def _has_a_map(cls, overall: Scores) -> Scores:
        if "map" not in overall:
            raise ValueError("has no `map`, which is None where it does not exist")
        return overall


def write_metrics(document: MetricsDocument, path: Path) -> None:
    """Writes metrics.json, whole or not at all."""
    write_contract(document, path)


def read_metrics(path: Path) -> MetricsDocument:
    """Reads metrics.json.

    Raises:
        PredictionsError: naming file and field, if it cannot be read, is damaged, or of another version.
    """
    return read_contract(MetricsDocument, path, PredictionsError)
