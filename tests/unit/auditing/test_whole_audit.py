"""All parts together, and the page."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from attrtrain.auditing import assemble, page
from attrtrain.auditing.assemble import Subject, audit
from attrtrain.auditing.coverage import describe_coverage
from attrtrain.auditing.document import AuditDocument
from attrtrain.auditing.structure import co_occurrence_test
from attrtrain.contract import read_contract, write_contract
from attrtrain.errors import LabelError

HOSTILE = "</script><img src=x onerror=alert(1)>"


def audited(table, coverage=None, **options):
    options = {"image_folders": [], "features_of": None, "pixel_objects": 0} | options
    return audit(Subject("labels", ["boxes.csv"], table, coverage, None), **options)


@pytest.fixture
def odd_table(make_table):
    """Sixty objects with something odd of every kind."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 6)).astype(np.float32)
    labels[:, 1], labels[:, 2], labels[:, 3], labels[:, 4] = 0, np.nan, labels[:, 0], 1 - labels[:, 0]
    box = np.column_stack([rng.random((60, 2)) * 100, 20 + rng.random((60, 2)) * 50])
    box[0] = [5, 5, 2, 40]
    return make_table(
        60,
        names=["a", "never", HOSTILE, "a again", "not a", "b"],
        labels=labels,
        box=box,
        image_id=np.arange(60) // 2,
        image=[f"{i // 2}.jpg" for i in range(60)],
        split=["train"] * 31 + ["val"] * 29,
        category=["dog"] * 40 + [HOSTILE] * 20,
    )


def test_what_is_odd_is_found_and_the_serious_comes_first(odd_table):
    coverage = describe_coverage(100, 60, ["instances_val2017.json"], {})
    document = audited(odd_table, coverage)
    texts = [(finding.severity, finding.text) for finding in document.findings]
    assert [severity for severity, _ in texts] == sorted(
        (severity for severity, _ in texts), key=["serious", "check", "note"].index
    )

    def said(severity, words):
        return any(severity == given and words in text for given, text in texts)

    assert said("serious", "train2017 is missing")
    assert said("serious", "1 photograph has objects in two splits, such as 15.jpg")
    assert said("check", "1 attribute is always unknown")
    assert said("check", "1 attribute is never positive: never")
    assert said("check", "1 box: narrower or lower")
    assert said("note", "1 pair of attributes is always positive or negative together")
    assert said("note", "2 pairs of attributes are always opposite")


def test_a_placeholder_is_serious_and_boxes_over_the_edge_or_of_the_whole_photograph_are_notes(make_table):
    box = [[10, 10, 50, 40]] * 8 + [[9, 9, 50 + i, 40] for i in range(32)]
    box[20], box[21] = [600, 9, 60, 40], [0, 0, 640, 480]
    document = audited(make_table(40, box=box, image_size=[[640, 480]] * 40))
    found = {finding.text: finding.severity for finding in document.findings}
    (placeholder,) = (text for text in found if text.startswith("8 boxes: the same box in at least 5 photographs"))
    (over,) = (text for text in found if text.startswith("1 box: more than a pixel over"))
    (whole,) = (text for text in found if text.startswith("1 box: as large as the photograph"))
    assert [found[text] for text in (placeholder, over, whole)] == ["serious", "note", "note"]


def test_counts_are_those_of_the_table(odd_table):
    document = audited(odd_table)
    assert (document.objects, document.images) == (60, 30)
    assert [(entry.name, entry.objects, entry.images) for entry in document.splits] == [
        ("train", 31, 16),
        ("val", 29, 15),
    ]
    entry = next(entry for entry in document.attributes if entry.name == "b")
    assert entry.positives == (odd_table.labels[:, 5] == 1).sum() and entry.positives + entry.negatives == 60
    assert document.known_share == pytest.approx(5 / 6)
    assert {test.name for test in document.tests} == {"co-occurrence", "photographs", "category and box"}
    assert document.pictures.compared == "nothing"


def test_attributes_that_a_split_hardly_has_are_named_for_that_split(make_table):
    """wet has 40 positives, four of them in val; dry as many negatives; gone is positive nowhere, which is said of it
    alone; even has five of each, which are enough.
    """
    split = np.array(["train"] * 60 + ["val"] * 20)
    wet = np.zeros(80)
    wet[:36] = wet[-4:] = 1
    even = np.full(80, np.nan)
    even[50:60] = even[-10:] = [0, 1] * 5
    names = ["wet", "dry", "gone", "even"]
    table = make_table(80, names=names, labels=np.stack([wet, 1 - wet, 0 * wet, even], axis=1), split=split)
    told = [finding.text for finding in audited(table).findings if finding.text.startswith("split ")]
    assert told == [
        "split 'val': 2 attributes have fewer than 5 known positives or 5 known negatives there, too few to learn from or to be in a mean: wet, dry"
    ]
    alone = audited(replace(table, split=np.array(["val"] * 80)))
    assert not [finding.text for finding in alone.findings if finding.text.startswith("split ")]


def test_the_page_has_the_counts_of_each_split(odd_table, tmp_path):
    page.write_page(audited(odd_table), tmp_path / "audit.html")
    cells = re.sub(r"<[^>]*>", "|", (tmp_path / "audit.html").read_text())
    assert re.search(r"category\|+objects\|+photographs\|+in train \(photographs\)\|+in val \(photographs\)", cells)
    assert re.search(r"\|dog\|+40\|+20\|+31 \|+\(16\)\|+9 \|+\(5\)", cells)
    positives = odd_table.labels[:, 5] == 1
    assert re.search(rf"\|b\|+{positives.sum()} \|+\({positives[:31].sum()} \+ {positives[31:].sum()}\)", cells)


def test_features_decide_where_they_are_given(odd_table):
    asked = []

    def features_of(rows):
        asked.extend(rows)
        return np.nan_to_num(odd_table.labels[rows]).astype(np.float64)  # all there is to know

    document = audited(odd_table, features_of=features_of, pixel_objects=1000)
    assert document.verdict == "learnable" and document.decided_by == "pixels"
    assert sorted(asked) == list(range(60))
    assert document.tests[-1].name == "pixels" and document.tests[-1].p_value == document.p_value == 1 / 400
    assert document.attributes[0].auroc_pixels == pytest.approx(1.0)


def test_of_many_objects_a_sample_is_tested_with_its_own_categories_labels_and_crops(make_table, monkeypatch):
    """Labels follow from categories, and features from labels, object by object: a row off, and none tells the
    other.
    """
    monkeypatch.setattr(assemble, "LABEL_OBJECTS", 120)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (400, 3)).astype(np.float32)
    category = ["".join("ab"[int(value)] for value in row) for row in labels]
    table = make_table(400, names=["a", "b", "c"], labels=labels, category=category, image_id=np.arange(400) // 2)
    asked = []

    def features_of(rows):
        asked.extend(rows)
        return labels[rows].astype(np.float64)

    tests = {test.name: test for test in audited(table, features_of=features_of, pixel_objects=80).tests}
    assert tests["category and box"].effect == pytest.approx(0.5, abs=0.01)  # an AUROC of 1
    assert tests["pixels"].effect == pytest.approx(0.5, abs=0.01)
    assert (tests["category and box"].objects, tests["pixels"].objects, len(asked)) == (120, 80, 80)


def test_each_test_is_told_as_the_verdict_weighs_it(make_table):
    """Beside the verdict stands the p-value that it rests on, and beside each effect the most that chance comes to."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 6)).astype(np.float32)
    labels[:, :2] = (np.arange(200) % 2)[:, None]
    labels[4:, 5] = np.nan  # too few known ones to be judged
    document = audited(make_table(200, names=list("abcdef"), labels=labels, category=["cat", "dog"] * 100))
    tests = {test.name: test for test in document.tests}
    assert document.decided_by == "category and box"
    deciding = tests[document.decided_by]
    assert (deciding.p_value, deciding.effect) == (document.p_value, document.effect)
    assert deciding.p_value == len(tests) / 400  # the smallest of 399 shuffles, once for each test that was made
    assert (deciding.judged, deciding.above_chance) == (5, 2)
    together = co_occurrence_test(labels, 399)
    assert tests["co-occurrence"].detectable == pytest.approx(np.quantile(together.null, 0.99))


def test_photographs_tell_the_sizes_that_annotations_lack(make_table, tmp_path):
    """The same box lies in the larger photograph and reaches over the edge of the smaller."""
    for name, size in (("small.png", (90, 90)), ("large.png", (300, 200))):
        Image.new("RGB", size).save(tmp_path / name)
    table = make_table(3, box=[[40, 40, 60, 60]] * 3, image=["small.png", "large.png", "small.png"])
    assert not [odd for odd in audited(table).boxes if odd.kind == "over_the_edge"]
    (over,) = (odd for odd in audited(table, image_folders=[tmp_path]).boxes if odd.kind == "over_the_edge")
    assert (over.count, over.examples) == (2, [0, 2])
    told = replace(table, image_size=np.array([[90, 90], [300, 200], [200, 200]]))  # by the last one's annotation
    (over,) = (odd for odd in audited(told, image_folders=[tmp_path]).boxes if odd.kind == "over_the_edge")
    assert over.examples == [0]


def test_of_many_crops_the_largest_of_each_photograph_is_compared(make_table, monkeypatch):
    """Photographs b and c have their large objects in common and lie in two splits; the small ones are all unlike."""
    monkeypatch.setattr(assemble, "_MOST_CROPS", 4)
    names, sides = ["c.jpg", "b.jpg", "a.jpg", "c.jpg", "b.jpg"], [40, 90, 70, 80, 50]
    looks = [1, 2, 3, 2, 4]  # of each object

    def jpeg(row):
        small = np.random.default_rng(looks[row]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    table = make_table(
        5,
        image=names,
        image_id=[3, 2, 1, 3, 2],
        box=[[5, 5, side, side] for side in sides],
        split=["val", "train", "train", "val", "train"],
    )
    pictures = audit(Subject("shards", ["shards"], table, None, jpeg), [], None, 0).pictures
    assert (pictures.compared, pictures.pictures, pictures.groups, pictures.across_splits) == ("crops", 3, 1, 1)
    assert [(same.images, same.splits) for same in pictures.examples] == [(["b.jpg", "c.jpg"], ["train", "val"])]
    assert pictures.note.startswith("the largest crop of each photograph")


def test_a_rate_is_of_known_labels(make_table):
    labels = np.array([[1], [1], [0], [np.nan], [np.nan]], dtype=np.float32)
    (entry,) = audited(make_table(5, labels=labels)).attributes
    assert (entry.positives, entry.negatives, entry.unknowns) == (2, 1, 2)
    assert entry.rate == pytest.approx(2 / 3)


def test_the_page_draws_all_effects_on_one_scale_and_has_most_positives_first(odd_table, tmp_path):
    document = audited(odd_table)
    tests = [
        test.model_copy(update={"name": name, "effect": effect, "detectable": chance})
        for test, name, effect, chance in zip(document.tests, "abc", (0.25, 0.9, -0.1), (0.1, 0.05, 0.02), strict=True)
    ]
    page.write_page(document.model_copy(update={"tests": tests}), tmp_path / "audit.html")
    html = (tmp_path / "audit.html").read_text()
    bars = re.findall(r'class="fill" style="width: ([\d.]+)%"></div><div class="mark" style="left: ([\d.]+)%', html)
    assert bars == [("50.0", "20.0"), ("100.0", "10.0"), ("0.0", "4.0")]
    table = html[html.index('aria-label="attributes"') :]
    positives = [int(cell) for cell in re.findall(r"</s></span></td><td>(\d+)", table)]
    assert len(positives) == 6 and positives == sorted(positives, reverse=True)


def test_the_document_is_read_as_it_was_written(odd_table, tmp_path):
    document = audited(odd_table)
    write_contract(document, tmp_path / "audit.json")
    assert read_contract(AuditDocument, tmp_path / "audit.json", LabelError) == document
    assert "NaN" not in (tmp_path / "audit.json").read_text()


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_asks_for_nothing_and_shows_hostile_names_as_text(odd_table, tmp_path):
    page.write_page(audited(odd_table), tmp_path / "audit.html")
    html = (tmp_path / "audit.html").read_text()
    parser = Tags()
    parser.feed(html)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in parser.tags}
    assert not re.search(r"https?:|url\(|@import", html)
    assert html.count("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;") >= 2  # attribute and category
    assert any(tag == "meta" and attrs.get("name") == "viewport" for tag, attrs in parser.tags)


def test_an_empty_table_is_audited(make_table, tmp_path):
    document = audited(make_table(0, box=np.zeros((0, 4)), labels=np.zeros((0, 1), dtype=np.float32)))
    assert document.verdict == "weak" and document.objects == 0
    page.write_page(document, tmp_path / "audit.html")
