"""`attrtrain score`: anybody's predictions, in every format, judged by their numbers alone; and one line for what
cannot be.
"""

import io
import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from report_data import drawn_predictions
from sklearn.metrics import average_precision_score, f1_score

from attrtrain.cli import main
from attrtrain.metrics.judge import judge
from attrtrain.predictions import write_predictions

NAMES = [f"attribute {column}" for column in range(20)]


def draw(n=240, a=20, seed=0):
    """Probabilities (n, a) float32 and labels of 0, 1, and 2 where unknown; the last attribute has one positive."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, a)) < 0.3).astype(np.int8)
    labels[:, -1] = 0
    labels[3, -1] = 1
    scores = 1 / (1 + np.exp(-(rng.normal(size=(n, a)) + labels * 1.5 - 0.7)))
    labels[rng.random((n, a)) < 0.4] = 2
    labels[3, -1] = 1
    return scores.astype(np.float32), labels


@pytest.fixture(scope="module")
def expected():
    """What scikit-learn says of `draw`."""
    scores, labels = draw()
    average, prior = [], []
    for column in range(19):
        known = labels[:, column] < 2
        average.append(average_precision_score(labels[known, column], scores[known, column]))
        prior.append(labels[known, column].mean())
    cells = labels < 2
    return {
        "map": np.mean(average),
        "prior_map": np.mean(prior),
        "of1": f1_score(labels[cells] == 1, scores[cells] > 0.5),
        "attributes": average,
    }


def write(path, values, names=None):
    """Writes a matrix in the format that the name says, unknown (2) as an empty cell in tables."""
    match path.suffix:
        case ".npy":
            np.save(path, values)
        case ".npz":
            np.savez(path, something=values)
        case _:
            columns = {
                name: pa.array([None if value == 2 else value.item() for value in values[:, place]])
                for place, name in enumerate(names or NAMES)
            }
            if path.suffix == ".parquet":
                pyarrow.parquet.write_table(pa.table(columns), path)
            else:
                pyarrow.csv.write_csv(
                    pa.table(columns), path, pyarrow.csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
                )
    return path


def score(folder, scores, labels, *more, replicates=50):
    """Runs the command in this process; returns metrics.json."""
    words = [
        "score",
        "--scores",
        scores,
        "--labels",
        labels,
        "--out",
        folder / "out",
        "--replicates",
        replicates,
        *more,
    ]
    assert main([str(word) for word in words]) == 0
    return json.loads((folder / "out" / "metrics.json").read_text())


def refuse(capsys, folder, *words):
    """Runs the command, which must fail with one line, which it returns, and leave nothing."""
    assert main([str(word) for word in ("score", "--out", folder / "out", *words)]) in (1, 2)
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("error: ") and output.err.count("\n") == 1
    assert not (folder / "out").exists()
    return output.err


@pytest.mark.parametrize("labels_kind", ["npy", "npz", "parquet", "csv", "tsv"])
@pytest.mark.parametrize("kind", ["npy", "npz", "parquet", "csv", "tsv"])
def test_every_format_gives_the_same_numbers(tmp_path, expected, kind, labels_kind):
    scores, labels = draw()
    metrics = score(
        tmp_path,
        write(tmp_path / f"pred.{kind}", scores),
        write(tmp_path / f"gt.{labels_kind}", labels),
        "--unknown",
        2,
    )
    for key in ("map", "prior_map", "of1"):
        assert metrics["overall"][key] == pytest.approx(expected[key], abs=1e-6), key
    assert [entry["name"] for entry in metrics["attributes"]] == NAMES
    assert [entry["ap"] for entry in metrics["attributes"][:19]] == pytest.approx(expected["attributes"], abs=1e-6)
    entry = metrics["attributes"][4]
    assert (entry["positives"], entry["negatives"], entry["unknowns"]) == tuple(
        (labels[:, 4] == value).sum() for value in (1, 0, 2)
    )
    assert metrics["left_out"]["names"] == ["attribute 19"] and metrics["attributes"][19]["ap"] is not None


def test_the_table_shows_each_score_beside_guessing(tmp_path, capsys):
    scores, labels = draw()
    metrics = score(tmp_path, write(tmp_path / "pred.npy", scores), write(tmp_path / "gt.npy", labels), "--unknown", 2)
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("mAP"))
    for value in (
        metrics["overall"]["map"],
        *metrics["intervals"]["map"],
        metrics["overall"]["prior_map"],
        metrics["overall"]["permutation_map"],
    ):
        assert f"{value:.4f}" in line
    assert "240 objects, 19 of 20 attributes judged" in printed
    assert "replicates over objects, since no photographs were given" in printed
    assert "cross-fitted: each half of the objects is judged" in printed and "half of the photographs" not in printed
    assert "negatives: 1 (attribute 19)" in printed
    assert metrics["bootstrap"]["unit"] == "object"


def test_photographs_and_categories(tmp_path, expected, capsys):
    scores, labels = draw()
    (tmp_path / "images.txt").write_text("".join(f"photo {i // 4}.jpg\n" for i in range(240)))
    (tmp_path / "categories.json").write_text(json.dumps(["cat" if i % 3 else "dog" for i in range(240)]))
    metrics = score(
        tmp_path, write(tmp_path / "p.npy", scores), write(tmp_path / "g.npy", labels), "--unknown", 2,
        "--images", tmp_path / "images.txt", "--categories", tmp_path / "categories.json",
    )  # fmt: skip
    assert metrics["images"] == 60 and metrics["bootstrap"] == {"replicates": 50, "seed": 0, "unit": "image"}
    assert [(entry["name"], entry["objects"]) for entry in metrics["groups"]["category"]] == [("cat", 160), ("dog", 80)]
    assert metrics["overall"]["map"] == pytest.approx(expected["map"]) and metrics["baselines"]["category"]["map"] < 0.5
    assert "240 objects in 60 photographs" in capsys.readouterr().out
    ids = (np.arange(240) // 4 * 7 % 60 + 1) * 10**15
    np.save(tmp_path / "images.npy", ids)
    numbered = score(
        tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", "--unknown", 2, "--images", tmp_path / "images.npy"
    )
    assert numbered["images"] == 60
    (tmp_path / "images.txt").write_text("\n".join(map(str, ids.tolist())))
    again = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", "--unknown", 2, "--images", tmp_path / "images.txt")
    assert again == numbered
    np.save(tmp_path / "categories.npy", np.where(np.arange(240) % 3, 17, 2))
    given = ("--unknown", 2, "--categories", tmp_path / "categories.npy")
    groups = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", *given)["groups"]["category"]
    assert [(entry["name"], entry["objects"]) for entry in groups] == [("17", 160), ("2", 80)]


def test_a_photograph_may_be_called_by_a_number_among_names(tmp_path):
    scores, labels = draw()
    (tmp_path / "images.txt").write_text("\n".join(str(i // 4) if i // 4 % 2 else f"{i // 4}.jpg" for i in range(240)))
    write(tmp_path / "p.npy", scores), write(tmp_path / "g.npy", labels)
    given = ("--unknown", 2, "--images", tmp_path / "images.txt")
    assert score(tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", *given)["images"] == 60


@pytest.mark.parametrize("name", ["{}_{}", "{:02}{}", "{}{:020}", "1{}{:020}", "99{}{:016}"])
def test_names_of_photographs_that_look_like_numbers_stay_apart(tmp_path, name):
    scores, labels = draw()
    names = [name.format(i // 4 % 3, i // 12) for i in range(240)]
    (tmp_path / "images.json").write_text(json.dumps(names))
    (tmp_path / "images.txt").write_text("\n".join(names))
    write(tmp_path / "p.npy", scores), write(tmp_path / "g.npy", labels)
    for kind in ("txt", "json"):
        given = ("--unknown", 2, "--images", tmp_path / f"images.{kind}")
        assert score(tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", *given)["images"] == len(set(names)) == 60


def test_a_photographs_objects_need_not_lie_together(tmp_path, expected):
    scores, labels = draw()
    np.save(tmp_path / "images.npy", np.arange(240) % 60)
    metrics = score(
        tmp_path,
        write(tmp_path / "p.npy", scores),
        write(tmp_path / "g.npy", labels),
        "--unknown",
        2,
        "--images",
        tmp_path / "images.npy",
    )
    assert metrics["overall"]["map"] == pytest.approx(expected["map"]) and metrics["overall"]["of1"] == pytest.approx(
        expected["of1"]
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 2e-3), (np.float64, 1e-6)])
def test_logits_of_any_precision(tmp_path, expected, dtype, tolerance):
    scores, labels = draw()
    logits = np.log(scores.astype(np.float64) / (1 - scores.astype(np.float64))).astype(dtype)
    metrics = score(
        tmp_path, write(tmp_path / "p.npy", logits), write(tmp_path / "g.npy", labels), "--unknown", 2, "--logits"
    )
    assert metrics["overall"]["map"] == pytest.approx(expected["map"], abs=tolerance)
    assert metrics["overall"]["of1"] == pytest.approx(expected["of1"], abs=tolerance)


def test_the_threshold_is_exceeded_not_reached(tmp_path):
    np.save(tmp_path / "p.npy", np.tile(np.float32([0.3, 0.5, 0.7, 0.71]), 10)[:, None])
    np.save(tmp_path / "g.npy", np.ones((40, 1)))
    for threshold, recall in ((0.5, 0.5), (0.3, 0.75), (0.7, 0.25), (0.71, 0.0), (0.29999, 1.0)):
        metrics = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", "--threshold", threshold)
        assert (metrics["threshold"], metrics["overall"]["or"]) == (threshold, recall)


def test_what_is_unknown(tmp_path):
    scores = np.linspace(0, 1, 24, dtype=np.float32)[:, None]
    labels = np.repeat([0, 1, -1, np.nan, 2, 0.75], 4)[:, None]
    np.save(tmp_path / "p.npy", scores)
    np.save(tmp_path / "g.npy", labels)
    entry = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", "--unknown", 2)["attributes"][0]
    assert (entry["positives"], entry["negatives"], entry["unknowns"]) == (8, 4, 12)


def test_columns_are_matched_by_name(tmp_path, expected):
    scores, labels = draw()
    for turned in (np.arange(20)[::-1], np.random.default_rng(0).permutation(20)):  # only the first is its own inverse
        write(tmp_path / "p.csv", scores[:, turned], [NAMES[place] for place in turned])
        metrics = score(tmp_path, tmp_path / "p.csv", write(tmp_path / "g.parquet", labels))
        assert metrics["overall"]["map"] == pytest.approx(expected["map"], abs=1e-6)
        assert [entry["name"] for entry in metrics["attributes"]] == NAMES
        assert [entry["ap"] for entry in metrics["attributes"][:19]] == pytest.approx(expected["attributes"], abs=1e-6)


def test_a_label_of_one_half_is_positive_and_one_below_is_negative(tmp_path):
    labels = np.repeat([0.5, np.nextafter(0.5, 0), 0.55, np.nan], 10)[:, None]
    np.save(tmp_path / "p.npy", np.linspace(0, 1, 40)[:, None])
    np.save(tmp_path / "g.npy", labels)
    metrics = score(tmp_path / "new" / "folder", tmp_path / "p.npy", tmp_path / "g.npy", replicates=0)
    entry = metrics["attributes"][0]
    assert (entry["positives"], entry["negatives"], entry["unknowns"]) == (20, 10, 10)
    assert metrics["positive_at"] == 0.5


def test_names_as_a_list_and_as_vaws_index(tmp_path):
    scores, labels = draw()
    write(tmp_path / "p.npy", scores), write(tmp_path / "g.npy", labels)
    own = [f"furry {i}" for i in range(20)]
    for content in (own, {name: place for place, name in reversed(list(enumerate(own)))}):
        (tmp_path / "names.json").write_text(json.dumps(content))
        metrics = score(
            tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", "--unknown", 2, "--names", tmp_path / "names.json"
        )
        assert [entry["name"] for entry in metrics["attributes"]] == own


@pytest.mark.parametrize("name", ["furry\n", ""])
def test_an_empty_line_of_one_attribute_is_an_object_of_which_nothing_is_known(tmp_path, name):
    rng = np.random.default_rng(0)
    scores, truth = rng.random(40), rng.integers(0, 2, 40)
    cells = ["" if row in (7, 38) else str(label) for row, label in enumerate(truth)]
    (tmp_path / "g.csv").write_text(name + "\n".join(cells) + "\n\n")  # those at the end are none
    np.save(tmp_path / "p.npy", scores[:, None])
    metrics = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.csv")
    known = np.isin(np.arange(40), (7, 38), invert=True)
    assert metrics["objects"] == 40 and metrics["attributes"][0]["unknowns"] == 2
    assert metrics["overall"]["map"] == pytest.approx(average_precision_score(truth[known], scores[known]), abs=1e-6)


def test_a_csv_without_column_names(tmp_path, expected):
    scores, labels = draw()
    np.savetxt(tmp_path / "p.csv", scores, delimiter=",")
    np.savetxt(tmp_path / "g.csv", labels, delimiter=",", fmt="%d")
    metrics = score(tmp_path, tmp_path / "p.csv", tmp_path / "g.csv", "--unknown", 2)
    assert metrics["objects"] == 240 and metrics["overall"]["map"] == pytest.approx(expected["map"], abs=1e-6)


def test_a_csv_whose_columns_are_numbered_or_whose_first_object_is_partly_unknown(tmp_path, expected):
    scores, labels = draw()
    labels[0, :5] = 2
    write(tmp_path / "p.csv", scores, names=[str(column) for column in range(20)])
    table = write(tmp_path / "g.csv", labels).read_text()
    (tmp_path / "g.csv").write_text(table.split("\n", 1)[1])
    assert (tmp_path / "g.csv").read_text().startswith(",,,,,")
    metrics = score(tmp_path, tmp_path / "p.csv", tmp_path / "g.csv")
    assert metrics["objects"] == 240 and metrics["attributes"][3]["name"] == "3"
    cells = labels < 2
    assert metrics["overall"]["of1"] == pytest.approx(f1_score(labels[cells] == 1, scores[cells] > 0.5))


def numbered(values, names=True):
    """Lines of a CSV as pandas writes columns without names."""
    lines = [",".join(map(str, range(values.shape[1])))] if names else []
    return "\n".join([*lines, *(",".join(map(str, row)) for row in values.tolist())]) + "\n"


def in_whole_numbers(attributes):
    """Logits and labels of 40 objects, the first 0, 1, 2 and so on, and the average precision of each attribute."""
    rng = np.random.default_rng(attributes)
    scores, labels = rng.integers(-9, 9, (40, attributes)), rng.integers(0, 2, (40, attributes))
    scores[0] = labels[0] = np.arange(attributes)
    known = labels < 2
    return (
        scores,
        labels,
        [average_precision_score(labels[known[:, a], a], scores[known[:, a], a]) for a in range(attributes)],
    )


@pytest.mark.parametrize("attributes", [1, 2, 3])
@pytest.mark.parametrize("of", ["scores", "labels"])
def test_a_first_line_of_0_and_1_is_an_object_where_the_other_file_has_one_more(tmp_path, attributes, of):
    scores, labels, average = in_whole_numbers(attributes)
    np.save(tmp_path / "p.npy", scores), np.save(tmp_path / "g.npy", labels)
    (tmp_path / "p.csv").write_text(numbered(scores, names=False))
    (tmp_path / "g.csv").write_text(numbered(labels, names=False))
    files = {"scores": ("p.csv", "g.npy"), "labels": ("p.npy", "g.csv")}[of]
    metrics = score(tmp_path, *(tmp_path / file for file in files), "--unknown", 2, "--logits", replicates=0)
    assert metrics["objects"] == 40
    assert [entry["ap"] for entry in metrics["attributes"]] == pytest.approx(average)
    assert [entry["name"] for entry in metrics["attributes"]] == [f"attribute {column}" for column in range(attributes)]


@pytest.mark.parametrize(
    ("attributes", "of"),
    [*((attributes, of) for attributes in (1, 2, 3) for of in ("scores", "labels")), (3, "both")],
)
def test_a_first_line_of_0_and_1_is_names_where_the_other_file_has_as_many_objects_as_are_below(
    tmp_path, attributes, of
):
    scores, labels, average = in_whole_numbers(attributes)
    np.save(tmp_path / "p.npy", scores), np.save(tmp_path / "g.npy", labels)
    (tmp_path / "p.csv").write_text(numbered(scores.astype(float)))
    (tmp_path / "g.csv").write_text(numbered(labels))
    files = {"scores": ("p.csv", "g.npy"), "labels": ("p.npy", "g.csv"), "both": ("p.csv", "g.csv")}[of]
    metrics = score(tmp_path, *(tmp_path / file for file in files), "--unknown", 2, "--logits", replicates=0)
    assert metrics["objects"] == 40
    assert [entry["ap"] for entry in metrics["attributes"]] == pytest.approx(average)
    assert [entry["name"] for entry in metrics["attributes"]] == [str(column) for column in range(attributes)]


@pytest.mark.parametrize("attributes", [1, 2])
def test_a_first_line_that_may_be_names_or_an_object_is_refused(tmp_path, capsys, attributes):
    scores, labels, _ = in_whole_numbers(attributes)
    np.save(tmp_path / "p.npy", scores), np.save(tmp_path / "g.npy", labels)
    line = ",".join(str(column) for column in range(attributes)).replace(",", ", ")

    def refused(p, g):
        given = ("--scores", tmp_path / p, "--labels", tmp_path / g, "--logits")
        return refuse(capsys, tmp_path, *given)

    (tmp_path / "p.csv").write_text(numbered(scores + 0.5))
    (tmp_path / "g.csv").write_text(numbered(labels))
    both = refused("p.csv", "g.csv")
    assert f"p.csv and {tmp_path / 'g.csv'}: the first line, {line}, may be names or an object; if names, write" in both
    (tmp_path / "p.csv").write_text(numbered(scores[1:]))  # one object is lacking, or one file has names
    assert f"error: {tmp_path / 'p.csv'}: the first line, {line}, may be" in refused("p.csv", "g.csv")
    # One object is lacking, or the first is written otherwise than all others.
    (tmp_path / "p.csv").write_text(numbered(scores[1:] + 0.5))
    assert f"error: {tmp_path / 'p.csv'}: the first line, {line}, may be" in refused("p.csv", "g.npy")
    partly = scores[1:].astype(object)
    partly[:, -1] += 0.5  # other columns hold whole numbers
    (tmp_path / "p.csv").write_text(numbered(partly))
    assert f"error: {tmp_path / 'p.csv'}: the first line, {line}, may be" in refused("p.csv", "g.npy")
    if attributes == 1:  # of which the last object may be unknown, or the first line an object's
        (tmp_path / "g.csv").write_text(numbered(labels[:-1]) + "\n")
        assert f"error: {tmp_path / 'g.csv'}: the first line, 0, may be" in refused("p.npy", "g.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("cell", ["", '""'])
@pytest.mark.parametrize("name", ["furry", None])
def test_the_last_objects_of_one_attribute_may_be_unknown(tmp_path, name, cell, end):
    rng = np.random.default_rng(0)
    scores, truth = rng.random(60), rng.integers(0, 2, 60)
    np.save(tmp_path / "p.npy", scores[:, None])
    cells = ["1", *map(str, truth[1:57]), cell, cell, cell]
    (tmp_path / "g.csv").write_bytes(end.join([*([name] if name else []), *cells, ""]).encode())
    metrics = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.csv", replicates=0)
    assert metrics["objects"] == 60 and metrics["attributes"][0]["unknowns"] == 3
    expected = average_precision_score([1, *truth[1:57]], scores[:57])
    assert metrics["overall"]["map"] == pytest.approx(expected, abs=1e-6)


def test_0_below_an_empty_line_is_an_object(tmp_path):
    np.save(tmp_path / "p.npy", np.linspace(0, 1, 40)[:, None])
    (tmp_path / "g.csv").write_text("\n0\n" + "1\n" * 38)
    entry = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.csv", replicates=0)["attributes"][0]
    assert (entry["positives"], entry["negatives"], entry["unknowns"]) == (38, 1, 1)


def test_empty_lines_at_the_end_of_several_attributes_are_no_objects_but_lines_of_empty_cells_are(tmp_path, capsys):
    scores, labels = draw(a=2)
    labels[-2:] = 2
    write(tmp_path / "p.npy", scores)
    table = write(tmp_path / "g.csv", labels, NAMES[:2]).read_text()
    assert table.endswith("\n,\n,\n")
    for end in ("", "\n", "\n\n"):
        (tmp_path / "g.csv").write_text(table + end)
        metrics = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.csv", replicates=0)
        assert metrics["objects"] == 240
        unknowns = [entry["unknowns"] for entry in metrics["attributes"]]
        assert unknowns == (labels == 2).sum(axis=0).tolist()
    (tmp_path / "out" / "metrics.json").unlink(), (tmp_path / "out").rmdir(), capsys.readouterr()
    (tmp_path / "g.csv").write_text(table.removesuffix(",\n") + "\n")
    line = refuse(capsys, tmp_path, "--scores", tmp_path / "p.npy", "--labels", tmp_path / "g.csv")
    assert "p.npy has shape (240, 2), " in line and "g.csv (239, 2)" in line


def test_an_object_without_a_score_at_the_end_is_refused(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("furry\n0.5\n0.2\n\n")
    np.save(tmp_path / "g.npy", np.array([[0], [1], [1]]))
    given = ("--scores", tmp_path / "p.csv", "--labels", tmp_path / "g.npy")
    assert "p.csv has shape (2, 1), " in refuse(capsys, tmp_path, *given)
    (tmp_path / "p.csv").write_text('furry\n0.5\n0.2\n""\n')
    assert "object 2 (counted from 0), attribute 'furry' holds nan" in refuse(capsys, tmp_path, *given)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("named", ["scores", "labels", "both"])
def test_names_that_contradict_a_file_are_refused(tmp_path, capsys, kind, named):
    scores, labels = draw()
    p, g = (f"p.{'npy' if named == 'labels' else kind}", f"g.{'npy' if named == 'scores' else kind}")
    write(tmp_path / p, scores), write(tmp_path / g, labels)
    given = ("--scores", tmp_path / p, "--labels", tmp_path / g, "--unknown", 2, "--names", tmp_path / "names.json")
    file = tmp_path / (p if named == "scores" else g)
    turned = [*NAMES[:3], NAMES[4], NAMES[3], *NAMES[5:]]
    for names, first in ((turned, "attribute 4"), ([*NAMES[:3], "wet", *NAMES[4:]], "wet")):
        (tmp_path / "names.json").write_text(json.dumps(names))
        line = refuse(capsys, tmp_path, *given)
        assert f"names.json: name 3 (counted from 0) is '{first}', but {file} calls that column 'attribute 3'; " in line
    (tmp_path / "names.json").write_text(json.dumps([f"{NAMES[0]} ", *NAMES[1:]]))  # files are read without
    score(tmp_path, tmp_path / p, tmp_path / g, "--unknown", 2, "--names", tmp_path / "names.json", replicates=0)
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    metrics = score(
        tmp_path, tmp_path / p, tmp_path / g, "--unknown", 2, "--names", tmp_path / "names.json", replicates=0
    )
    assert [entry["name"] for entry in metrics["attributes"]] == NAMES


def test_columns_that_are_numbered_are_named(tmp_path):
    scores, labels = draw()
    numbers, own = [str(column) for column in range(20)], [f"furry {column}" for column in range(20)]
    write(tmp_path / "p.csv", scores, numbers), write(tmp_path / "g.parquet", labels, numbers)
    (tmp_path / "names.json").write_text(json.dumps(own))
    metrics = score(
        tmp_path, tmp_path / "p.csv", tmp_path / "g.parquet", "--names", tmp_path / "names.json", replicates=0
    )
    assert [entry["name"] for entry in metrics["attributes"]] == own


def test_logits_whose_losses_could_not_be_summed_are_refused_and_smaller_ones_judged(tmp_path, capsys):
    labels = np.random.default_rng(0).integers(0, 2, (60, 3))
    np.save(tmp_path / "g.npy", labels)
    given = ("--scores", tmp_path / "p.npy", "--labels", tmp_path / "g.npy", "--logits")
    np.save(tmp_path / "p.npy", np.where(np.arange(180).reshape(60, 3) == 7, -1e308, 0.0))
    line = refuse(capsys, tmp_path, *given)
    assert "object 2 (counted from 0), attribute 'attribute 1' holds -1e+308; a logit is between" in line
    np.save(tmp_path / "p.npy", np.where(labels == 1, -1e30, 1e30))
    metrics = score(tmp_path, tmp_path / "p.npy", tmp_path / "g.npy", "--logits")
    assert metrics["overall"]["loss"] == pytest.approx(1e30, rel=1e-12)


def test_columns_with_neither_a_name_nor_cells_are_none(tmp_path, expected):
    scores, labels = draw()
    table = write(tmp_path / "p.csv", scores).read_text()
    (tmp_path / "p.csv").write_text("".join(f",{line},,\n" for line in table.splitlines()))
    metrics = score(tmp_path, tmp_path / "p.csv", write(tmp_path / "g.csv", labels), "--unknown", 2)
    assert len(metrics["attributes"]) == 20 and metrics["overall"]["map"] == pytest.approx(expected["map"], abs=1e-6)


def test_one_of_several_arrays(tmp_path, expected, capsys):
    scores, labels = draw()
    np.savez(tmp_path / "both.npz", pred=scores, gt=labels)
    metrics = score(tmp_path, f"{tmp_path}/both.npz:pred", f"{tmp_path}/both.npz:gt", "--unknown", 2)
    assert metrics["overall"]["map"] == pytest.approx(expected["map"], abs=1e-6)
    capsys.readouterr()
    line = refuse(capsys, tmp_path / "other", "--scores", tmp_path / "both.npz", "--labels", f"{tmp_path}/both.npz:gt")
    assert "holds 2 arrays (pred, gt); say which, such as both.npz:pred" in line
    line = refuse(
        capsys, tmp_path / "other", "--scores", f"{tmp_path}/both.npz:logits", "--labels", f"{tmp_path}/both.npz:gt"
    )
    assert "has no array 'logits'; there are: pred, gt" in line


def test_an_npz_tells_the_names_of_its_columns_by_which_they_are_matched(tmp_path, expected, capsys):
    scores, labels = draw()
    names = [f"kind {column}" for column in range(20)]
    np.savez(tmp_path / "p.npz", logits=scores, names=names)
    np.savez(tmp_path / "g.npz", labels=labels[:, ::-1], names=names[::-1], category=["dog"] * 240)
    files = f"{tmp_path}/p.npz:logits", f"{tmp_path}/g.npz:labels"
    metrics = score(tmp_path, *files, "--unknown", 2)
    assert metrics["overall"]["map"] == pytest.approx(expected["map"], abs=1e-6)
    aps = {entry["name"]: entry["ap"] for entry in metrics["attributes"]}
    assert [aps[name] for name in names[:19]] == pytest.approx(expected["attributes"], abs=1e-6)
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    capsys.readouterr()
    line = refuse(
        capsys, tmp_path / "other", "--scores", files[0], "--labels", write(tmp_path / "g.npy", labels),
        "--names", tmp_path / "names.json",
    )  # fmt: skip
    assert "name 0 (counted from 0) is 'attribute 0', but" in line and "calls that column 'kind 0'" in line


@pytest.mark.parametrize(
    "names", [["a", "b"], ["a"] * 20, np.arange(20), np.array([Ellipsis] * 20, dtype=object), np.array("a")]
)
def test_what_an_npz_calls_names_and_is_none_of_its_columns_is_not_used(tmp_path, expected, names):
    scores, labels = draw()
    np.savez(tmp_path / "p.npz", scores=scores, names=names)
    metrics = score(tmp_path, f"{tmp_path}/p.npz:scores", write(tmp_path / "g.npy", labels), "--unknown", 2)
    assert metrics["overall"]["map"] == pytest.approx(expected["map"], abs=1e-6)
    assert [entry["name"] for entry in metrics["attributes"]] == NAMES


def test_an_npz_that_holds_all_of_it_is_judged_with_its_photographs_and_categories(tmp_path, capsys):
    """As predictions.npz does: what `attrtrain evaluate` measures of it comes out again, intervals and all."""
    predictions = drawn_predictions(objects=150, attributes=6)
    write_predictions(tmp_path / "all.npz", predictions)
    columns = {name: f"{tmp_path}/all.npz:{name}" for name in ("logits", "labels", "image_id", "category")}
    more = ("--logits", "--images", columns["image_id"], "--categories", columns["category"])
    metrics = score(tmp_path, columns["logits"], columns["labels"], *more)
    expected = judge(predictions, source=metrics["source"], replicates=50).model_dump(mode="json")
    assert metrics == expected and metrics["intervals"]["map"] and metrics["overall"]["category_map"]
    np.savez(tmp_path / "only.npz", names=predictions.names, scores=predictions.logits)
    assert score(tmp_path, f"{tmp_path}/only.npz", columns["labels"], *more)["overall"] == metrics["overall"]
    capsys.readouterr()
    files = ("--scores", columns["logits"], "--labels", columns["labels"], "--logits")
    for given, message in (
        (f"{tmp_path}/all.npz", "all.npz: holds 6 arrays (names, object_id, image_id,"),
        (f"{tmp_path}/all.npz:image", "all.npz: has no array 'image'; there are: names, object_id"),
        (f"{tmp_path}/all.npz:labels", "all.npz: holds float32 of shape (150, 6), not one name or whole number an object"),
    ):  # fmt: skip
        assert message in refuse(capsys, tmp_path / "other", *files, "--images", given)


class Trap:
    def __reduce__(self):
        return print, ("must not run",)


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


BAD_SCORES = {
    "missing": (None, "p.npy: No such file"),
    "pickled array": (saved(np.array([[Trap()]], dtype=object)), "pickled Python objects, which could run code"),
    "pickle": (pickle.dumps(Trap()), "p.npy: holds pickled|p.npy: damaged"),
    "empty": (b"", "p.npy: damaged"),
    "cut": (saved(np.zeros((240, 20)))[:500], "p.npy: damaged"),
    "text": (saved(np.array([["a"]])), "p.npy: holds <U1, not numbers"),
    "one dimension": (saved(np.zeros(240)), r"has shape \(240,\); needs one row an object and one column an attribute"),
    "other shape": (saved(np.zeros((240, 19))), r"p\.npy has shape \(240, 19\), .*g\.npy \(240, 20\)"),
    "on its side": (saved(np.zeros((20, 240))), "turned on its side"),
    "no probabilities": (saved(np.full((240, 20), -1.5)), r"object 0 \(counted from 0\), attribute 'attribute 0' holds -1.5.*need --logits"),
    "above 1": (saved(np.where(np.arange(4800) == 247, 1.5, 1.0).reshape(240, 20)), r"object 12 \(counted from 0\), attribute 'attribute 7' holds 1.5; .*need --logits"),
    "nan": (saved(np.where(np.arange(4800) == 247, np.nan, 0.5).reshape(240, 20)), "object 12 .*attribute 'attribute 7' holds nan; every object needs"),
    "infinite": (saved(np.full((240, 20), np.inf)), "holds inf; every object needs a score"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SCORES)
def test_scores_that_cannot_be_judged_are_one_line(tmp_path, capsys, case):
    content, message = BAD_SCORES[case]
    np.save(tmp_path / "g.npy", draw()[1])
    if content is not None:
        (tmp_path / "p.npy").write_bytes(content)
    line = refuse(capsys, tmp_path, "--scores", tmp_path / "p.npy", "--labels", tmp_path / "g.npy", "--unknown", 2)
    assert re.search(message, line), line
    assert ("turned on its side" in line) == (case == "on its side")


def test_null_is_neither_a_category_nor_a_photograph(tmp_path, capsys):
    scores, labels = draw()
    given = ("--scores", write(tmp_path / "p.npy", scores), "--labels", write(tmp_path / "g.npy", labels))
    (tmp_path / "c.json").write_text(json.dumps(["dog", None, *["cat"] * 238]))
    for flag in ("--categories", "--images"):
        assert "c.json: entry 1 is null" in refuse(capsys, tmp_path, *given, flag, tmp_path / "c.json")


def test_tables_that_cannot_be_judged_are_one_line(tmp_path, capsys):
    np.save(tmp_path / "g.npy", np.zeros((2, 2)))
    for name, content, message in (
        ("p.csv", "id,furry\na,0.5\nb,0.2\n", "columns that are not numbers: id"),
        ("p.csv", "object_id,furry\n1,0.5\n2,0.2\n", "columns that are no attributes: object_id"),
        (
            "p.csv",  # as `attrtrain annotate` writes them
            "object_id,image,furry\n1,a.jpg,0.5\n2,a.jpg,0.2\n",
            "not numbers: image; bring the objects of both files into one order, for they are not matched by object_id",
        ),
        (
            "p.csv",
            ",furry,wet\n0,0.5,0.1\n1,0.2,0.1\n",
            r"p.csv: column 1 has no name; name it or drop it \(pandas: to_csv",
        ),
        ("p.csv", "furry,,\n0.5,,0.1\n0.2,,\n", "p.csv: column 3 has no name"),
        ("p.csv", ",0,1,2\n0,0.5,0.1,0.3\n1,0.2,0.1,0.4\n", "p.csv: column 1 has no name"),
        ("p.csv", "Unnamed: 0,furry\n0,0.5\n1,0.2\n", "columns that are no attributes: Unnamed: 0"),
        ("p.csv", "furry,wet\n0.5,x\n0.2,0.1\n", "columns that are not numbers: wet"),
        ("p.csv", "furry,furry\n0.5,0.1\n0.2,0.1\n", "column names given twice: furry"),
        ("p.csv", "furry,wet\n0.5\n0.2,0.1\n", "p.csv: damaged"),
        ("p.csv", "furry,wet\n0.5,\n0.2,0.1\n", "object 0 .*attribute 'wet' holds nan"),
        ("p.parquet", "PAR1", "p.parquet: damaged"),
        ("p.txt", "0 1", "unknown kind '.txt'; give .npy, .npz, .parquet or .csv"),
    ):
        (tmp_path / name).write_text(content)
        line = refuse(capsys, tmp_path, "--scores", tmp_path / name, "--labels", tmp_path / "g.npy")
        assert re.search(message, line), line


def test_labels_that_are_no_labels_are_one_line(tmp_path, capsys):
    scores, labels = draw()
    write(tmp_path / "p.npy", scores), write(tmp_path / "g.npy", labels)
    line = refuse(capsys, tmp_path, "--scores", tmp_path / "p.npy", "--labels", tmp_path / "g.npy")
    assert "holds 2; a label is 0 to 1, so give --unknown 2 if that means unknown" in line
    np.save(tmp_path / "g.npy", np.full((240, 20), -1))
    assert "every label is unknown" in refuse(
        capsys, tmp_path, "--scores", tmp_path / "p.npy", "--labels", tmp_path / "g.npy"
    )
    write(tmp_path / "p.csv", scores)
    write(tmp_path / "g.csv", labels, [*NAMES[:19], "wet"])
    line = refuse(capsys, tmp_path, "--scores", tmp_path / "p.csv", "--labels", tmp_path / "g.csv")
    assert "other columns: attribute 19, wet are only in one of them" in line


@pytest.mark.parametrize(
    ("flag", "content", "message"),
    [
        ("--names", '["a"]', "1 names, 1 of them different, for 20 columns"),
        ("--names", json.dumps(["a"] * 20), "20 names, 1 of them different"),
        ("--names", "[", "not valid JSON"),
        ("--names", "{}x", "not valid JSON"),
        ("--names", '{"a": 1}', "neither a list of attribute names"),
        ("--names", "[1]", "neither a list of attribute names"),
        ("--names", None, "No such file"),
        ("--images", "1\n2\n", "2 values for 240 objects"),
        ("--categories", "", "0 values for 240 objects"),
        ("--categories", None, "No such file"),
    ],
)
def test_side_files_that_do_not_fit_are_one_line(tmp_path, capsys, flag, content, message):
    scores, labels = draw()
    write(tmp_path / "p.npy", scores), write(tmp_path / "g.npy", labels)
    if content is not None:
        (tmp_path / "side").write_text(content)
    line = refuse(
        capsys,
        tmp_path,
        "--scores",
        tmp_path / "p.npy",
        "--labels",
        tmp_path / "g.npy",
        "--unknown",
        2,
        flag,
        tmp_path / "side",
    )
    assert "side: " in line and message in line


@pytest.mark.parametrize(
    ("flag", "value"), [("--threshold", 0), ("--threshold", 1), ("--threshold", "nan"), ("--replicates", -1)]
)
def test_values_that_make_no_sense_are_refused(tmp_path, capsys, flag, value):
    assert flag in refuse(capsys, tmp_path, "--scores", "p.npy", "--labels", "g.npy", f"{flag}={value}")


@pytest.mark.parametrize("kind", ["npy", "npz", "parquet", "csv"])
def test_files_whose_names_are_no_text_are_judged(tmp_path, expected, kind):
    scores, labels = draw()
    (tmp_path / "here").mkdir()
    write(tmp_path / "here" / f"pred.{kind}", scores)
    write(tmp_path / "here" / f"gt.{kind}", labels)
    folder = (tmp_path / "here").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    metrics = score(folder, folder / f"pred.{kind}", folder / f"gt.{kind}", "--unknown", 2, replicates=0)
    assert metrics["overall"]["map"] == pytest.approx(expected["map"], abs=1e-6)
    assert metrics["source"] == {
        name: rf"{tmp_path}/caf\udce9/{file}.{kind}" for name, file in (("scores", "pred"), ("labels", "gt"))
    }


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    scores, labels = draw()
    write(tmp_path / "p.npy", scores), write(tmp_path / "g.npy", labels)
    (tmp_path / "taken").write_text("")
    words = ["score", "--scores", tmp_path / "p.npy", "--labels", tmp_path / "g.npy", "--unknown", 2, "--replicates", 0]
    assert main([str(word) for word in (*words, "--out", tmp_path / "taken")]) == 2
    assert "taken: Not a directory" in capsys.readouterr().err


def test_it_imports_no_torch_and_warns_of_nothing(tmp_path):
    scores, labels = draw()
    write(tmp_path / "p.npy", scores), write(tmp_path / "g.npy", labels)
    words = [
        "score",
        "--scores",
        str(tmp_path / "p.npy"),
        "--labels",
        str(tmp_path / "g.npy"),
        "--unknown",
        "2",
        "--out",
        str(tmp_path),
    ]
    script = f"import sys\nfrom attrtrain.cli import main\ncode = main({words})\nassert 'torch' not in sys.modules\nsys.exit(code)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "mAP" in done.stdout
