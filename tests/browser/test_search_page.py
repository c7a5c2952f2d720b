"""The page of a search as a reader meets it."""

import io

import pytest
from PIL import Image
from report_data import HOSTILE

from attrtrain.report.pictures import small_uri
from attrtrain.report.search_page import Found, write_search_page


@pytest.fixture(scope="module")
def search_page(tmp_path_factory):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 120), "teal").save(buffer, "JPEG")
    uri = small_uri(buffer.getvalue(), 224)
    found = [
        Found(n, f"{HOSTILE[n % 5]}.jpg", HOSTILE[(n + 1) % 5], 1 - n / 10, uri if n else "", "" if n else "image missing", [(HOSTILE[n % 5], 0.5), ("x_" * 40, 0.25)])
        for n in range(8)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("search") / "found.html"
    write_search_page(path, " AND ".join(HOSTILE), "joint score", 1234, found)
    return path


def test_it_shows_what_was_asked_and_found_as_text(search_page, open_page):
    page = open_page(search_page)
    assert HOSTILE[0] in page.inner_text("h1") and HOSTILE[3] in page.inner_text("h1")
    assert "1,234 objects found; the best 8 are shown. Ranked by joint score." in page.inner_text(".lead")
    assert page.locator("figure").count() == 8 and page.locator("figure img").count() == 7
    assert page.eval_on_selector_all("figure img", "all => all.every(one => one.naturalWidth === 224)")
    assert "image missing" in page.locator("figure").first.inner_text()


def test_a_phone_shows_it_without_sideways_scrolling(search_page, open_page):
    page = open_page(search_page, width=375)
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


@pytest.mark.parametrize("dark", [False, True])
def test_nobody_is_shut_out(search_page, open_page, barriers, dark):
    assert barriers(open_page(search_page, dark=dark)) == []


def test_a_page_that_is_full_says_so(tmp_path):
    found = [Found(n, "a.jpg", "dog", 0.5, "data:image/webp;base64," + "A" * 1_000_000, "", []) for n in range(9)]
    write_search_page(tmp_path / "p.html", "", "joint score", 9, found)
    html = (tmp_path / "p.html").read_text()
    assert len(html) < 5_000_000 and html.count("the page is full") == 5 and html.count("<img") == 4
