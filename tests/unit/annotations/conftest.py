import numpy as np
import pytest

from attrtrain.annotations.table import ObjectTable
from attrtrain.vocabulary import AttributeVocabulary


@pytest.fixture
def make_table():
    """Makes a table of objects that differ only in what a test is about."""

    def make(image_id, labels=None, split=None) -> ObjectTable:
        n = len(image_id)
        labels = np.zeros((n, 1), dtype=np.float32) if labels is None else np.asarray(labels, dtype=np.float32)
        return ObjectTable(
            vocabulary=AttributeVocabulary.from_names(f"attribute {i}" for i in range(labels.shape[1])),
            object_id=np.arange(n),
            image_id=np.asarray(image_id, dtype=np.int64),
            image=np.array([f"{i}.jpg" for i in image_id], dtype=str),
            image_size=np.zeros((n, 2), dtype=np.int64),
            box=np.ones((n, 4)),
            category=np.array([""] * n, dtype=str),
            split=np.array([""] * n if split is None else split, dtype=str),
            crowd=np.zeros(n, dtype=bool),
            labels=labels,
            unmatched=np.zeros(0, dtype=np.int64),
            sources=(),
        )

    return make
