"""Scores made into yes and no: at a fixed threshold, at tuned ones, and the K highest of each object."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.keyed_random import mix64
from attrtrain.metrics.judged_set import JudgedSet
from attrtrain.metrics.ranking import Falling

TOP_K = 15
"""VAW's (Pham et al., "Learning to predict visual attributes in the wild", CVPR 2021, and its evaluator)."""
_ROWS_AT_A_TIME = 2048


@dataclass(frozen=True)
class GivenThresholds:
    """Thresholds that were tuned elsewhere.

    Attributes:
        values: (A,) on the scale of the scores, as `tune` returns them.
        tuned_on: a sentence that says where, such as "thresholds tuned on split 'train'".
        objects: those they were tuned on, for guessers to tune theirs on.
    """

    values: NDArray[np.floating]
    tuned_on: str
    objects: JudgedSet


@dataclass(frozen=True)
class Decisions:
    """What is predicted as present, each (K,) bool for the known cells of a judged set."""

    at_threshold: NDArray[np.bool_]
    tuned: NDArray[np.bool_]
    top_k: NDArray[np.bool_]

    @classmethod
    def of(
        cls, judged: JudgedSet, threshold: float, tuned: tuple[NDArray[np.floating], NDArray[np.floating]]
    ) -> "Decisions":
        """Decides by probability > threshold, by thresholds for the first and for the second half of the photographs,
        and by rank.
        """
        at_tuned = judged.above(tuned[0])
        if tuned[1] is not tuned[0]:
            half = second_half(judged.image_id)[judged.known.rows]
            np.copyto(at_tuned, judged.above(tuned[1]), where=half)
        return cls(judged.predicted(threshold), at_tuned, highest(judged, TOP_K))


def highest(judged: JudgedSet, k: int) -> NDArray[np.bool_]:
    """(K,) which known cells are among the k highest scores of their object, of all its attributes, known or not, as
    VAW's evaluator takes them.

    Equal scores at the last place are cut as `numpy.argpartition` cuts them. A probability of exactly 0 is never
    predicted. Where there are no more than k attributes, all are predicted.
    """
    known, scores = judged.known, judged.known_scores
    chosen = np.ones(len(known), dtype=bool) if judged.are_logits else scores > 0
    if k >= len(judged.names):
        return chosen
    lowest, tied, marks = _kth_highest(judged.scores, k)
    lowest[tied] = np.nan  # which no score reaches
    mark_of = np.zeros(len(judged), dtype=np.intp)
    mark_of[tied] = np.arange(len(tied))
    for attribute in range(known.attributes):
        cells = known.of_attribute(attribute)
        rows = known.rows[cells]
        least = lowest[rows]
        among = scores[cells] >= least
        cut = np.flatnonzero(np.isnan(least))
        among[cut] = marks[mark_of[rows[cut]], attribute]
        chosen[cells] &= among
    return chosen


def _kth_highest(
    scores: NDArray[np.floating], k: int
) -> tuple[NDArray[np.floating], NDArray[np.intp], NDArray[np.bool_]]:
    """(N,) the k-th highest score of each object (N, A), k < A; (T,) the objects where another score outside the k
    highest equals it; (T, A) what `argpartition` takes of those.
    """
    lowest = np.empty(len(scores), dtype=scores.dtype)
    tied, marks = [np.zeros(0, np.intp)], [np.zeros((0, scores.shape[1]), dtype=bool)]
    for start in range(0, len(scores), _ROWS_AT_A_TIME):
        part = np.ascontiguousarray(scores[start : start + _ROWS_AT_A_TIME])
        parted = np.partition(part, -k, axis=-1)
        last = parted[:, -k]
        lowest[start : start + len(part)] = last
        cut = np.flatnonzero(parted[:, :-k].max(axis=-1) == last)
        mark = np.zeros((len(cut), scores.shape[1]), dtype=bool)
        mark[np.arange(len(cut))[:, None], np.argpartition(part[cut], -k, axis=-1)[:, -k:]] = True
        tied.append(cut + start)
        marks.append(mark)
    return lowest, np.concatenate(tied), np.concatenate(marks)


def second_half(image_id: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) which half of the photographs an object's belongs to, by a hash of the photograph's id: the same whatever
    else is judged.
    """
    return (mix64(image_id) & np.uint64(1)).astype(bool)


def tune(judged: JudgedSet, default: float) -> NDArray[np.floating]:
    """(A,) the threshold of each attribute that maximises F1 on these objects, on the scale of the scores; `default`, a
    probability, where no positive is known.
    """
    attributes = (judged.falling(attribute) for attribute in range(len(judged.names)))
    found = [best_f1_threshold(falling.scores, falling.positive) for falling in attributes]
    other = judged.as_score(default)
    return np.array([other if one is None else one for one in found], dtype=judged.scores.dtype)


def cross_fitted(falling: Falling, half: NDArray[np.bool_], default: float) -> tuple[float, float]:
    """One attribute's threshold for the first half of the photographs, which is tuned on the second, and the other way
    round.

    Args:
        falling: the attribute's known objects.
        half: (N,) `second_half` of the objects' photographs.
        default: on the scale of the scores, where no positive is known.
    """
    in_second = half[falling.rows]
    found = []
    for used in (in_second, ~in_second):
        places = np.flatnonzero(used)
        best = best_f1_threshold(falling.scores[places], falling.positive[places])
        found.append(default if best is None else best)
    return found[0], found[1]


def best_f1_threshold(falling: NDArray[np.floating], positive: NDArray[np.bool_]) -> float | None:
    """The threshold t whose decisions `score > t` have the highest F1; of equals the highest. None without a positive.

    Args:
        falling: (n,) scores, the highest first.
        positive: (n,) in the same order.

    Returns:
        Half-way between the lowest score that is predicted and the next, so that it serves other objects as well as it
        can.
    """
    if not positive.any():
        return None
    last_of_ties = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    places = np.flatnonzero(positive)  # between two of them F1 only falls
    ends = last_of_ties[np.searchsorted(last_of_ties, places)]
    f1 = 2 * np.searchsorted(places, ends, side="right") / (ends + 1 + len(places))
    place = ends[int(np.argmax(f1))]
    lowest = falling[place]
    if place + 1 == len(falling):  # all are predicted
        with np.errstate(over="ignore"):  # below the lowest finite number is -infinity, which does as well
            return float(np.nextafter(lowest, np.asarray(-np.inf, falling.dtype)))
    following = falling[place + 1]
    middle = np.asarray((float(lowest) + float(following)) / 2, falling.dtype)
    return float(middle if following <= middle < lowest else following)
