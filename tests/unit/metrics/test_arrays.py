"""Files of anybody's as they are read."""

import json

from attrtrain.metrics.arrays import read_column, read_matrix, read_names


def test_what_windows_puts_before_the_first_letter_of_a_file_is_no_part_of_it(tmp_path):
    names = ["café", "dog"]
    contents = {"a.txt": "café\ndog\n", "a.json": json.dumps(names), "a.csv": "café,dog\n0.5,1\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert read_column(tmp_path / "a.txt").tolist() == read_column(tmp_path / "a.json").tolist() == names
    assert read_names(tmp_path / "a.json") == read_matrix(str(tmp_path / "a.csv")).names == tuple(names)
