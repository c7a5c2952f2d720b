"""The page as a file; tests/browser opens it."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_data import HOSTILE, document_of, drawn_predictions

from attrtrain.data.reader import ShardSet
from attrtrain.errors import PredictionsError
from attrtrain.report.render import MAX_BYTES, embedded
from attrtrain.report.run_report import write_report


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.scripts, self._inside = [], [], [], None
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        (self.scripts if self._inside == "script" else self.text).append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    @property
    def data(self):
        return json.loads(self.scripts[0], parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def report(path, predictions, document=None, **changes):
    values = {
        "title": "drawn",
        "document": document_of(predictions) if document is None else document,
        "predictions": predictions,
        "shards": None,
        "settings": "train:\n  epochs: 3\n",
        "history": None,
        "audit": None,
        "versions": {"attrtrain": "9.9.9"},
    }
    write_report(path, **(values | changes))
    return Page(path)


def test_the_page_tells_what_was_measured(tmp_path):
    predictions = drawn_predictions()
    document = document_of(predictions)
    page = report(
        tmp_path / "report.html", predictions, document, audit={"verdict": "weak", "p_value": 0.04, "effect": 0.01}
    )
    assert "200 objects in 67 photographs" in page.words
    assert f"{document.overall['map']:.3f}" in page.words
    low, high = document.intervals["map"]
    assert f"95 % interval {low:.3f} to {high:.3f}, by bootstrap over images" in page.words
    assert "Label audit: weak p = 0.04, effect = 0.01" in page.words
    assert "leave-one-photograph-out" in page.words and "cross-fitted" in page.words
    assert "0123456789abcdef" in page.words and "attrtrain 9.9.9" in page.words and "epochs: 3" in page.words
    assert "no such object" in page.words  # why a view is empty
    for name in predictions.names:
        assert name in page.words


def test_objects_have_their_labelled_positives_and_no_column_says_that_these_are_true_positives(tmp_path):
    predictions = drawn_predictions()
    page = report(tmp_path / "report.html", predictions)
    samples = page.data["samples"]
    assert samples["present"] == (predictions.labels >= 0.5).sum(axis=1).tolist()
    assert samples["present"] != list(map(len, samples["right"]))  # true positives: labelled present, and predicted
    heads = page.words.split("Open an object for its attributes.")[1]
    assert "predicted + labelled + known" in heads and "true positives" not in page.html.lower()


def test_left_out_attributes_are_listed_with_their_number(tmp_path):
    predictions = drawn_predictions()
    predictions.labels[:, 3] = np.nan
    predictions.labels[:, 7] = 0
    document = document_of(predictions)
    assert document.left_out.count == 2
    page = report(tmp_path / "report.html", predictions, document)
    assert "10 attributes judged, 2 left out" in page.words
    assert "2 attributes left out of the means" in page.words and "fewer than 5 known positives" in page.words
    assert "attribute 3, attribute 7" in page.words


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_hardly_anything_to_show_is_still_a_page(tmp_path, objects):
    predictions = drawn_predictions(objects=objects, attributes=2)
    page = report(tmp_path / "report.html", predictions)
    assert "No attribute has enough known labels to be judged" in page.words
    assert len(page.data["samples"]["id"]) == objects


def test_nothing_known_is_still_a_page(tmp_path):
    predictions = drawn_predictions(objects=20)
    predictions.labels[:] = np.nan
    assert "12 left out" in report(tmp_path / "report.html", predictions).words


def test_hostile_names_stay_text(tmp_path):
    predictions = drawn_predictions(names=HOSTILE)
    predictions = replace(predictions, category=np.array(["</script><script>alert(3)</script>"] * 200))
    page = report(
        tmp_path / "report.html", predictions, title="<script>alert(4)</script>", settings="</pre><script>alert(5)"
    )
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in page.tags]
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert page.data["names"][:5] == list(HOSTILE)
    assert "{{ 7 * 7 }}" in page.words and "49" not in page.data["names"]


def test_data_in_a_script_can_neither_end_it_nor_hold_nan():
    text = embedded({"name": "</script><!--<script>&\u2028\u2029é"})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"name": "</script><!--<script>&\u2028\u2029é"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded({"score": float("nan")})


def test_the_page_asks_nobody_for_anything(tmp_path):
    page = report(tmp_path / "report.html", drawn_predictions())
    assert "default-src 'none'" in page.html
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        for name in ("src", "href", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "url(" not in page.html and "@import" not in page.html


class NoisyShards:
    """Crops of noise, which no codec makes small, for any number of objects."""

    def __init__(self, object_ids):
        self.object_ids = object_ids
        noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG", quality=90)
        self._jpeg = buffer.getvalue()

    def jpeg(self, position):
        return self._jpeg


@pytest.mark.parametrize(("objects", "attributes"), [(8_000, 204), (3_000, 1000)])
def test_a_large_page_stays_below_the_limit_and_says_what_is_left_out(tmp_path, objects, attributes):
    predictions = drawn_predictions(objects=objects, attributes=attributes, known=0.5)
    page = report(tmp_path / "report.html", predictions, shards=NoisyShards(predictions.object_id))
    assert len(page.html.encode()) < MAX_BYTES
    assert len(page.data["pictures"]) > 10  # the budget was used ...
    wanted = {row for entry in page.data["attributes"] for kind in entry["mistakes"] for row, _ in kind}
    assert len(wanted) > len(page.data["pictures"])  # ... and was not enough
    shown = len(page.data["samples"]["id"])
    assert 100 < shown < objects
    assert f"{shown:,} of {objects:,} objects, drawn by hashed id" in page.words


def test_with_shards_there_are_pictures_and_each_is_in_the_page_once(tmp_path, toy_shards):
    shards = ShardSet([toy_shards], "val")
    predictions = drawn_predictions(objects=len(shards), attributes=6)
    predictions = replace(predictions, object_id=shards.object_ids)
    page = report(tmp_path / "report.html", predictions, shards=shards)
    gallery = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(gallery) == min(24, len(shards))
    assert all(attributes["alt"].startswith("Crop of object ") for attributes in gallery)
    uris = [attributes["src"] for attributes in gallery] + list(page.data["pictures"].values())
    assert len(uris) == len(set(uris)) and all(uri.startswith("data:image/webp;base64,") for uri in uris)
    wanted = {str(row) for entry in page.data["attributes"] for kind in entry["mistakes"] for row, _ in kind}
    shown = {attributes["id"].removeprefix("picture-") for attributes in gallery} | set(page.data["pictures"])
    assert wanted <= shown and "There are no pictures" not in page.words


def test_attributes_begin_with_the_highest_ap_and_end_with_those_that_are_left_out(tmp_path):
    """Each beside its own column of the data, whatever the document's order."""
    predictions = drawn_predictions()
    document = document_of(predictions)
    changed = {"judged": False, "ap": 0.99}  # of three positives, say
    entries = [
        entry.model_copy(update=changed) if entry.name == "attribute 4" else entry for entry in document.attributes
    ]
    page = report(tmp_path / "report.html", predictions, document.model_copy(update={"attributes": entries[::-1]}))
    rows = re.findall(r'<tr data-column="(\d+)"[^>]*><th scope="row" data-value="([^"]+)"', page.html)
    assert all(page.data["names"][int(column)] == name for column, name in rows)
    judged = sorted((entry for entry in entries if entry.judged), key=lambda entry: -entry.ap)
    assert [name for _, name in rows] == [*(entry.name for entry in judged), "attribute 4"]


def test_without_shards_the_page_says_so(tmp_path):
    page = report(tmp_path / "a.html", drawn_predictions())
    assert "There are no pictures: the shards are not at hand." in page.words
    page = report(tmp_path / "b.html", drawn_predictions(), no_pictures="There are no pictures: gone.")
    assert "There are no pictures: gone." in page.words


def test_shards_of_other_objects_give_no_pictures(tmp_path, toy_shards):
    predictions = replace(drawn_predictions(), object_id=np.arange(10**12, 10**12 + 200))
    page = report(tmp_path / "report.html", predictions, shards=ShardSet([toy_shards], "val"))
    assert "the shards hold other objects than were judged" in page.words


def test_metrics_of_other_predictions_are_refused_and_nothing_is_written(tmp_path):
    predictions = drawn_predictions()
    with pytest.raises(PredictionsError, match="200 objects, predictions are for 199"):
        fewer = drawn_predictions(objects=199)
        report(tmp_path / "report.html", fewer, document_of(predictions))
    with pytest.raises(PredictionsError, match="different attributes"):
        report(tmp_path / "report.html", drawn_predictions(attributes=11), document_of(predictions))
    assert list(tmp_path.iterdir()) == []


def test_the_same_input_gives_the_same_bytes(tmp_path, toy_shards):
    shards = ShardSet([toy_shards], "val")
    predictions = replace(drawn_predictions(objects=len(shards)), object_id=shards.object_ids)
    pages = [report(tmp_path / f"{number}.html", predictions, shards=shards).html for number in range(2)]
    assert pages[0] == pages[1]
