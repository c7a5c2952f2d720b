"""The page of `attrtrain serve`, as somebody meets it who tries a model."""

import re
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from attrtrain.inference.predictor import Predictor
from attrtrain.predict import predict
from tests.bundles import NAMES, draw_bundle

HOSTILE = "<img src=x onerror=alert(1)>"
LONG = "right_shoulder_visible_from_behind_in_the_mirror"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return draw_bundle(tmp_path_factory.mktemp("page") / "bundle", (HOSTILE, LONG, *NAMES), thresholds=[0.0] * 9)


@contextmanager
def served(bundle):
    words = [sys.executable, "-m", "attrtrain", "serve", "--model", str(bundle), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http://\S+", process.stdout.readline())[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def address(bundle):
    with served(bundle) as started:
        yield started


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((160, 120)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def opened(browser, address):
    complaints, contexts = [], []

    def open_at(width=1280, dark=False, address=address):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "console", lambda message: complaints.append(message.text) if "policy" in message.text.lower() else None
        )
        page.on("request", lambda one: complaints.append(one.url) if not one.url.startswith((address, "blob:", "data:")) else None)  # fmt: skip
        page.goto(address)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert complaints == []


def shown(page, text):
    page.locator("#which").filter(has_text=re.compile("^" + re.escape(text))).wait_for()
    rows = page.locator("#attributes tbody tr")
    return {row.locator("th").inner_text(): float(row.locator("td").nth(1).inner_text()) for row in rows.all()}


def scores(bundle, picture, boxes, category=""):
    return {
        one["name"]: pytest.approx(one["score"], abs=1e-3)
        for one in predict(Predictor(bundle), picture, boxes, 9, category)[-1]["attributes"]
    }


def test_a_box_is_drawn_and_its_attributes_are_shown(opened, bundle, picture):
    page = opened()
    page.set_input_files("#file", picture)
    assert shown(page, "The whole picture") == scores(bundle, picture, [])
    frame = page.locator("#picture").bounding_box()
    page.mouse.move(frame["x"] + 20, frame["y"] + 10)
    page.mouse.down()
    page.mouse.move(frame["x"] + 80, frame["y"] + 60)
    page.mouse.up()
    assert shown(page, "Box 1: 20, 10, 60, 50.") == scores(bundle, picture, [(20, 10, 60, 50)])
    bar = page.locator("#attributes .fill").first.bounding_box()
    track = page.locator("#attributes .track").first.bounding_box()
    first = float(page.locator("#attributes tbody td").nth(1).inner_text())
    assert bar["width"] / track["width"] == pytest.approx(first, abs=0.02)


def test_the_keyboard_alone_is_enough(opened, bundle, picture):
    page = opened()
    page.set_input_files("#file", picture)
    shown(page, "The whole picture")
    page.locator("summary").press("Enter")
    for field, value in (("x", "5"), ("y", "6"), ("width", "50"), ("height", "40")):
        page.fill(f"#{field}", value)
    page.locator("#height").press("Enter")
    assert shown(page, "Box 1: 5, 6, 50, 40.") == scores(bundle, picture, [(5, 6, 50, 40)])
    page.get_by_label("Remove box 1").press("Enter")
    shown(page, "The whole picture")


def test_a_picture_is_dropped(opened, bundle, picture):
    page = opened()
    dropped = page.evaluate_handle(
        """bytes => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([new Uint8Array(bytes)], "photo.png", { type: "image/png" }));
            return dropped;
        }""",
        list(picture.read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    assert shown(page, "The whole picture") == scores(bundle, picture, [])
    assert page.evaluate("() => document.getElementById('file').files[0].name") == "photo.png"


def test_what_is_wrong_is_said_in_words(opened, picture, tmp_path):
    page = opened()
    (tmp_path / "notes.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.get_by_role("alert").wait_for()
    assert "not a picture of a known kind" in page.get_by_role("alert").inner_text()
    page.set_input_files("#file", picture)
    shown(page, "The whole picture")
    assert page.locator("#error").is_hidden()


@pytest.mark.parametrize("kind", ["TIFF", "turned WEBP"])
def test_where_the_browser_shows_another_picture_boxes_are_given_as_numbers(opened, bundle, picture, tmp_path, kind):
    page, path = opened(), tmp_path / "photo"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(picture).save(path, kind.split()[-1], lossless=True, **({"exif": exif} if "turned" in kind else {}))
    page.set_input_files("#file", {"name": "photo", "mimeType": "", "buffer": path.read_bytes()})
    shown(page, "The whole picture")
    assert "give boxes as numbers" in page.get_by_role("alert").inner_text()
    frame = page.locator("#stage").bounding_box()
    page.mouse.move(frame["x"] + 2, frame["y"] + 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + 12, frame["y"] + 12)
    page.mouse.up()
    assert page.locator("#boxes li").count() == 0
    page.locator("summary").click()
    for field, value in (("x", "5"), ("y", "6"), ("width", "50"), ("height", "40")):
        page.fill(f"#{field}", value)
    page.locator("#height").press("Enter")
    assert shown(page, "Box 1: 5, 6, 50, 40.") == scores(bundle, path, [(5, 6, 50, 40)])


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_every_width_and_shuts_nobody_out(opened, picture, barriers, width, dark):
    page = opened(width, dark)
    page.set_input_files("#file", picture)
    shown(page, "The whole picture")
    page.locator("summary").click()
    assert barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_a_category_is_chosen_only_where_the_model_knows_some(opened, picture, barriers, tmp_path):
    page = opened()
    assert page.locator("#about").inner_text() and page.get_by_label("What the objects are").is_hidden()
    told = draw_bundle(tmp_path / "told", categories=("cat", HOSTILE), thresholds=[0.0] * len(NAMES))
    with served(told) as address:
        page = opened(320, address=address)
        choice = page.get_by_label("What the objects are")
        choice.wait_for()
        assert choice.locator("option").all_inner_texts() == ["not known", HOSTILE, "cat"]
        page.set_input_files("#file", picture)
        assert shown(page, "The whole picture") == scores(told, picture, [])
        for category in ("cat", HOSTILE, ""):
            with page.expect_response("**/predict") as answer:
                choice.select_option(category)
            answer.value.finished()
            page.locator("#work:not(.waiting)").wait_for()
            assert shown(page, "The whole picture") == scores(told, picture, [], category)
        assert scores(told, picture, [], "cat") != scores(told, picture, [])
        assert barriers(page) == []
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
