"""Three readings of the same labels. Scores under different ones cannot be compared, so each is named wherever it is
shown.
"""

from dataclasses import replace

import numpy as np

from attrtrain.metrics.baselines import TrainingRates, category_guess
from attrtrain.metrics.decisions import GivenThresholds
from attrtrain.metrics.document import Scores, View, ViewEntry
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.measure import Measured, measure

EXHAUSTIVE_KNOWN = 175
"""Objects with more known attributes than this were labelled exhaustively (COCO Attributes asked for all 204 of
them).
"""

MASKED_RULE = "known cells only; positive is a vote share of at least {positive_at:g}"
EXHAUSTIVE_RULE = f"known cells of objects with more than {EXHAUSTIVE_KNOWN} known attributes; positive is a vote share of at least {{positive_at:g}}"
LEGACY_RULE = "every cell: positive is a vote share above 0, unknown is negative"


def other_views(
    cells: JudgedSet,
    positive_at: float,
    threshold: float,
    tuned: GivenThresholds | None,
    training: TrainingRates | None,
) -> dict[View, ViewEntry]:
    """The exhaustive and the legacy view of a masked set."""
    rows = np.flatnonzero(cells.known.counts_by_object > EXHAUSTIVE_KNOWN)
    exhaustive_rule = EXHAUSTIVE_RULE.format(positive_at=positive_at)
    if len(rows):
        exhaustive = view_entry(cells.take(rows), exhaustive_rule, threshold, tuned, training)
    else:
        note = f"no object has more than {EXHAUSTIVE_KNOWN} known attributes"
        exhaustive = ViewEntry(rule=exhaustive_rule, objects=0, note=note, overall={})
    return {"exhaustive": exhaustive, "legacy": view_entry(as_legacy(cells), LEGACY_RULE, threshold, tuned, None)}


def as_legacy(cells: JudgedSet) -> JudgedSet:
    """Every cell counts: a vote share above 0 is positive, and unknown is negative, as the original PyTorch baseline of
    COCO Attributes had it.
    """
    known = cells.known.with_unknown_as_negative()
    return replace(cells, known=known, known_scores=known.gather(cells.scores))


def view_entry(
    cells: JudgedSet, rule: str, threshold: float, tuned: GivenThresholds | None, training: TrainingRates | None
) -> ViewEntry:
    """Measures a view, with what guessing scores in it."""
    measured = measure(cells, threshold, tuned)
    guess = category_guess(cells, training)
    category_map = guess.mean_average_precision(measured.judged) if guess is not None else None
    return ViewEntry(rule=rule, objects=len(cells), overall=with_category(measured, category_map))


def with_category(measured: Measured, category_map: float | None) -> Scores:
    """Overall scores as JSON has them, the category's rate beside the other guessers."""
    scores = {key: none_if_nan(value) for key, value in measured.overall.items()}
    guesser = {"category_map": none_if_nan(category_map)}
    keys = list(scores)
    after = keys.index("permutation_map") + 1
    return {**{key: scores[key] for key in keys[:after]}, **guesser, **{key: scores[key] for key in keys[after:]}}


def none_if_nan(value: float | None) -> float | None:
    """JSON has no NaN."""
    return None if value is None or np.isnan(value) else float(value)
