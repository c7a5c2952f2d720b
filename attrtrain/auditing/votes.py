"""Are the labels what they are taken for: shares of votes, 0 to 1, or decisions, 0 and 1?"""

import numpy as np
from numpy.typing import NDArray

from attrtrain.auditing.document import Votes

_MOST_VOTERS = 12
_SHOWN = 24
_TOO_MANY = 60  # distinct shares of up to 12 voters: 47


def describe_votes(labels: NDArray[np.float32]) -> Votes:
    """Looks at the known values (N, A) as numbers."""
    values, counts = _distinct(labels[~np.isnan(labels)])
    if len(values) == 0:
        return Votes(values=[], distinct=0, kind="none", at_half=0.0)
    common = np.sort(values[np.argsort(-counts, kind="stable")[:_SHOWN]])
    if len(values) > _TOO_MANY:  # asked first: comparing each of millions of scores with each share takes gigabytes
        kind = "scores"
    elif np.isin(values, (0, 1)).all():
        kind = "decisions"
    else:
        kind = "scores" if counts[~_is_share(values)].sum() / counts.sum() > 0.01 else "vote shares"
    return Votes(
        values=[round(float(value), 6) for value in common],
        distinct=len(values),
        kind=kind,  # type: ignore[arg-type]  # one of its literals
        at_half=float(counts[values == 0.5].sum() / counts.sum()),
    )


def _distinct(known: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The distinct ones (D,) of values (K,) without NaN, in rising order, and how often each is there (D,)."""
    known.sort()  # in place: np.unique would sort a copy
    edge = np.ones(len(known) + 1, dtype=bool)
    np.not_equal(known[1:], known[:-1], out=edge[1:-1])
    edges = np.flatnonzero(edge)
    return known[edges[:-1]], np.diff(edges)


def _is_share(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each value is k of n votes for some n up to _MOST_VOTERS, written with at least two digits."""
    shares = np.unique([k / n for n in range(1, _MOST_VOTERS + 1) for k in range(n + 1)])
    return np.asarray(np.abs(values[:, None].astype(np.float64) - shares).min(axis=1) <= 0.0051)


def attribute_notes(labels: NDArray[np.float32]) -> list[list[str]]:
    """What is odd about each attribute (N, A), in words."""
    known = ~np.isnan(labels)
    positives = (labels >= 0.5).sum(axis=0)
    total = known.sum(axis=0)
    highest = np.where(known, labels, -np.inf).max(axis=0, initial=-np.inf)
    lowest = np.where(known, labels, np.inf).min(axis=0, initial=np.inf)
    notes: list[list[str]] = []
    for column in range(labels.shape[1]):
        match (int(total[column]), int(positives[column])):
            case (0, _):
                notes.append(["always unknown"])
            case (_, 0) if highest[column] > 0:
                notes.append([f"never positive: no vote share reaches 0.5, the highest is {highest[column]:.3g}"])
            case (_, 0):
                notes.append(["never positive: always 0"])
            case (all_known, positive) if positive == all_known:
                notes.append([f"never negative: no vote share is below {lowest[column]:.3g}"])
            case _:
                notes.append([])
    return notes
