"""The quick audit of a split of shards, with which training begins."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from attrtrain.auditing.quick import QuickAudit, quick_audit
from attrtrain.data.reader import ShardSet


def audit_shards(shards: ShardSet, positive_at: float) -> QuickAudit:
    """Judges the labels of a split as a training reads them, where an attribute counts as present from a vote share on.

    Raises:
        ShardError: a sample cannot be read.
    """
    labels_of = partial(_decided, shards, positive_at)
    return quick_audit(labels_of, shards.categories, shards.column("image_id"), partial(_places, shards))


def _decided(shards: ShardSet, positive_at: float, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Labels (K, A) of some objects as 1 and 0 as this run reads them, NaN = unknown."""
    labels = shards.labels(rows)
    return np.where(np.isnan(labels), labels, labels >= positive_at).astype(np.float32)


def _places(shards: ShardSet, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Where objects lay: boxes (K, 4), and the sizes of their photographs (K, 2)."""
    details = [shards.details(int(row)) for row in rows]
    return np.array([entry["source_box"] for entry in details], dtype=np.float64).reshape(-1, 4), np.array(
        [entry["source_size"] for entry in details], dtype=np.int64
    ).reshape(-1, 2)
