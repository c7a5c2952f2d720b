"""The audit's page as a reader meets it."""

import pytest

from attrtrain.cli import main


@pytest.fixture(scope="module")
def audit_page(toy_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    assert main(["audit", str(toy_shards), "--out", str(folder)]) == 0
    return folder / "audit.html"


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


def test_it_prints(audit_page, open_page):
    assert open_page(audit_page).pdf().startswith(b"%PDF")
