"""The audit's page as a reader meets it."""

import pytest

from attrtrain.auditing.document import AuditDocument, Relation, Relations
from attrtrain.auditing.noise_test import PIXELS, SIDE
from attrtrain.auditing.page import write_page
from attrtrain.cli import main
from attrtrain.contract import read_contract
from attrtrain.errors import ConfigError
from attrtrain.run_layout import AUDIT


@pytest.fixture(scope="module")
def audit_page(toy_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    assert main(["audit", str(toy_shards), "--out", str(folder)]) == 0
    return folder / "audit.html"


@pytest.fixture(scope="module")
def widest_audit(audit_page, tmp_path_factory):
    """A page with every column: attributes tested by pixels, and a remark on one."""
    document = read_contract(AuditDocument, audit_page.with_name(AUDIT), ConfigError)
    pixels = next(test for test in document.tests if test.name == SIDE).model_copy(update={"name": PIXELS})
    attributes = [entry.model_copy(update={"auroc_pixels": 0.76}) for entry in document.attributes]
    notes = ["never positive: no vote share reaches 0.5, the highest is 0.333"]
    attributes[0] = attributes[0].model_copy(update={"name": "left_shoulder_visible", "notes": notes})
    same = Relation(kind="duplicate", first="a", second="b", objects=90, support=40, exceptions=0, expected=44.4)
    relations = Relations(duplicates=1, complements=0, implied=0, examples=[same])
    changed = {"tests": [*document.tests, pixels], "attributes": attributes, "relations": relations}
    path = tmp_path_factory.mktemp("widest") / "audit.html"
    write_page(document.model_copy(update=changed), path)
    return path


def test_it_says_the_verdict_and_has_every_part(audit_page, open_page):
    page = open_page(audit_page)
    assert page.inner_text("h1") == "These labels look learnable"
    titles = page.locator("h2").all_inner_texts()
    assert titles[:2] == ["Findings", "Learnable, or noise?"] and titles[-1] == "Attributes"
    assert page.locator("section.test .fill").count() == 3
    assert page.locator("h2:text-is('Attributes') ~ .scroll tbody tr").count() == 30
    widths = page.eval_on_selector_all(".share", "bars => bars.map(bar => bar.scrollWidth - bar.clientWidth)")
    assert len(widths) == 30 and max(widths) <= 0  # positives and negatives fit into the whole


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_sideways_scrolling(audit_page, open_page, dark):
    page = open_page(audit_page, width=375, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    page.screenshot(path=audit_page.with_name(f"phone-{dark}.png"), full_page=True)


@pytest.mark.parametrize("dark", [False, True])
def test_nobody_is_shut_out(audit_page, open_page, barriers, dark):
    assert barriers(open_page(audit_page, dark=dark)) == []


def columns_cut_off(page):
    """Headings, what is told of pixels and remarks among them, that lie outside what is shown of their table."""
    return page.eval_on_selector_all(
        ".scroll th",
        """cells => cells.filter(cell => cell.getBoundingClientRect().width
            && cell.getBoundingClientRect().right > cell.closest('.scroll').getBoundingClientRect().right + 1).map(cell => cell.innerText)""",
    )


@pytest.mark.parametrize(("width", "media"), [(1300, "screen"), (718, "print")])  # 718 pixels of an A4 page
def test_no_column_of_the_widest_audit_is_cut_off(widest_audit, open_page, width, media):
    page = open_page(widest_audit, width=width)
    page.emulate_media(media=media)
    headings = page.locator("th").all_inner_texts()
    assert "by pixels" in headings and "remarks" in headings
    assert columns_cut_off(page) == []


def test_it_prints_whole(widest_audit, open_page):
    page = open_page(widest_audit)
    folded = "document.querySelector('[aria-label=relations] td').checkVisibility()"
    assert not page.evaluate(folded)  # a click away on a screen; paper has none
    page.emulate_media(media="print")
    assert page.evaluate(folded)
    assert page.pdf().startswith(b"%PDF")
