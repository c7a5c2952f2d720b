"""95 % intervals, and p-values of differences, from bootstrap replicates."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from attrtrain.metrics.bootstrap import Replicates
from attrtrain.metrics.document import Interval


def interval(
    replicates: NDArray[np.float64], score: float, images: int, least: float = 0.0, most: float = 1.0
) -> Interval | None:
    """The middle 95 % of the replicates (R,) in which a score is defined, shifted so that their mean is the score
    itself, and cut at `least` and `most`.

    The plain percentile interval (Efron, 1979) is off for average precision: a positive that is drawn twice stands
    beside itself in the ranking, which raises the precision there and so the mean of the replicates. Over many
    attributes the interval gets narrow and the shift does not; in simulations with 20 attributes it then held the
    expected mAP in 80 to 87 % of data sets for 91 to 95 % after shifting back.

    Of few photographs, replicates vary too little, and the tails are those of Student's t: `expansion` widens the
    interval for it.

    Args:
        replicates: (R,), NaN where the score is not defined.
        score: of the photographs as they are.
        images: how many photographs were drawn from.
        least, most: what the score may be.

    Returns:
        None with fewer than two defined replicates.
    """
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < 2 or not np.isfinite(score):
        return None
    low, high = np.clip(np.quantile(_spread(defined, score, images), [0.025, 0.975]), least, most)
    return float(low), float(high)


def expansion(images: int) -> float:
    """How much wider a 95 % percentile interval over so many photographs must be: sqrt(n / (n - 1)) t_(n-1) / z, at the
    97.5 % point (Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015, "expanded
    percentile interval"). 1.19 for 11 photographs, 1.02 for 100.
    """
    if images < 2:
        return 1.0
    student, normal = stdtrit(images - 1, 0.975), ndtri(0.975)
    return float(np.sqrt(images / (images - 1)) * student / normal)


def interval_of_ranking(replicates: NDArray[np.float64], score: float, images: int) -> Interval | None:
    """As `interval`, of average precision, AUROC or a mean of either, and None for a perfect ranking: whatever is drawn
    of it is perfect too, which says nothing of other objects.
    """
    return None if score == 1 else interval(replicates, score, images)


def overall_interval(key: str, drawn: Replicates, score: float) -> Interval | None:
    """The interval of an overall key; None for the two that have no replicates: ece, a sum of absolute gaps that
    drawing again only widens, and category_map, whose guesser is not drawn again; and for perfect rankings.
    """
    if key not in drawn.overall:
        return None
    if key in ("map", "auroc"):
        return interval_of_ranking(drawn.overall[key], score, drawn.images)
    return interval(drawn.overall[key], score, drawn.images, most=np.inf if key == "loss" else 1.0)


def _spread(replicates: NDArray[np.float64], score: float, images: int) -> NDArray[np.float64]:
    """The replicates (R,) about the score instead of about their mean, and as far from it as so many photographs ask
    for.
    """
    return np.asarray(score + expansion(images) * (replicates - replicates.mean()))


def two_sided_p(apart: NDArray[np.float64], difference: float, images: int) -> float | None:
    """How often a difference of two scores this far from 0 comes by chance.

    Args:
        apart: (R,) replicates of the difference, NaN where it is not defined.
        difference: of the photographs as they are.
        images: how many photographs were drawn from.

    Returns:
        Twice the share of the replicates, shifted and widened as those of `interval`, on the other side of 0,
        (k + 1) / (R + 1), at most 1; None with fewer than two defined replicates.
    """
    defined = apart[np.isfinite(apart)]
    if len(defined) < 2 or not np.isfinite(difference):
        return None
    defined = _spread(defined, difference, images)
    least = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (least + 1) / (len(defined) + 1)))
