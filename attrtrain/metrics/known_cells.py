"""The known cells of a matrix of labels, attribute by attribute, and nothing of the unknown ones: in COCO Attributes
nine tenths of all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from attrtrain.metrics.ranking import Falling

_COLUMNS_AT_A_TIME = 16  # of float32, a cache line of a matrix that lies row by row: each is read once
_ROWS_AT_A_TIME = 2048  # whose cache lines stay in the processor until all of their columns are written
_CELLS_AT_A_TIME = 2**20


@dataclass(frozen=True)
class KnownCells:
    """K known cells of N objects and A attributes, as compressed sparse columns: first all of attribute 0, objects
    rising, then those of attribute 1 …

    Attributes:
        objects: N.
        start: (A + 1) where each attribute's cells begin; K at the end.
        rows: (K,) int32, the object of each cell.
        shares: (K,) floating, the vote share of each cell.
        positive: (K,) whether it counts as positive.
    """

    objects: int
    start: NDArray[np.int64]
    rows: NDArray[np.int32]
    shares: NDArray[np.floating]
    positive: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: NDArray[np.floating], positive_at: float) -> "KnownCells":
        """Known cells of labels (N, A), vote shares with NaN = unknown; positive is a share of at least
        `positive_at`.
        """
        objects, attributes = labels.shape
        start = np.zeros(attributes + 1, dtype=np.int64)
        rows, shares = [np.zeros(0, np.int32)], [np.zeros(0, labels.dtype)]
        for first, block in _column_blocks(labels):
            flat = np.flatnonzero(~np.isnan(block))
            shares.append(block.reshape(-1)[flat])
            ends = np.searchsorted(flat, np.arange(len(block) + 1) * objects)
            start[first + 1 : first + 1 + len(block)] = start[first] + ends[1:]
            for place, (begin, end) in enumerate(pairwise(ends)):
                rows.append((flat[begin:end] - place * objects).astype(np.int32))
        joined = np.concatenate(shares)
        return cls(objects, start, np.concatenate(rows), joined, joined >= positive_at)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def attributes(self) -> int:
        """A."""
        return len(self.start) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """(A,) known cells of each attribute."""
        return np.diff(self.start)

    def of_attribute(self, attribute: int) -> slice:
        """Where the cells of an attribute are."""
        return slice(int(self.start[attribute]), int(self.start[attribute + 1]))

    def gather(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """(K,) what a matrix (N, A) holds in these cells."""
        values = np.empty(len(self), dtype=matrix.dtype)
        for attribute in range(self.attributes):
            cells = self.of_attribute(attribute)
            values[cells] = matrix[self.rows[cells], attribute]
        return values

    def falling(self, attribute: int, scores: NDArray[np.floating]) -> Falling:
        """The known objects of an attribute by falling score, of scores (K,)."""
        cells = self.of_attribute(attribute)
        return Falling.of(self.rows[cells], scores[cells], self.positive[cells])

    def count(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(A,) how many cells of each attribute are chosen (K,)."""
        parts = (chosen[self.of_attribute(attribute)] for attribute in range(self.attributes))
        return np.array([np.count_nonzero(part) for part in parts], dtype=np.int64)

    @cached_property
    def counts_by_object(self) -> NDArray[np.int64]:
        """(N,) known cells of each object."""
        return self.count_by_object(np.ones_like(self.positive))

    def count_by_object(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(N,) how many cells of each object are chosen (K,)."""
        counts = np.zeros(self.objects, dtype=np.int64)
        for begin in range(0, len(self), _CELLS_AT_A_TIME):
            part = slice(begin, begin + _CELLS_AT_A_TIME)
            counts += np.bincount(self.rows[part].compress(chosen[part]), minlength=self.objects)
        return counts

    def objects_with(self, attributes: NDArray[np.intp]) -> int:
        """How many objects have a known cell among some attributes."""
        there = np.zeros(self.objects, dtype=bool)
        for attribute in attributes:
            there[self.rows[self.of_attribute(attribute)]] = True
        return int(np.count_nonzero(there))

    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> "KnownCells":
        """The cells of some objects, rows rising, and some attributes."""
        taken = self._by_object[rows][:, columns].tocsc()
        return KnownCells(
            objects=len(rows),
            start=taken.indptr.astype(np.int64),
            rows=taken.indices.astype(np.int32),
            shares=self.shares[taken.data],
            positive=self.positive[taken.data],
        )

    @cached_property
    def _by_object(self) -> Any:
        """(N, A) sparse, row by row: where each known cell is. Made once, because `take` is asked for one category of
        objects after another.
        """
        places = np.arange(len(self))
        return csc_array((places, self.rows, self.start), shape=(self.objects, self.attributes)).tocsr()

    def with_unknown_as_negative(self) -> "KnownCells":
        """Every cell: unknown ones have a vote share of 0, and positive is a share above 0."""
        shares = np.zeros((self.attributes, self.objects), dtype=self.shares.dtype)
        for attribute, row in enumerate(shares):
            cells = self.of_attribute(attribute)
            row[self.rows[cells]] = self.shares[cells]
        return KnownCells(
            objects=self.objects,
            start=np.arange(self.attributes + 1, dtype=np.int64) * self.objects,
            rows=np.tile(np.arange(self.objects, dtype=np.int32), self.attributes),
            shares=shares.reshape(-1),
            positive=shares.reshape(-1) > 0,
        )


def _column_blocks(matrix: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """A few columns of a matrix (N, A) at a time: the number of the first, and (C, N) their values, which are there
    until the next are asked for.
    """
    objects, attributes = matrix.shape
    buffer = None
    for first in range(0, attributes, _COLUMNS_AT_A_TIME):
        block = matrix[:, first : first + _COLUMNS_AT_A_TIME].T
        if not block.flags.c_contiguous:
            if buffer is None:  # one for all: memory that is new to the process costs more than what is done with it
                buffer = np.empty(block.shape, dtype=matrix.dtype)
            turned = buffer[: len(block)]
            for top in range(0, objects, _ROWS_AT_A_TIME):
                turned[:, top : top + _ROWS_AT_A_TIME] = block[:, top : top + _ROWS_AT_A_TIME]
            block = turned
        yield first, block
