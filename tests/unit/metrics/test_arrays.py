"""Files of anybody's as they are read."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("float32", "float32"), np.float32),
        (("float16", "float32"), np.float32),
        (("float32", "float64"), np.float64),
        (("float64", "float16"), np.float64),
        (("float32", "int32"), np.float64),
    ],
    ids=str,
)
def test_a_table_is_as_precise_as_its_most_precise_column(tmp_path, kinds, expected):
    rng = np.random.default_rng(0)
    columns = [(rng.normal(size=50) * 1e4).astype(kind) for kind in kinds]
    pq.write_table(pa.table({f"a{place}": column for place, column in enumerate(columns)}), tmp_path / "p.parquet")
    found = read_matrix(str(tmp_path / "p.parquet")).values
    assert found.dtype == expected
    np.testing.assert_array_equal(found, np.column_stack([column.astype(np.float64) for column in columns]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float16([[0.1, 3]]), np.float16),
        (np.float32([[0.1, 3]]), np.float32),
        (np.float64([[0.1, 3]]), np.float64),
        (np.array([[0.1, 3]], dtype=">f4"), np.float32),
        (np.array([[0.1, 3]], dtype=">f8"), np.float64),
        (np.longdouble([[0.1, 3]]), np.float64),
        (np.array([[True, False]]), np.float32),
        (np.uint8([[255, 0]]), np.float32),
        (np.int64([[-(2**24), 2**24]]), np.float32),
        (np.int64([[0, 2**24 + 1]]), np.float64),
        (np.int64([[-(2**24) - 1, 0]]), np.float64),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else value.__name__,
)
def test_an_array_keeps_its_numbers_in_the_order_of_this_machines_bytes(tmp_path, values, expected):
    np.save(tmp_path / "p.npy", values)
    found = read_matrix(str(tmp_path / "p.npy")).values
    assert found.dtype == expected and found.dtype.isnative
    np.testing.assert_array_equal(found.astype(np.float64), values.astype(np.float64))


@pytest.mark.parametrize(
    "values", [np.zeros((0, 3), dtype=np.int64), np.zeros((3, 0)), np.zeros(3), np.zeros((1, 2, 3))]
)
def test_what_is_no_matrix_is_told_by_its_shape(tmp_path, values):
    np.save(tmp_path / "p.npy", values)
    with pytest.raises(PredictionsError, match=rf"p\.npy: has shape {re.escape(str(values.shape))}; needs one row"):
        read_matrix(str(tmp_path / "p.npy"))


@pytest.mark.parametrize("line", ["furry,2,0.5", "1,2,furry", "1,0,2x", ",furry,1"])
def test_a_first_line_with_letters_in_it_is_names(tmp_path, line):
    (tmp_path / "p.csv").write_text(f"{line}\n" + ("0.25,0.5,1\n" if line[0] != "," else ",0.5,1\n"))
    found = read_matrix(str(tmp_path / "p.csv"))
    assert found.names == tuple(name for name in line.split(",") if name)
    assert found.values.tolist() == [[0.25, 0.5, 1] if line[0] != "," else [0.5, 1]]


def test_a_first_line_of_nothing_and_0_and_1_is_an_object_and_one_that_goes_on_with_2_is_names(tmp_path):
    (tmp_path / "g.csv").write_text(",0,1\n1,0,1\n")
    found = read_matrix(str(tmp_path / "g.csv"))
    assert found.names is None
    np.testing.assert_array_equal(found.values, [[np.nan, 0, 1], [1, 0, 1]])
    (tmp_path / "g.csv").write_text(",0,1,2\n0,1,0,1\n")
    with pytest.raises(PredictionsError, match=r"g\.csv: column 1 has no name"):
        read_matrix(str(tmp_path / "g.csv"))
