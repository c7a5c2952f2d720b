"""The language of search beside a plain Python filter over rows, and beside people who mean harm."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from attrtrain.cli import main
from attrtrain.errors import AttrtrainError, ConfigError, PredictionsError
from attrtrain.inference.objects import Objects
from attrtrain.inference.query import Query, Sql, parse
from attrtrain.inference.results import METADATA, Job, ResultInfo, attribute_columns, base_columns
from attrtrain.inference.searching import Example, read_predictions_info, search
from attrtrain.shards.manifest import CropSettings

NAMES = ("furry", "sleeping", "wet / damp", 'so-called "new"', "category", "Furry", "rank", "man-made", "score0")
THRESHOLDS = (0.5, 0.25, 0.7, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5)
N = 300


def info_of(kind="attributes"):
    job = Job(kind=kind, model="m", precision="no", thresholds=list(THRESHOLDS), objects="o", images=["x"])
    return ResultInfo(
        job=job,
        attributes=attribute_columns(NAMES, THRESHOLDS, [""] * len(NAMES)),
        threshold_note="",
        crop=CropSettings(),
        written=N,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A file of predictions under an awkward name, and its rows as dictionaries."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("found") / "odd [1]*?"
    folder.mkdir()
    objects = Objects(
        object_id=rng.permutation(10 * N)[:N].astype(np.int64),
        image=np.array([f"{n // 3:012d}.jpg" for n in range(N)]),
        image_size=np.zeros((N, 2), np.int64),
        box=rng.uniform(0, 50, (N, 4)),
        category=np.array(["dog", "cat", "it's", ""])[rng.integers(0, 4, N)],
        crowd=np.zeros(N, bool),
        sources=(),
    )
    scores = rng.random((N, len(NAMES))).astype(np.float32).round(2)  # with ties
    info = info_of()
    columns = {one.column: pa.array(scores[:, n].copy()) for n, one in enumerate(info.attributes)}
    made = pa.table(base_columns(objects) | columns)
    path = folder / "preds.parquet"
    pq.write_table(made.replace_schema_metadata({METADATA: info.model_dump_json()}), path)
    rows = [
        {"object_id": int(objects.object_id[n]), "image": str(objects.image[n]), "category": str(objects.category[n]), "p": dict(zip(NAMES, map(float, scores[n]), strict=True))}
        for n in range(N)
    ]  # fmt: skip
    return path, rows


def T(row, name):
    return row["p"][name] >= THRESHOLDS[NAMES.index(name)]


# expression, its meaning, its joint score
CASES = [
    ("furry", lambda r: T(r, "furry"), lambda r: r["p"]["furry"]),
    ("FURRY >= 0", lambda r: True, None),  # two attributes differ only in case, so this is refused below
    ("not furry", lambda r: not T(r, "furry"), lambda r: 1 - r["p"]["furry"]),
    (
        "furry AND NOT sleeping AND category = 'dog'",
        lambda r: T(r, "furry") and not T(r, "sleeping") and r["category"] == "dog",
        lambda r: r["p"]["furry"] * (1 - r["p"]["sleeping"]),
    ),
    (
        'furry or "wet / damp" and sleeping',  # AND binds more
        lambda r: T(r, "furry") or (T(r, "wet / damp") and T(r, "sleeping")),
        lambda r: max(r["p"]["furry"], r["p"]["wet / damp"] * r["p"]["sleeping"]),
    ),
    (
        '(furry or "wet / damp") and sleeping',
        lambda r: (T(r, "furry") or T(r, "wet / damp")) and T(r, "sleeping"),
        lambda r: max(r["p"]["furry"], r["p"]["wet / damp"]) * r["p"]["sleeping"],
    ),
    (
        "NOT (furry AND sleeping)",
        lambda r: not (T(r, "furry") and T(r, "sleeping")),
        lambda r: 1 - r["p"]["furry"] * r["p"]["sleeping"],
    ),
    ("furry >= 0.8", lambda r: r["p"]["furry"] >= np.float32(0.8), lambda r: r["p"]["furry"]),
    ("furry<.2", lambda r: r["p"]["furry"] < np.float32(0.2), lambda r: 1 - r["p"]["furry"]),
    ("furry <= .25", lambda r: r["p"]["furry"] <= 0.25, lambda r: 1 - r["p"]["furry"]),
    (  # ids of COCO have seven digits and more; a long list of terms is not nested
        "furry and (object_id = 900100581904 or " + " or ".join(["object_id != 2204286"] * 60) + ")",
        lambda r: T(r, "furry"),
        lambda r: r["p"]["furry"],
    ),
    ("Furry", lambda r: T(r, "Furry"), lambda r: r["p"]["Furry"]),
    ("man-made > 5e-1", lambda r: r["p"]["man-made"] > 0.5, lambda r: r["p"]["man-made"]),
    ('"so-called ""new"""', lambda r: T(r, 'so-called "new"'), lambda r: r["p"]['so-called "new"']),
    ('"category" and category = \'cat\'', lambda r: T(r, "category") and r["category"] == "cat", lambda r: r["p"]["category"]),
    ("category = 'it''s'", lambda r: r["category"] == "it's", lambda r: 1.0),
    ("category <> '' and rank and score0", lambda r: r["category"] != "" and T(r, "rank") and T(r, "score0"), lambda r: r["p"]["rank"] * r["p"]["score0"]),
    ("category = 'dog' or furry", lambda r: r["category"] == "dog" or T(r, "furry"), lambda r: 1.0 if r["category"] == "dog" else r["p"]["furry"]),
    ("object_id < 500 and not not furry", lambda r: r["object_id"] < 500 and T(r, "furry"), lambda r: r["p"]["furry"]),
    ("image = '000000000007.jpg'", lambda r: r["image"] == "000000000007.jpg", lambda r: 1.0),
    ("category = 'horse'", lambda r: False, lambda r: 1.0),
    ("\n furry\tAND\n sleeping ", lambda r: T(r, "furry") and T(r, "sleeping"), lambda r: r["p"]["furry"] * r["p"]["sleeping"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "meant", "score"),
    [case for case in CASES if case[2]],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_found_and_in_which_order_is_what_a_plain_filter_finds(table, text, meant, score):
    path, rows = table
    expected = sorted(
        ((-score(row), row["object_id"], row) for row in rows if meant(row)),
        key=lambda entry: (round(entry[0], 9), entry[1]),
    )
    found, total = search(path, parse(text, info_of().attributes), None, 40)
    assert total == len(expected)
    assert [match.object_id for match in found] == [object_id for _, object_id, _ in expected[:40]]
    np.testing.assert_allclose([match.score for match in found], [-key for key, _, _ in expected[:40]], rtol=1e-6)
    for match, (_, _, row) in zip(found, expected, strict=False):
        assert (match.image, match.category) == (row["image"], row["category"])
        assert all(value == row["p"][name] for name, value in match.attributes)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("furry", lambda r: r["p"]["furry"] >= 0.5),
        ("not furry", lambda r: r["p"]["furry"] < 0.5),
        ("sleeping", lambda r: r["p"]["sleeping"] >= 0.25),
        ("furry >= 0.5", lambda r: r["p"]["furry"] >= 0.5),
        ("furry > 0.5", lambda r: r["p"]["furry"] > 0.5),
        ("furry <= 0.5", lambda r: r["p"]["furry"] <= 0.5),
        ("furry < 0.5", lambda r: r["p"]["furry"] < 0.5),
        ("furry = 0.5", lambda r: r["p"]["furry"] == 0.5),
        ("furry != 0.5", lambda r: r["p"]["furry"] != 0.5),
        ("furry > -0.5 and furry < +0.5", lambda r: r["p"]["furry"] < 0.5),
        ("object_id > -1 and object_id < +1500", lambda r: r["object_id"] < 1500),
        ("object_id <= 1500", lambda r: r["object_id"] <= 1500),
        ("object_id < 1500", lambda r: r["object_id"] < 1500),
        ("object_id >= 1500", lambda r: r["object_id"] >= 1500),
        ("object_id > 1500", lambda r: r["object_id"] > 1500),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_score_that_just_reaches_what_is_asked_is_told_from_one_that_passes_it(table, tmp_path, text, meant):
    """One half and one quarter have no rounding, so that files and thresholds hold the same numbers."""
    path, _ = table
    scores = {"furry": [0.5, 0.5, 0.25, 0.75, 0.125], "sleeping": [0.25, 0.125, 0.5, 0.25, 0.375]}
    whole = pq.read_table(path).slice(0, 5)
    for name, values in {"object_id": [1499, 1500, 1501, 7, 3000], **scores}.items():
        place = whole.schema.get_field_index(name)
        whole = whole.set_column(place, name, pa.array(values, whole.schema.field(name).type))
    pq.write_table(whole, tmp_path / "few.parquet")
    rows = [
        {"object_id": object_id, "p": dict(zip(scores, values, strict=True))}
        for object_id, *values in zip([1499, 1500, 1501, 7, 3000], *scores.values(), strict=True)
    ]
    found, total = search(tmp_path / "few.parquet", parse(text, info_of().attributes), None, 10)
    expected = {row["object_id"] for row in rows if meant(row)}
    assert {match.object_id for match in found} == expected and total == len(expected)
    assert 0 < total < 5


HOSTILE = [
    "furry; DROP TABLE predictions",
    "furry) UNION SELECT * FROM read_csv('/etc/passwd') --",
    "furry /* */ OR 1=1",
    "1=1",
    "'a' = 'a'",
    "furry OR 1",
    "\"furry\"\" >= 0) OR (1=1) --\"",
    "category = read_text('/etc/passwd')",
    "category = (SELECT 1)",
    "category LIKE '%'",
    "category IN ('dog')",
    "read_parquet('/etc/passwd')",
    "category = 'dog' --",
    "category = $1",
    "category = ?",
    "furry >= ?",
    "furry >= 1e400000 OR \\",
    "box",
    "predictions",
    "count(*)",
    "category",
    "furry = 'x'",
    "category = 5",
    "object_id = 1.5",
    "object_id = 99999999999999999999",
    "furry AND",
    "AND furry",
    "(furry",
    "furry)",
    "furry sleeping",
    "wet / damp",
    "category = 'dog",
    '"wet',
    "()",
    "NOT",
    "",
    "FURRY",
    "\0",
    "furry = 0x1F",
    "‘furry’",
    "(" * 60 + "furry" + ")" * 60,
    "NOT " * 400 + "furry",
    "furry AND " * 500 + "furry",
    "(" * 1_000_000,
    "furry & " + "sleeping " * 100,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_not_of_the_language_is_refused_in_one_line(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, info_of().attributes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_values_that_look_like_sql_are_values(table):
    path, _ = table
    for text in (
        "category = '''; DROP TABLE predictions; --'",
        "image = ''' OR 1=1 --'",
        "category = 'x'') OR (''a'' = ''a'",
    ):
        assert search(path, parse(text, info_of().attributes), None, 5) == ([], 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fury", "did you mean furry, Furry?"),
        ("sleepy", "did you mean sleeping?"),
        ("damp", 'did you mean "wet / damp"?'),
        ("DAMP", 'did you mean "wet / damp"?'),
        ("object_ids = 3", "did you mean object_id?"),
        ("xyzzyq", "none comes close"),
        ("category", "category = ... (category is no attribute), but the expression ends"),
        ("furry AND", "expected an attribute, a column, NOT or a parenthesis, but the expression ends"),
        ("furry AND AND", "expected an attribute, a column, NOT or a parenthesis, but there is 'AND'"),
        (
            "furry sleeping",
            "expected AND, OR or the end (a name with spaces goes in double quotes), but there is 'sleeping'",
        ),
        ("category = 5", "expected a text in single quotes to compare category with, but there is '5'"),
        ("furry & sleeping", "at character 7: '& sleeping' is no part of the language"),
        ("wet / damp", "'/ damp' is no part of the language (a name with such signs goes in double quotes)"),
        ("3d AND furry", "'3d AND furry' is no part of the language (a name with such signs goes in double quotes)"),
        ("category = 'dog", "at character 12: a quote that nothing closes"),
        ('furry or "wet', "at character 10: a quote that nothing closes"),
    ],
)
def test_a_mistake_is_told_with_what_would_do(text, told):
    with pytest.raises(ConfigError) as caught:
        parse(text, info_of().attributes)
    assert told in str(caught.value)


def test_a_name_in_another_case_is_found_where_only_one_is_meant(table):
    found, total = search(table[0], parse("SLEEPING and Man-Made", info_of().attributes), None, 1000)
    assert total == len(found) == sum(T(row, "sleeping") and T(row, "man-made") for row in table[1])


def test_a_name_is_a_word_of_any_language_and_in_quotes_one_of_this_language_or_a_column():
    attributes = attribute_columns(("größe", "not", "and"), (0.5, 0.5, 0.5), ("", "", ""))
    rows = pa.table(
        {"größe": [0.9, 0.9, 0.2], "not": [0.8, 0.1, 0.9], "and": [0.7, 0.9, 0.9], "category": ["x", "y", "y"]}
    )

    def found(expression):
        query = parse(expression, attributes)
        with duckdb.connect() as connection:
            connection.register("rows", rows)
            asked = connection.execute(f"SELECT {query.matches.text} FROM rows", query.matches.values)
            return [row for (row,) in asked.fetchall()]

    assert found("Größe") == [True, True, False]
    assert found('"not" AND NOT "and" <= 0.6') == [True, False, True]
    assert found("\"category\" = 'y'") == [False, True, True]


def test_the_longest_and_the_deepest_expressions_are_still_understood():
    for deep in ("(" * 49 + "furry" + ")" * 49, "NOT " * 49 + "furry"):
        assert parse(deep, info_of().attributes).attributes[0].name == "furry"
        with pytest.raises(ConfigError, match="nested more than 50 deep"):
            parse(f"NOT {deep}", info_of().attributes)
    assert parse("furry".ljust(2000), info_of().attributes).attributes[0].name == "furry"
    with pytest.raises(ConfigError, match=r"2,001 characters; 2,000 is the most"):
        parse("furry".ljust(2001), info_of().attributes)


def test_an_attribute_that_is_named_twice_is_shown_once(table):
    found, _ = search(table[0], parse("furry > 0.2 and sleeping and furry < 0.8", info_of().attributes), None, 1)
    assert [name for name, _ in found[0].attributes] == ["furry", "sleeping"]


def test_neighbours_are_ranked_by_the_cosine_of_their_features(table, tmp_path):
    path, rows = table
    rng = np.random.default_rng(1)
    features = rng.normal(size=(N, 16)).astype(np.float32)
    features[5] = 0  # no direction
    some = pa.table(
        {
            "object_id": [row["object_id"] for row in rows],
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), 16),
        }
    )
    some = some.take(rng.permutation(N)).replace_schema_metadata({METADATA: info_of("features").model_dump_json()})
    pq.write_table(some, tmp_path / "f.parquet")
    unit = features.astype(np.float64) / np.maximum(
        np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True), 1e-30
    )
    cosine = unit @ unit[17]
    example = Example(rows[17]["object_id"], tmp_path / "f.parquet")
    order = [n for n in np.argsort(-cosine) if n not in (5, 17)]
    found, total = search(path, None, example, 25)
    assert total == N - 2 and [match.object_id for match in found] == [rows[n]["object_id"] for n in order[:25]]
    np.testing.assert_allclose([match.score for match in found], cosine[order[:25]], atol=1e-5)
    query = parse("furry and category = 'dog'", info_of().attributes)
    found, total = search(path, query, example, 25)
    chosen = [n for n in order if T(rows[n], "furry") and rows[n]["category"] == "dog"]
    assert total == len(chosen) and [match.object_id for match in found] == [rows[n]["object_id"] for n in chosen[:25]]
    assert found[0].attributes == [("furry", rows[chosen[0]]["p"]["furry"])]
    assert search(path, None, Example(rows[5]["object_id"], tmp_path / "f.parquet"), 25) == ([], 0)
    with pytest.raises(PredictionsError, match="has no object 999999"):
        search(path, None, Example(999999, tmp_path / "f.parquet"), 5)
    for other in (path, tmp_path / "f.npy"):
        with pytest.raises(ConfigError, match=r"needs the \.parquet file that `attrtrain features` writes"):
            search(path, None, Example(1, other), 5)
    with pytest.raises(PredictionsError, match="holds features"):
        read_predictions_info(tmp_path / "f.parquet")


def test_files_that_are_something_else_are_told_in_one_line(tmp_path):
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "folder.parquet").mkdir()
    one = pa.table({"object_id": [1]})
    pq.write_table(one, tmp_path / "other.parquet")
    newer = info_of().model_dump_json().replace('"schema_version":1', '"schema_version":2')
    pq.write_table(one.replace_schema_metadata({METADATA: newer}), tmp_path / "newer.parquet")
    for name, told in (
        ("text.parquet", "not a file that"),
        ("other.parquet", "not a file that"),
        ("folder.parquet", "not a file that"),
        ("newer.parquet", r"not a file that `attrtrain annotate` or `attrtrain features` of this version wrote"),
        ("no.parquet", "no such file"),
    ):
        with pytest.raises(AttrtrainError, match=told) as caught:
            read_predictions_info(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_rows_that_cannot_be_read_are_told_in_one_line(table, tmp_path, capsys):
    """The end of the file, which says what it is, is as it was."""
    written = table[0].read_bytes()
    end = len(written) - 8 - int.from_bytes(written[-8:-4], "little")
    path = tmp_path / "preds.parquet"
    path.write_bytes(b"PAR1".ljust(end, b"\xff") + written[end:])
    assert main(["search", str(path), "furry"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {path}: cannot be searched (") and err.count("\n") == 1
    with duckdb.connect() as connection, pytest.raises(duckdb.Error) as reason:
        connection.register("predictions", pyarrow.dataset.dataset(path))
        connection.execute("SELECT * FROM predictions").fetchall()
    assert " ".join(str(reason.value).split()).encode("unicode_escape").decode() in err  # all of it, in one line


def test_the_database_that_searches_opens_no_file(table, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for reader in ("read_csv", "read_text"):
        reads = Sql(f"(SELECT count(*) FROM {reader}('{tmp_path / 'secret.csv'}'))::DOUBLE")
        with pytest.raises(PredictionsError, match="file system operations are disabled"):
            search(table[0], Query(Sql("true"), reads, ()), None, 5)


def test_columns_are_called_like_attributes_and_never_twice():
    columns = attribute_columns(["a", "A", "a (2)", "box", "Image"], [0.5] * 5, [""] * 5)
    assert [column.column for column in columns] == ["a", "A (2)", "a (2) (2)", "box (2)", "Image (2)"]
    assert [column.name for column in columns] == ["a", "A", "a (2)", "box", "Image"]


def test_an_attribute_that_no_training_object_had_is_false_and_ranks_nothing():
    attributes = attribute_columns(("furry", "unseen"), (0.5, 1.0), ("", ""))
    rows = pa.table({"furry": pa.array([0.9, 0.8, 0.2]), "unseen": pa.array([0.1, 1.0, 1.0])})

    def of(expression):
        query = parse(expression, attributes)
        asked = f"SELECT {query.matches.text}, {query.score.text} FROM rows"
        with duckdb.connect() as connection:
            connection.register("rows", rows)
            return connection.execute(asked, query.matches.values + query.score.values).fetchall()

    assert of("unseen") == [(False, 0)] * 3
    assert of("NOT unseen") == [(True, 1)] * 3
    assert of("furry OR unseen") == of("furry") == of("furry AND NOT unseen")
    assert of("unseen >= 0.5") == [(False, 0.1), (True, 1), (True, 1)]  # who asks for its scores gets them


def test_a_search_for_what_no_training_object_had_says_why_it_finds_nothing(tmp_path, capsys):
    thresholds = [1.0, *THRESHOLDS[1:]]
    info = info_of().model_copy(update={"attributes": attribute_columns(NAMES, thresholds, [""] * len(NAMES))})
    objects = Objects(
        *(np.array([1]), np.array(["a.jpg"]), np.zeros((1, 2), np.int64), np.zeros((1, 4)), np.array(["dog"])),
        crowd=np.zeros(1, bool),
        sources=(),
    )
    made = pa.table(base_columns(objects) | {one.column: pa.array([1.0]) for one in info.attributes})
    path = tmp_path / "preds.parquet"
    pq.write_table(made.replace_schema_metadata({METADATA: info.model_dump_json()}), path)
    assert main(["search", str(path), "furry AND sleeping"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("0 of 300 objects match")
    assert err == "note: no object had 'furry' in training: it is never present, and its scores mean nothing\n"


def test_names_that_a_search_finds_do_not_move_the_terminal(tmp_path, capsys):
    info = info_of()
    named = (np.array(["a\nb.jpg"]), np.zeros((1, 2), np.int64), np.zeros((1, 4)), np.array(["\x1b[2Jdog"]))
    objects = Objects(np.array([1]), *named, crowd=np.zeros(1, bool), sources=())
    made = pa.table(base_columns(objects) | {one.column: pa.array([1.0]) for one in info.attributes})
    pq.write_table(made.replace_schema_metadata({METADATA: info.model_dump_json()}), tmp_path / "preds.parquet")
    assert main(["search", str(tmp_path / "preds.parquet"), "furry"]) == 0
    line, total = capsys.readouterr().out.splitlines()
    assert r"\x1b[2Jdog" in line and r"a\nb.jpg" in line and total.startswith("1 of")
