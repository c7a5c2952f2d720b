"""Files of anybody's as they are read."""

import json
import re

import numpy as np
import pytest

from attrtrain.errors import PredictionsError
from attrtrain.metrics.arrays import read_column, read_matrix, read_names


def test_what_windows_puts_before_the_first_letter_of_a_file_is_no_part_of_it(tmp_path):
    names = ["café", "dog"]
    contents = {"a.txt": "café\ndog\n", "a.json": json.dumps(names), "a.csv": "café,dog\n0.5,1\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert read_column(tmp_path / "a.txt").tolist() == read_column(tmp_path / "a.json").tolist() == names
    assert read_names(tmp_path / "a.json") == read_matrix(str(tmp_path / "a.csv")).names == tuple(names)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.arange(4.0), "float64 of shape (4,)"),
        (np.arange(4)[:, None], "int64 of shape (4, 1)"),
        (np.array(4), "int64 of shape ()"),
        (np.array(["a"], dtype="S1"), "|S1 of shape (1,)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_column_that_is_not_one_name_or_whole_number_an_object_is_refused(tmp_path, values, told):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(PredictionsError, match=rf"a\.npy: holds {re.escape(told)}, not one name or whole number"):
        read_column(tmp_path / "a.npy")


@pytest.mark.parametrize("values", [np.array(["b", "a"]), np.array([2, 0], dtype=np.uint8), np.array([True, False])])
def test_a_column_of_names_or_whole_numbers_is_read_as_it_is(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    found = read_column(tmp_path / "a.npy")
    assert found.dtype == values.dtype and found.tolist() == values.tolist()


@pytest.mark.parametrize(
    "content", ['["a", 1]', '["a", null]', '{"a": 0, "b": 2}', '{"a": 0, "b": 0}', '{"a": "0"}', '"a"', "3"]
)
def test_names_that_are_neither_a_list_nor_columns_are_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(PredictionsError, match=r"a\.json: is neither a list of attribute names nor an object of name"):
        read_names(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["p.npy", "p.csv", "p.npz"])
def test_a_colon_in_a_path_is_no_name_of_an_array(tmp_path, name):
    folder, values = tmp_path / "run:3", np.float64([[0.25, 0.5], [1, 0]])
    folder.mkdir()
    for place in (folder / name, folder / f"of:1 {name}"):
        match place.suffix:
            case ".npy":
                np.save(place, values)
            case ".csv":
                np.savetxt(place, values, delimiter=",")
            case _:
                np.savez(place, other=1 - values, scores=values)
        of_several = f"{place}:scores" if place.suffix == ".npz" else str(place)
        np.testing.assert_array_equal(read_matrix(of_several).values, values)
