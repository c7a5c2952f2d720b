import json
import math
import tracemalloc

import numpy as np
import pytest

from attrtrain.annotations import read_labels
from attrtrain.annotations.tabular import read_boxes, read_table
from attrtrain.errors import LabelError

NAN = float("nan")


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, name="boxes.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path)

    return write_and_read


@pytest.fixture
def refused(read):
    """Reads a file that must be refused with one line, which is returned without the folder."""

    def refuse(content, name="boxes.csv") -> str:
        with pytest.raises(LabelError) as caught:
            read(content, name)
        message = str(caught.value)
        assert "\n" not in message and f"{name}: " in message
        return message.split(f"{name}: ", 1)[1]

    return refuse


CSV = """file_name,split,x,y,w,h,category,object_id,image_id,furry,running
b.jpg,train,1,2.5,30,40,dog,70,9,1,-1
sub/a.jpg,val,0,0,5,6,,3,4,0.25,
b.jpg,train,7,8,9,10,cat,71,9,nan,0
"""


def assert_is_csv(table):
    assert table.vocabulary.names == ("furry", "running")
    assert table.object_id.tolist() == [70, 3, 71] and table.image_id.tolist() == [9, 4, 9]
    assert table.image.tolist() == ["b.jpg", "sub/a.jpg", "b.jpg"]
    assert table.split.tolist() == ["train", "val", "train"] and table.category.tolist() == ["dog", "", "cat"]
    assert table.box.tolist() == [[1, 2.5, 30, 40], [0, 0, 5, 6], [7, 8, 9, 10]]
    np.testing.assert_array_equal(table.labels, np.array([[1, NAN], [0.25, NAN], [NAN, 0]], dtype=np.float32))
    assert not table.crowd.any() and not table.image_size.any() and len(table.unmatched) == 0


def json_lines() -> str:
    names, *rows = [line.split(",") for line in CSV.splitlines()]
    numbers = {"x", "y", "w", "h", "object_id", "image_id", "furry", "running"}
    records = [
        {name: (None if cell in ("", "nan") else float(cell) if "." in cell else int(cell)) if name in numbers else cell for name, cell in zip(names, row, strict=True)}
        for row in rows
    ]  # fmt: skip
    return "\n".join(map(json.dumps, records))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV), ("a.CSV", CSV), ("a.csv", "\ufeff" + CSV), ("a.csv", CSV.replace("\n", "\r\n")), ("a.csv", CSV.rstrip()),
        ("a.csv", CSV.replace("\n", "\n\n")), ("a.csv", CSV.replace("file_name,", " file_name ,")), ("a.tsv", CSV.replace(",", "\t")),
        ("a.TSV", CSV.replace(",", "\t")), ("a.jsonl", json_lines()), ("a.JSONL", json_lines() + "\n\n"), ("a.jsonl", "\ufeff" + json_lines()),
    ],
)  # fmt: skip
def test_the_same_table_in_every_spelling(read, name, content):
    assert_is_csv(read(content, name))


@pytest.mark.parametrize(
    ("names", "cells"),
    [
        ("x,y,w,h", "10,20,30,40"),
        ("x,y,width,height", "10,20,30,40"),
        ("x1,y1,x2,y2", "10,20,40,60"),
        ("ymax,xmin,ymin,xmax", "60,10,20,40"),
    ],
)
def test_boxes_by_column_names(read, names, cells):
    table = read(f"image,{names},furry\na.jpg,{cells},1\n")
    assert table.box.tolist() == [[10, 20, 30, 40]] and table.vocabulary.names == ("furry",)


def test_bbox_list(read):
    lines = [
        {"path": "a", "bbox": [1, 2.5, 3, 4], "furry": 1},
        {"path": "a", "bbox": None, "furry": 1},
        {"path": "a", "furry": 1},
    ]
    table = read("\n".join(map(json.dumps, lines)), "a.jsonl")
    np.testing.assert_array_equal(table.box, [[1, 2.5, 3, 4], [NAN] * 4, [NAN] * 4])


def test_an_empty_box_is_kept_for_the_writer_to_count(read):
    np.testing.assert_array_equal(read("image,x,y,w,h,furry\na,,2,3,nan,1\n").box, [[NAN, 2, 3, NAN]])


def test_without_optional_columns(read):
    table = read("path,x,y,w,h,furry\nb,0,0,1,1,1\na,0,0,1,1,1\nb,0,0,1,1,0\n")
    assert table.object_id.tolist() == [0, 1, 2]
    assert table.image_id[0] == table.image_id[2] != table.image_id[1]
    assert set(table.split) == set(table.category) == {""}


@pytest.mark.parametrize(
    ("cell", "label"),
    [("1", 1), ("0", 0), ("0.75", 0.75), (" 1 ", 1), ("True", 1), ("false", 0), ("", NAN), ("-1", NAN), ("-1.0", NAN), ("NaN", NAN), ("None", NAN), ("null", NAN), ("NA", NAN), ("N/A", NAN), ("#N/A", NAN), ("<NA>", NAN)],
)  # fmt: skip
def test_labels(read, cell, label):
    np.testing.assert_array_equal(read(f"image,x,y,w,h,furry\na,0,0,1,1,{cell}\n").labels, [[label]])


@pytest.mark.parametrize("cell", ["", " ", "nan", "NA", "#N/A"])
def test_a_box_with_nothing_in_a_cell_is_no_number(read, cell):  # so that its object is counted and left out
    np.testing.assert_array_equal(read(f"image,x,y,w,h,furry\na,1,2,{cell},4,1\n").box, [[1, 2, NAN, 4]])


def test_json_labels(read):
    lines = [{"image": "a", "bbox": [0, 0, 1, 1], "furry": value} for value in (True, False, None, -1, 0.5)] + [
        {"image": "a", "bbox": [0, 0, 1, 1], "running": 1}
    ]
    table = read("\n".join(map(json.dumps, lines)), "a.jsonl")
    assert table.vocabulary.names == ("furry", "running")
    np.testing.assert_array_equal(table.labels[:, 0], [1, 0, NAN, NAN, 0.5, NAN])
    np.testing.assert_array_equal(table.labels[:, 1], [NAN] * 5 + [1])


@pytest.mark.parametrize("cell", ["2", "-0.5", "1.01", "inf", "-inf", "-2"])
def test_values_out_of_range_name_line_and_column(refused, cell):
    message = refused(f"image,x,y,w,h,furry,running\na,0,0,1,1,1,1\nb,0,0,1,1,1,{cell}\n")
    assert message.startswith(f"line 3: column 'running' holds {cell}; a label is 0 to 1")


def test_values_that_are_no_labels_name_line_and_column(refused):
    message = refused("image,x,y,w,h,colour\n\na,0,0,1,1,red\n")
    assert message.startswith("line 3: column 'colour' holds 'red', not a label") and message.endswith(
        "if the column is no attribute, drop it, or name it as what it is (split, category, object_id, image_id)"
    )
    assert refused('{"image": "a", "bbox": [0, 0, 1, 1], "tags": [1]}', "a.jsonl").startswith(
        "line 1: column 'tags' holds '[1]'"
    )


@pytest.mark.parametrize("cells", ["0,0,1,wide", "0,0,1,1 2", "0,0,1,6_0"])
def test_box_that_is_no_number(refused, cells):
    assert refused(f"image,x,y,w,h,furry\na,{cells},1\n").startswith("line 2: the box [")


@pytest.mark.parametrize(
    "box", ["1234", "[1, 2, 3, 4]", [1, 2, 3], [1, 2, 3, 4, 5], {"x": 1}, 7, [[1, 2], [3, 4], 5, 6]]
)
def test_bbox_that_is_no_list_of_four(refused, box):
    message = refused(json.dumps({"image": "a", "bbox": box, "furry": 1}), "a.jsonl")
    assert message.startswith("line 1: ")
    assert "is not four numbers" in message or "not a list [x, y, w, h]" in message


def test_bbox_column_in_csv(refused):
    assert "CSV needs columns x,y,w,h" in refused('image,bbox,furry\na,"[1, 2, 3, 4]",1\n')


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["a,0,0,9,9,1,dog", 'b,0,0,9,9,1,"dog', "c,0,0,9,9,1,dog", 'd,0,0,9,9,1,"dog', "e,0,0,9,9,1,dog"], 3),
        (["a,0,0,9,9,1,dog", "b,0,0,9,9,1,dog", 'c,0,0,9,9,1,"dog', "d,0,0,9,9,1,dog"], 4),
        (['a,0,0,9,9,1,"dog" x'], 2),
    ],
)
def test_a_stray_quote_swallows_no_rows(refused, rows, line):
    message = refused("\n".join(["image,x,y,w,h,furry,category", *rows, ""]))
    assert message.startswith(f"line {line}: cannot be read as CSV (") and "each quote of its own doubled" in message


def test_a_header_and_a_huge_cell_that_cannot_be_read_name_their_line(refused):
    assert refused('"image" ,x,y,w,h,furry\n').startswith("line 1: cannot be read as CSV (")
    message = refused(f"image,x,y,w,h,furry,category\na,0,0,9,9,1,{'x' * 140_000}\n")
    assert message.startswith("line 2: cannot be read as CSV (field larger") and "quote" not in message


def test_quotes_that_are_meant_are_read(read):
    table = read('image,x,y,w,h,furry,category\na,0,0,9,9,1,"a ""big"", old\ndog"\nb,0,0,9,9,1,5" dog\n')
    assert table.category.tolist() == ['a "big", old\ndog', '5" dog']


def test_keys_that_are_one_name_are_refused(refused):
    for key in ("furry", " furry "):
        text = f'{{"image": "a", "bbox": [0, 0, 9, 9], "furry": 1, "{key}": 0}}'
        assert refused(text, "a.jsonl").startswith("line 1: keys given twice: furry;")


def test_nothing_in_a_text_column_of_json_is_no_text(read):
    records = [
        {"image": "a", "bbox": [0, 0, 9, 9], "furry": 1, "split": split, "category": split}
        for split in ("val", math.nan, None)
    ]
    table = read("\n".join(map(json.dumps, records)), "a.jsonl")  # NaN as pandas' records have it
    assert table.split.tolist() == table.category.tolist() == ["val", "", ""]


def test_slashes_that_double_name_the_same_photograph(read):
    table = read("image,x,y,w,h,furry\n//srv/a.jpg,0,0,9,9,1\n/srv//a.jpg,0,0,9,9,0\n/srv/./a.jpg,0,0,9,9,0\n")
    assert table.image.tolist() == ["/srv/a.jpg"] * 3 and len(set(table.image_id.tolist())) == 1


@pytest.mark.parametrize("in_pixels", [1, 2])
def test_one_box_in_a_hundred_may_be_in_pixels_among_shares(refused, read, in_pixels):
    rows = ["a,0.1,0.2,0.5,0.6,1"] * (100 - in_pixels) + ["b,10,20,30,40,0"] * in_pixels
    text = "\n".join(["image,x,y,w,h,furry", *rows])
    if in_pixels == 1:
        assert refused(text).startswith("the boxes lie between 0 and 1")
    else:
        assert len(read(text)) == 100


def test_boxes_in_shares_of_the_picture_are_refused(refused, read):
    message = refused("image,xmin,ymin,xmax,ymax,furry\na,0.1,0.2,0.5,1,1\nb,0,0,1,1,0\nc,,,,,1\n")
    assert message.startswith("the boxes lie between 0 and 1: these are shares of the picture")
    rounded = "".join(f"a,{x / 300:.6f},0.1,{1.000001 - x / 300:.6f},0.5,1\n" for x in range(200))
    assert refused(f"image,x,y,w,h,furry\n{rounded}b,-0.000001,0,1,1,1\n").startswith("the boxes lie between 0 and 1")
    assert refused("image,x,y,w,h,furry\na,-0.005,-0.005,0.5,1,1\n").startswith("the boxes lie between 0 and 1")
    assert len(read("image,x,y,w,h,furry\na,0,0,1,1,1\nb,0.5,0.5,30,1,0\n")) == 2


@pytest.mark.parametrize(("row", "cells"), [("a,0,0,1,1", "5 cells"), ("a,0,0,1,1,1,1", "7 cells"), ("a", "1 cell")])
def test_ragged_lines(refused, row, cells):
    assert refused(f"image,x,y,w,h,furry\na,0,0,1,1,1\n{row}\n") == f"line 3: {cells} under 6 column names"


def test_duplicated_column_names(refused):
    assert refused("image,x,y,w,h,furry, furry \na,0,0,1,1,0,1\n").startswith("column names given twice: furry;")


@pytest.mark.parametrize(("column", "meant"), [("Category", "category"), ("Object_ID", "object_id"), ("Y", "y")])
def test_a_column_that_is_no_attribute_is_not_made_one_by_its_capitals(refused, column, meant):
    assert refused(f"image,x,y,w,h,furry,{column}\na,0,0,1,1,0,1\nb,0,0,1,1,1,0\n") == (
        f"column '{column}': write '{meant}' if it says that, or another name if it is an attribute"
    )


def test_the_separator_that_excel_is_told_is_no_header(read):
    assert_is_csv(read("sep=,\n" + CSV))
    assert_is_csv(read("\ufeffsep=,\r\n" + CSV.replace("\n", "\r\n")))
    assert_is_csv(read("sep=\t\n" + CSV.replace(",", "\t"), "a.tsv"))


@pytest.mark.parametrize("nothing", [" ,", "NA,NA", "nan, <NA>"])  # R and pandas write what they find empty
def test_what_spreadsheets_leave_empty_says_nothing(read, nothing):
    table = read(f"\n,,\nimage,,x,y,w,h,furry,, \na,,0,0,1,1,1,,\n , ,,,,,,,\n\nb,,0,0,1,1,0,{nothing}\n,,,,,,,,\n")
    assert table.image.tolist() == ["a", "b"] and table.vocabulary.names == ("furry",)
    np.testing.assert_array_equal(table.labels, [[1], [0]])


def test_a_column_without_a_name_is_no_attribute(tmp_path, refused):
    text = ",image,x,y,w,h,furry\n0,a,0,0,1,1,1\n1,b,0,0,1,1,0\n"  # as pandas writes its index
    assert refused(text) == (
        "line 2: a column without a name holds '0'; name it or drop it (pandas: to_csv(..., index=False))"
    )
    late = "image,x,y,w,h,furry,\na,0,0,1,1,1,\nb,0,0,1,1,0,?\n"
    assert refused(late).startswith("line 3: a column without a name holds '?'")
    several = "image,,x,y,w,h,furry,,\na,NA,0,0,1,1,1, 3,4\n"
    assert refused(several).startswith("line 2: a column without a name holds '3'; name it")
    assert refused('{"image": "a", "bbox": [0, 0, 9, 9], "furry": 1, "": 1}', "a.jsonl").startswith("line 1: a column")
    (tmp_path / "boxes.csv").write_text(text)  # of which nothing but boxes is looked at
    assert read_boxes(tmp_path / "boxes.csv").image.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("x,y,w,h,furry", "needs one column that names the photograph (file_name, image, path), found 0"),
        ("image,path,x,y,w", "needs one column that names the photograph (file_name, image, path), found 2"),
        ("image,x,y,w,furry", "has no box columns; name them x,y,w,h or x1,y1,x2,y2"),
        ("image,x,y,w,h", "has no attribute columns beside the photograph and the box"),
        ("image,x,y,w,h,", "has no attribute columns beside the photograph and the box"),
    ],
)
def test_missing_columns(refused, header, message):
    assert (
        refused(f"{header}\n{','.join('01111'[: header.count(',') + 1].ljust(header.count(',') + 1, '1'))}\n")
        == message
    )


@pytest.mark.parametrize("column", ["object_id", "image_id"])
@pytest.mark.parametrize("cell", ["1.5", "1.0", "x", "", "nan", "-3", "2024_11", str(2**63), "9" * 30])
def test_ids_that_are_no_whole_numbers(refused, column, cell):
    message = refused(f"image,x,y,w,h,furry,{column}\na,0,0,1,1,1,5\nb,0,0,1,1,1,{cell}\n")
    assert message.startswith(f"line 3: column '{column}' holds {cell or 'nothing'}")


def test_ids_use_all_63_bits(tmp_path, read):
    largest = 2**63 - 1
    lines = ["image,x,y,w,h,furry,object_id,image_id", f"a,0,0,1,1,1,{largest},0", f"b,0,0,1,1,1,0,{largest}"]
    table = read("\n".join(lines))
    assert table.object_id.tolist() == [largest, 0]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    boxes = read_boxes(tmp_path / "boxes.csv")
    assert boxes.object_id.tolist() == [largest, 0] and boxes.image_id.tolist() == [0, largest]


@pytest.mark.parametrize("value", [1.5, 2.0, True, None, [1]])
def test_json_ids_that_are_no_whole_numbers(refused, value):
    record = {"image": "a", "bbox": [0, 0, 1, 1], "furry": 1, "object_id": value}
    assert refused(json.dumps(record), "a.jsonl").startswith("line 1: column 'object_id' holds ")


def test_an_id_missing_on_one_line(refused):
    records = [
        {"image": "a", "bbox": [0, 0, 1, 1], "furry": 1, "object_id": 1},
        {"image": "a", "bbox": [0, 0, 1, 1], "furry": 1},
    ]
    assert refused("\n".join(map(json.dumps, records)), "a.jsonl").startswith(
        "line 2: column 'object_id' holds nothing"
    )


def test_repeated_object_id(refused):
    message = refused("image,x,y,w,h,furry,object_id\na,0,0,1,1,1,5\na,0,0,1,1,1,5\n")
    assert message == "object id 5 is given 2 times; each object needs an id of its own"


def test_one_photograph_under_two_ids(refused):
    message = refused("image,x,y,w,h,furry,image_id\na,0,0,1,1,1,5\nb,0,0,1,1,1,6\na,0,0,1,1,1,6\n")
    assert message == "line 4: photograph a has image_id 6, but 5 on an earlier line"


def test_two_photographs_under_one_id(refused, read):
    """As where ids are counted anew for each split: val would move to train as if it were torn."""
    message = refused(
        "image,split,x,y,w,h,furry,image_id\na,train,0,0,1,1,1,0\nb,train,0,0,1,1,1,1\nc,val,0,0,1,1,1,0\n"
    )
    assert message.startswith("line 4: image_id 0 is photograph c, but a on an earlier line; number photographs once")
    years = read(
        "image,x,y,w,h,furry,image_id\n000000000042.jpg,0,0,1,1,1,5\nCOCO_val2014_000000000042.jpg,0,0,1,1,1,5\n"
    )
    assert years.image_id.tolist() == [5, 5]


@pytest.mark.parametrize("cell", ["NA", "nan", "NULL", "<NA>", "None", ""])
def test_a_split_or_category_that_is_nothing_is_none(read, cell):
    table = read(f"image,split,category,x,y,w,h,furry\na,{cell},{cell},0,0,1,1,1\nb,val,Nandu,0,0,1,1,1\n")
    assert table.split.tolist() == ["", "val"] and table.category.tolist() == ["", "Nandu"]


def test_a_text_that_no_array_keeps_is_refused(refused):
    record = {"image": "a", "x": 0, "y": 0, "w": 1, "h": 1, "category": "cat\0", "furry": 1}
    assert "'cat\\x00' holds a NUL character" in refused(json.dumps(record) + "\n", "boxes.jsonl")


def test_a_key_that_comes_late_in_json_lines_is_unknown_before(read):
    rows = [
        {"image": "a", "bbox": [0, 0, 1, 1], "furry": 1},
        {"image": "b", "bbox": [0, 0, 1, 1], "wet": 0, "split": "val"},
    ]
    table = read("\n".join(map(json.dumps, rows)), "a.jsonl")
    assert table.vocabulary.names == ("furry", "wet") and table.split.tolist() == ["", "val"]
    np.testing.assert_array_equal(table.labels, np.array([[1, NAN], [NAN, 0]], dtype=np.float32))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_reading_holds_little_more_than_the_table(tmp_path, name):
    """A row of this file as a dictionary takes two kilobytes."""
    attributes, objects = [f"attribute {i}" for i in range(20)], 5000
    header = ["image", "split", "x", "y", "w", "h", *attributes]
    rows = [[f"{n // 5:012d}.jpg", "train", 1.5, 2, 30, 40, *[(n + i) % 2 for i in range(20)]] for n in range(objects)]
    lines = (
        [",".join(header), *(",".join(map(str, row)) for row in rows)]
        if name == "a.csv"
        else [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    )
    (tmp_path / name).write_text("\n".join(lines))
    tracemalloc.start()
    try:
        table = read_table(tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == objects
    assert peak / objects < 500


def test_reading_holds_little_more_than_the_table_where_each_object_has_a_photograph_of_its_own(tmp_path):
    rows = [f"{n:012d}.jpg,train,1.5,2,30,40,{n % 2}\n" for n in range(10_000)]
    (tmp_path / "a.csv").write_text("image,split,x,y,w,h,furry\n" + "".join(rows))
    tracemalloc.start()
    try:
        table, _ = read_labels([tmp_path / "a.csv"], [])
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == len(rows)
    assert peak < 1.5 * kept


@pytest.mark.parametrize("cell", ["", "  "])
def test_rows_without_a_path(refused, cell):
    assert (
        refused(f"image,x,y,w,h,furry\na,0,0,1,1,1\n{cell},0,0,1,1,1\n") == "line 3: column 'image' names no photograph"
    )


@pytest.mark.parametrize("record", [{}, {"image": None}, {"image": 7}])
def test_json_rows_without_a_path(refused, record):
    good = {"image": "a", "bbox": [0, 0, 1, 1], "furry": 1}
    rest = {"bbox": [0, 0, 1, 1], "furry": 1}
    message = refused(f"{json.dumps(good)}\n{json.dumps(record | rest)}\n", "a.jsonl")
    assert message == "line 2: column 'image' names no photograph"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", ""), ("a.csv", "image,x,y,w,h,furry\n"), ("a.csv", "\n\n"), ("a.jsonl", ""), ("a.jsonl", "\n")],
)
def test_no_objects(refused, name, content):
    assert refused(content, name) == "holds no objects"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize(
    "content",
    [CSV.encode("utf-16"), CSV.encode("utf-16-le"), CSV.replace("cat", "Kätzchen").encode("latin-1"), b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff", b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00!\x00\xa9"],
    ids=["utf-16", "utf-16-le", "latin-1", "png", "xlsx"],
)  # fmt: skip
def test_what_is_no_utf8_text(refused, name, content):
    message = refused(content, name)
    assert "is not UTF-8 text" in message or (name == "a.jsonl" and "line 1: not valid JSON" in message)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_of_records_is_told_to_be_lines(refused, indent):
    message = refused(json.dumps([{"image": "a", "bbox": [0, 0, 1, 1], "furry": 1}], indent=indent), "a.jsonl")
    assert message.startswith("line 1: not ") and message.endswith(
        "; give one object a line (pandas: to_json(..., orient='records', lines=True))"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "line 2: not valid JSON"), ("[1]", "line 2: not a JSON object"), ("7", "line 2: not a JSON object")],
)
def test_damaged_json_lines(refused, line, message):
    good = json.dumps({"image": "a", "bbox": [0, 0, 1, 1], "furry": 1})
    assert refused(f"{good}\n{line}\n", "a.jsonl").startswith(message)


def test_missing_file(tmp_path):
    with pytest.raises(LabelError, match=r"gone\.csv: No such file"):
        read_table(tmp_path / "gone.csv")


def test_a_photograph_has_one_id_in_every_file_and_under_every_spelling(read):
    header = "image,x,y,w,h,furry\n"
    one = read(header + "".join(f"{name},0,0,1,1,1\n" for name in ("a/b.jpg", "c.jpg", "d.jpg")))
    other = read(
        header + "".join(f"{name},0,0,1,1,1\n" for name in ("zero.jpg", "d.jpg", " ./a//b.jpg ", "COCO_val2014_c.jpg"))
    )
    assert len(set(one.image_id.tolist())) == 3
    assert other.image_id[1:].tolist() == one.image_id[[2, 0, 1]].tolist() and other.image_id[0] not in one.image_id
    assert other.image.tolist() == ["zero.jpg", "d.jpg", "a/b.jpg", "COCO_val2014_c.jpg"]
    assert (other.image_id >= 0).all() and (other.image_id < 2**52).all()
    together, apart = (read(f"image,x,y,w,h,furry\n{name}.jpg,0,0,1,1,1\n") for name in ("gr\u00fcn", "gru\u0308n"))
    assert together.image_id == apart.image_id and together.image[0] != apart.image[0]  # each as its file names it


def test_json_texts_may_be_numbers_and_zero_is_one(read, refused):
    def row(**more):
        return json.dumps({"image": "a", "bbox": [0, 0, 1, 1], "furry": 1, **more})

    table = read("\n".join([row(category=0, split=0), row(category=None), row(category=" dog ")]), "a.jsonl")
    assert table.category.tolist() == ["0", "", "dog"] and table.split.tolist() == ["0", "", ""]
    assert refused(row(category=["dog"]), "a.jsonl") == "line 1: column 'category' holds ['dog'], not a text"


def test_space_around_cells_says_nothing(read):
    table = read(
        "image, x, y, w, h, category, split, furry\na.jpg ,0,  ,1, 1,dog, train, 1\n b.jpg,0,0,1,1, dog ,train , \n"
    )
    assert table.image.tolist() == ["a.jpg", "b.jpg"]
    assert table.category.tolist() == ["dog", "dog"] and table.split.tolist() == ["train", "train"]
    np.testing.assert_array_equal(table.box, [[0, NAN, 1, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize(("separator", "named"), [(";", "';'"), ("\t", "tabs"), ("|", "'|'")])
def test_other_separators_are_named(refused, separator, named):
    rows = [["image", "x", "y", "w", "h", "furry"], ["a.jpg", "0,5", "1", "2", "3", "1"]]
    message = refused("\n".join(map(separator.join, rows)))
    assert message == f"its columns are separated by {named}; save it with commas, or with tabs as .tsv"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[" * 200_000, "line 1: not valid JSON"),
        ('{"image": "a", "bbox": [1%s, 0, 1, 1], "furry": 1}' % ("0" * 400), "line 1: the box ["),
        (r'{"image": "a\ud83d.jpg", "bbox": [0, 0, 1, 1], "furry": 1}', r"'a\ud83d.jpg' holds half a character"),
        (r'{"image": "a", "bbox": [0, 0, 1, 1], "f\ud83d": 1}', r"'f\ud83d' holds half a character"),
    ],
)  # fmt: skip
def test_json_that_no_crop_can_come_from(refused, line, told):
    assert refused(line, "a.jsonl").startswith(told)


def test_boxes_alone_are_texts_too(tmp_path):
    (tmp_path / "a.jsonl").write_text(r'{"image": "a", "bbox": [0, 0, 1, 1], "category": "\ud83d"}')
    with pytest.raises(LabelError, match=r"a\.jsonl: '\\ud83d' holds half a character"):
        read_boxes(tmp_path / "a.jsonl")


def test_a_file_whose_name_is_no_text_is_read(tmp_path):
    path = tmp_path / "l\udce9.csv"  # as Python reads the byte E9, which is no UTF-8
    path.write_text("image,x,y,w,h,furry\na,0,0,1,1,1\n")
    assert read_table(path).sources[0].name == r"l\udce9.csv"


def test_ids_of_many_photographs_are_distinct_and_use_the_numbers_that_json_keeps(tmp_path):
    """Of 20,000 names, a dozen would share an id in 24 bits."""
    rows = "".join(f"photograph {n}.jpg,0,0,9,9\n" for n in range(20_000))
    (tmp_path / "a.csv").write_text("image,x,y,w,h\n" + rows)
    ids = read_boxes(tmp_path / "a.csv").image_id.tolist()
    assert len(set(ids)) == 20_000
    assert 2**51 < max(ids) < 2**52 and min(ids) < 2**50
