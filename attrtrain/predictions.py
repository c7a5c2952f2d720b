"""What a model said of each object of a split, beside what is known of it: all that metrics and the report start
from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.errors import PredictionsError
from attrtrain.files import atomic_write
from attrtrain.wording import first_line, given_twice

PREDICTIONS = "predictions.npz"


@contextmanager
def errors_naming(path: Path, what: str) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read into a PredictionsError of one line that names the file.

    Args:
        path: the file.
        what: what is said of a file that can be opened, but not read as what it should be.
    """
    try:
        yield
    except OSError as error:
        raise PredictionsError(f"{path}: {error.strerror or error}") from None
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from None
    except (MemoryError, NameError):  # this machine's failure, or ours
        raise
    except Exception as error:  # noqa: BLE001  damaged files make NumPy and Arrow raise nearly anything
        raise PredictionsError(f"{path}: {what} ({first_line(error)})") from None


@dataclass(frozen=True)
class Predictions:
    """Predictions for N objects and A attributes.

    Attributes:
        names: (A) attribute names, in column order.
        object_id: (N,) int64, each once.
        image_id: (N,) int64; objects of one photograph share it.
        category: (N,) str, "" where unknown.
        logits: (N, A) float32, finite; 0 is a probability of one half.
        labels: (N, A) float32 vote shares in [0, 1], NaN = unknown.

    Raises:
        PredictionsError: columns differ in length, a logit is NaN or infinite (named by object and attribute), a label
            is no vote share, an object is there twice.
    """

    names: tuple[str, ...]
    object_id: NDArray[np.int64]
    image_id: NDArray[np.int64]
    category: NDArray[Any]
    logits: NDArray[np.float32]
    labels: NDArray[np.float32]

    def __post_init__(self) -> None:
        n, a = len(self.object_id), len(self.names)
        shapes = {"object_id": (n,), "image_id": (n,), "category": (n,), "logits": (n, a), "labels": (n, a)}
        for column, expected in shapes.items():
            if (actual := getattr(self, column).shape) != expected:
                raise PredictionsError(f"predictions: {column} has shape {actual}, expected {expected}")
        if repeated := given_twice(self.names):
            raise PredictionsError(f"predictions: attribute names given twice: {', '.join(repeated)}")
        ids, counts = np.unique(self.object_id, return_counts=True)
        if (counts > 1).any():
            raise PredictionsError(f"predictions: object {ids[counts > 1][0]} is there {counts.max()} times")
        self._require(np.isfinite(self.logits), "logits", "the model's output is not a number there")
        with np.errstate(invalid="ignore"):
            wrong = (self.labels < 0) | (self.labels > 1)
        self._require(~wrong, "labels", "a label is a vote share from 0 to 1, or NaN where unknown")

    def __len__(self) -> int:
        return len(self.object_id)

    def _require(self, right: NDArray[np.bool_], column: str, why: str) -> None:
        if not right.all():
            row, place = np.argwhere(~right)[0]
            raise PredictionsError(
                f"object {self.object_id[row]}, attribute '{self.names[place]}': {column} holds {getattr(self, column)[row, place]:g}; {why}"
            )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes predictions as one .npz, whole or not at all."""
    columns = {field.name: np.asarray(getattr(predictions, field.name)) for field in fields(predictions)}
    # Strings have a fixed width in NumPy; without any, a width of 0 could not be read back.
    columns["names"] = columns["names"].astype(str)
    columns["category"] = columns["category"].astype(str)
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, **columns)


def read_predictions(path: Path) -> Predictions:
    """Reads what `write_predictions` wrote; nothing in the file can run.

    Raises:
        PredictionsError: naming the file, if it cannot be read, is damaged, or is something else.
    """
    kinds = {"names": "U", "object_id": "iu", "image_id": "iu", "category": "U", "logits": "f", "labels": "f"}
    with errors_naming(path, "damaged, or not written by attrtrain"):
        with path.open("rb") as file:  # opened here, because np.load leaves the file of a damaged archive open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise PredictionsError("is one array, not the predictions of a run")
            if missing := [name for name in kinds if name not in archive]:
                raise PredictionsError(f"lacks {', '.join(missing)}; it is not the predictions of a run")
            columns = {name: archive[name] for name in kinds}
        if wrong := [name for name, kind in kinds.items() if columns[name].dtype.kind not in kind]:
            raise PredictionsError(f"{wrong[0]} is of type {columns[wrong[0]].dtype}")
        return Predictions(
            names=tuple(columns["names"].tolist()),
            object_id=columns["object_id"].astype(np.int64, copy=False),
            image_id=columns["image_id"].astype(np.int64, copy=False),
            category=columns["category"],
            logits=columns["logits"].astype(np.float32, copy=False),
            labels=columns["labels"].astype(np.float32, copy=False),
        )
