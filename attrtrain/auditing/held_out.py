"""Can a linear model tell the labels of objects it has not seen, better than labels shuffled between objects?

One procedure for every kind of description of an object: category and box, or features of its pixels. Ridge regression
is fitted on four fifths of the photographs and judged on the fifth, in turn, and its AUROC is compared with that of the
same procedure on shuffled labels.

Photographs, not objects, are dealt out to folds, and photographs, not objects, are shuffled: objects of one photograph
are alike, and would make a model look able that only knows the photograph again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attrtrain.auditing.permutation import ALPHA, PermutationTest, permutation_p
from attrtrain.keyed_random import mix64
from attrtrain.metrics.exchange import shuffle_photographs

FOLDS = 5
MIN_CASES = 5
"""Known positives, and known negatives, below which an attribute is not judged: its AUROC would be little but luck."""
PLANTED_AUROC, PLANTED_SETS = 0.65, 20
# In logits a standard deviation: the AUROC of unit normals that far apart is Phi(0.545 / sqrt 2) = 0.65.
_PLANTED_SLOPE = 0.545
_FOLD = 102  # a word in front of the key: the splits and samples that are dealt into folds were drawn by the same ids
_RIDGE = 10.0  # added to each standardised feature's sum of squares, as if ten more objects said "no relation"


@dataclass(frozen=True)
class HeldOut(PermutationTest):
    """What held-out prediction found; `effect` is the mean AUROC of the judged attributes above 0.5.

    Attributes:
        auroc: (A,) float64 AUROC of each attribute on objects that were not fitted, NaN where it is not judged.
        attribute_p: (A,) float64 p-value of each attribute, adjusted for looking at all of them (Westfall & Young's
            single-step max-T), NaN where it is not judged.
        power: share of PLANTED_SETS data sets in which a signal was found that was planted there. Like this one they
            are in features, photographs, unknown cells and rates, but each label follows a random direction of the
            features; who knew that direction would reach an AUROC of PLANTED_AUROC.
    """

    auroc: NDArray[np.float64]
    attribute_p: NDArray[np.float64]
    power: float

    @property
    def above_chance(self) -> int:
        """Attributes whose adjusted p-value is at most 0.05."""
        return int((self.attribute_p <= 0.05).sum())


def held_out_test(
    features: NDArray[np.float64],
    labels: NDArray[np.float32],
    image_id: NDArray[np.int64],
    permutations: int,
    seed: int = 0,
) -> HeldOut | None:
    """Tests whether features tell labels.

    Args:
        features: (N, D) descriptions of the objects, in any units.
        labels: (N, A) vote shares, NaN = unknown; a share of at least 0.5 is positive.
        image_id: (N,) objects of one photograph share it.
        permutations: shuffled data sets to compare with; the smallest p-value is 1 / (permutations + 1).
        seed: chooses folds and shuffles.

    Returns:
        None where there is nothing to test: no attribute has MIN_CASES known positives and negatives, or no feature
            varies.
    """
    positive = labels >= 0.5
    known = ~np.isnan(labels)
    judged = (positive.sum(axis=0) >= MIN_CASES) & ((known & ~positive).sum(axis=0) >= MIN_CASES)  # (A,)
    if not judged.any() or (features := standardised(features)).shape[1] == 0:
        return None
    positive, known = positive[:, judged], known[:, judged]
    fold, photograph = _folds(image_id, seed)
    order = np.lexsort((photograph, fold))  # folds, and the photographs in them, one after the other
    positive, known, photograph = positive[order], known[order], photograph[order]
    features = features[order]
    ridge = _CrossValidated(features, np.bincount(fold[order]))
    observed = ridge.auroc(positive, known)
    rng = np.random.default_rng(seed)
    shuffled = np.empty((permutations, len(observed)))
    for number in range(permutations):
        rows = shuffle_photographs(photograph, rng)
        shuffled[number] = ridge.auroc(positive[rows], known[rows])
    null = shuffled.mean(axis=1) - 0.5
    needed = np.quantile(null, 1 - ALPHA / 3)  # where three tests share one level
    planted = [_plant(features, positive, known, rng) for _ in range(PLANTED_SETS)]
    found = [ridge.auroc(labels, known).mean() - 0.5 > needed for labels in planted]
    return HeldOut(
        effect=float(observed.mean() - 0.5),
        p_value=permutation_p(float(observed.mean() - 0.5), null),
        null=null,
        auroc=_among_all(observed, judged),
        attribute_p=_among_all(_max_t(observed, shuffled), judged),
        power=float(np.mean(found)),
    )


def standardised(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of zero mean and unit variance; those that do not vary are left out."""
    centred = features - features.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    varies = spread > 1e-9 * (1 + np.abs(features).max(axis=0, initial=0))
    return np.asarray(centred[:, varies] / spread[varies])


def _plant(
    features: NDArray[np.float64], positive: NDArray[np.bool_], known: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Labels (N, A), false where unknown, with the rates of `positive` that follow a random direction of the features
    for each attribute.
    """
    drive = features @ rng.normal(size=(features.shape[1], positive.shape[1]))
    drive /= np.maximum(drive.std(axis=0), 1e-9)
    rate = positive.sum(axis=0) / known.sum(axis=0)
    chance = 1 / (1 + (1 - rate) / rate * np.exp(-_PLANTED_SLOPE * drive))
    return np.asarray(known & (rng.random(known.shape) < chance))


def _folds(image_id: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The fold (N,) of each object and its photograph's number (N,); objects of a lone photograph count as one each."""
    photographs, number = np.unique(image_id, return_inverse=True)
    if len(photographs) == 1:
        photographs = number = np.arange(len(image_id))
    drawn = np.argsort(mix64(_FOLD, seed, photographs), kind="stable")
    objects = np.bincount(number)[drawn]
    # Cut the drawn order of photographs at a fifth, two fifths, … of the objects; a photograph lies where its middle
    # does. Middles of the first and the last are at least half of all objects apart, so they are in two folds.
    folds = min(FOLDS, len(photographs))
    twice_middle = 2 * np.cumsum(objects) - objects
    fold_of_photograph = np.empty(len(photographs), dtype=np.int64)
    fold_of_photograph[drawn] = twice_middle * folds // (2 * max(len(image_id), 1))
    return fold_of_photograph[number], number


class _CrossValidated:
    """Ridge regression in folds. The objects of a fold are adjacent rows; what depends on the features is computed
    once.
    """

    def __init__(self, features: NDArray[np.float64], sizes: NDArray[np.int64]) -> None:
        ends = np.cumsum(sizes)
        self._blocks = [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True) if size]
        self._features = features.astype(np.float32)
        gram = features.T @ features
        identity = _RIDGE * np.eye(features.shape[1])
        self._inverses = [
            np.linalg.inv(gram - features[block].T @ features[block] + identity).astype(np.float32)
            for block in self._blocks
        ]

    def auroc(self, positive: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """AUROC (A,) of labels (N, A) by models that were fitted on the other folds.

        Only objects of one fold are compared with each other: models of different folds lie at different heights, each
        a little low where its own fold lies high, which would push chance below 0.5.
        """
        rate = positive.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        residual = np.where(known, positive - rate, 0).astype(np.float32)  # (N, A), unknown says nothing
        moments = [self._features[block].T @ residual[block] for block in self._blocks]  # each (D, A)
        total = np.sum(moments, axis=0)
        wins = np.zeros(positive.shape[1])
        pairs = np.zeros(positive.shape[1])
        for block, inverse, own in zip(self._blocks, self._inverses, moments, strict=True):
            scores = self._features[block] @ (inverse @ (total - own))  # (n, A)
            fold_wins, fold_pairs = pairs_won(scores, positive[block], known[block])
            wins += fold_wins
            pairs += fold_pairs
        return np.asarray(np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5))


def pairs_won(
    scores: NDArray[np.float32], positive: NDArray[np.bool_], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each attribute, pairs of a known positive and a known negative in which the positive scores higher (a tie is
    half a pair), and all such pairs; their ratio is the AUROC (Mann & Whitney, 1947).

    Args:
        scores: (n, A) without NaN.
        positive: (n, A).
        known: (n, A), true wherever `positive` is.

    Returns:
        (A,) and (A,).
    """
    columns = np.where(known, scores, np.float32(np.inf)).T.copy()  # (A, n); unknown cells end up behind all others
    order = np.argsort(columns, axis=1)
    columns = np.take_along_axis(columns, order, axis=1)
    rank: NDArray[np.float64] = np.arange(1.0, columns.shape[1] + 1)[None]
    same = columns[:, 1:] == columns[:, :-1]
    if (same & (columns[:, 1:] < np.inf)).any():
        rank = _mean_ranks(same)
    hit = np.take_along_axis(positive.T, order, axis=1)
    positives = positive.sum(axis=0).astype(np.float64)
    negatives = known.sum(axis=0) - positives
    return (rank * hit).sum(axis=1) - positives * (positives + 1) / 2, positives * negatives


def _mean_ranks(same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ranks (A, n) from 1 of sorted values of which some, `same` (A, n - 1), equal the one before; equal values share
    their mean rank.
    """
    edge = np.ones((len(same), 1), dtype=bool)
    place = np.arange(same.shape[1] + 1, dtype=np.int32)
    first = np.maximum.accumulate(np.where(np.hstack([edge, ~same]), place, 0), axis=1)
    last = np.minimum.accumulate(np.where(np.hstack([~same, edge]), place, len(place))[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(1 + (first + last) / 2)


def _max_t(observed: NDArray[np.float64], shuffled: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values (A,) adjusted for the number of attributes: how often does the best of all shuffled ones stand out as
    far?

    Each attribute is measured in its own null's standard deviations, so a rare one, whose AUROC strays further, hides
    none of the others (Westfall & Young, "Resampling-based multiple testing", 1993, chapter 2).
    """
    spread = np.maximum(shuffled.std(axis=0), 1e-9)
    best = ((shuffled - 0.5) / spread).max(axis=1)  # (permutations,)
    mine = (observed - 0.5) / spread
    return np.asarray((1 + (best[:, None] >= mine).sum(axis=0)) / (1 + len(best)))


def _among_all(values: NDArray[np.float64], judged: NDArray[np.bool_]) -> NDArray[np.float64]:
    full = np.full(len(judged), np.nan)
    full[judged] = values
    return full
