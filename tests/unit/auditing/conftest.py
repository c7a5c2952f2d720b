from dataclasses import replace

import numpy as np
import pytest

from attrtrain.annotations.table import ObjectTable
from attrtrain.vocabulary import AttributeVocabulary


@pytest.fixture
def make_table():
    """Makes a table of objects that differ only in what a test is about."""

    def make(objects, names=("furry",), **columns) -> ObjectTable:
        plain = ObjectTable(
            vocabulary=AttributeVocabulary.from_names(names),
            object_id=np.arange(objects),
            image_id=np.arange(objects),
            image=np.array([f"{i}.jpg" for i in range(objects)], dtype=str),
            image_size=np.zeros((objects, 2), dtype=np.int64),
            box=np.tile([5.0, 5.0, 50.0, 40.0], (objects, 1)) + np.arange(objects)[:, None],
            category=np.array([""] * objects, dtype=str),
            split=np.array([""] * objects, dtype=str),
            crowd=np.zeros(objects, dtype=bool),
            labels=np.zeros((objects, len(names)), dtype=np.float32),
            unmatched=np.zeros(0, dtype=np.int64),
            sources=(),
        )
        return replace(plain, **{name: np.asarray(column) for name, column in columns.items()})

    return make
