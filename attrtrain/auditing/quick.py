"""The cheap part of the audit, with which training starts: one line, in about a second, whatever the size of the data
set.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attrtrain.auditing.description import describe, sample_photographs
from attrtrain.auditing.held_out import held_out_test
from attrtrain.auditing.noise_test import Evidence, Verdict, judge
from attrtrain.auditing.structure import co_occurrence_test
from attrtrain.contract import Contract

_OBJECTS = 600  # tested; drawn by photograph
_PERMUTATIONS = 199  # the least with which one of two tests can reach significance


class QuickAudit(Contract):
    """What the label file alone tells, from a sample of it. Fields as in `Judgement`; the name in a run directory is
    audit.json.
    """

    schema_version: Literal[1] = 1
    verdict: Verdict
    p_value: float
    effect: float
    decided_by: str
    reason: str
    open_question: str
    objects: int
    sampled_objects: int

    @property
    def line(self) -> str:
        """One line for a log."""
        p = f" (p = {self.p_value:.3g})" if self.decided_by else ""
        return f"audit: labels look {_WORDS[self.verdict]}: {self.reason}{p}"


_WORDS: dict[Verdict, str] = {"learnable": "learnable", "weak": "weak", "noise": "like NOISE"}


def quick_audit(
    labels_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    categories_of: Callable[[NDArray[np.int64]], Sequence[str]],
    image_ids: NDArray[np.int64],
    places_of: Callable[[NDArray[np.int64]], tuple[NDArray[np.float64], NDArray[np.int64]]] | None = None,
    seed: int = 0,
) -> QuickAudit:
    """Judges labels without looking at pixels.

    Args:
        labels_of: rows (K,) → vote shares (K, A), NaN = unknown. Only a sample is asked for, here as of categories and
            places.
        categories_of: rows → names (K), "" where unknown.
        image_ids: (N,) objects of one photograph share it.
        places_of: rows (K,) → box (K, 4) x, y, width, height and width, height of the photograph (K, 2), in pixels;
            None where nothing is known of them.
        seed: chooses sample, folds and shuffles.
    """
    rows = sample_photographs(np.asarray(image_ids), _OBJECTS, seed)
    if places_of is None:
        boxes, sizes = np.full((len(rows), 4), np.nan), np.zeros((len(rows), 2), dtype=np.int64)
    else:
        boxes, sizes = places_of(rows)
    description = describe(np.array(categories_of(rows), dtype=str), boxes, sizes)
    sample = np.asarray(labels_of(rows), dtype=np.float32)
    evidence = Evidence(
        attributes=sample.shape[1],
        co_occurrence=co_occurrence_test(sample, _PERMUTATIONS, seed),
        photographs=None,  # alone it decides nothing but which kind of `weak`; the reason allows for it
        side=held_out_test(description, sample, np.asarray(image_ids)[rows], _PERMUTATIONS, seed),
    )
    return QuickAudit(**asdict(judge(evidence)), objects=len(image_ids), sampled_objects=len(rows))
