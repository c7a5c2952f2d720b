"""Predictions of a run: read as they were written, and one clear line where they cannot be."""

import io
import pickle
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest

from attrtrain.errors import PredictionsError
from attrtrain.predictions import Predictions, read_predictions, write_predictions


def draw(n=5, a=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.float32([0, 0.5, 1, np.nan]), (n, a))
    return Predictions(
        names=tuple(f"attribute {i} ü" for i in range(a)),
        object_id=np.arange(n, dtype=np.int64) * 2**40,
        image_id=np.arange(n, dtype=np.int64) // 2,
        category=np.array((["dog", "", "traffic light"] * n)[:n], dtype=str),
        logits=rng.normal(size=(n, a)).astype(np.float32),
        labels=labels,
    )


@pytest.mark.parametrize(("n", "a"), [(5, 3), (1, 1), (0, 2)])
def test_what_was_written_is_read(tmp_path, n, a):
    written = draw(n, a)
    write_predictions(tmp_path / "p.npz", written)
    read = read_predictions(tmp_path / "p.npz")
    assert read.names == written.names
    for field in fields(written)[1:]:
        column, expected = getattr(read, field.name), getattr(written, field.name)
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_a_logit_that_is_no_number_names_object_and_attribute():
    predictions = draw()
    for value in (np.nan, np.inf):
        logits = predictions.logits.copy()
        logits[3, 1] = value
        with pytest.raises(PredictionsError, match=f"object {3 * 2**40}, attribute 'attribute 1 ü': logits holds"):
            replace(predictions, logits=logits)


def test_contradictions_are_refused():
    predictions = draw()
    labels = predictions.labels.copy()
    labels[2, 0] = -1
    for change, message in (
        ({"labels": labels}, "labels holds -1; a label is a vote share"),
        ({"object_id": np.zeros(5, np.int64)}, "object 0 is there 5 times"),
        ({"image_id": np.zeros(4, np.int64)}, r"image_id has shape \(4,\), expected \(5,\)"),
        ({"names": ("a", "b")}, r"logits has shape \(5, 3\), expected \(5, 2\)"),
        ({"names": ("a", "a", "b")}, "names given twice: a"),
    ):
        with pytest.raises(PredictionsError, match=message):
            replace(predictions, **change)


def _npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class _Trap:
    def __reduce__(self):
        return print, ("must not run",)


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "npy", "short", "pickle", "lacking", "objects", "type", "cut"]
)
def test_other_files_are_one_line_with_their_name_and_nothing_runs(tmp_path, capsys, kind):
    path = tmp_path / "p.npz"
    write_predictions(path, draw())
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    content = {
        "empty": b"", "text": b"hello", "npy": buffer.getvalue(), "short": whole[: len(whole) // 2], "pickle": pickle.dumps(_Trap()),
        "lacking": _npz(logits=np.zeros(3)), "objects": _npz(**{**arrays, "category": np.array([_Trap()] * 5, dtype=object)}),
        "type": _npz(**{**arrays, "logits": arrays["logits"].astype(str)}),
    }  # fmt: skip
    path.unlink()
    if kind == "cut":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("names.npy", b"\x93NUMPY")
    elif kind != "missing":
        path.write_bytes(content[kind])
    with pytest.raises(PredictionsError, match=r"p\.npz: ") as caught:
        read_predictions(path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
