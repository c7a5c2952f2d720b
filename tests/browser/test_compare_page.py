"""The page that compares two runs, as a reader meets it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_data import HOSTILE, drawn_predictions

from attrtrain.metrics.judge import judge
from attrtrain.report.compare import compare
from attrtrain.report.compare_report import write_comparison
from attrtrain.report.run_directory import JudgedRun


@pytest.fixture(scope="module")
def compare_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    good = drawn_predictions(objects=300, attributes=20, known=0.9, names=HOSTILE)
    logits = good.logits.copy()
    logits[:, 10:13] = np.random.default_rng(0).normal(size=(300, 3))
    runs = []
    for name, predictions in (("a", replace(good, logits=logits)), ("b", good)):
        (folder / name).mkdir()
        history = folder / name / "metrics.jsonl"
        history.write_text(
            "".join(f'{{"kind": "val", "step": {s}, "epoch": {s}, "map": 0.{s}, "loss": 1}}\n' for s in (1, 2, 3))
        )
        document = judge(predictions, source={"split": "val"}, replicates=30)
        runs.append(JudgedRun(folder / name, document, predictions, "", {"run": {"name": f"<b>{name}"}}, history, None))
    write_comparison(folder / "compare.html", compare(*runs))
    return Path(folder / "compare.html")


def rows(page):
    return page.eval_on_selector_all(
        "#attribute-table tbody tr:not([hidden])",
        "rows => rows.map(row => [...row.cells].map(cell => cell.dataset.value))",
    )


def test_it_sorts_and_filters(compare_page, open_page):
    page = open_page(compare_page)
    assert page.title() == "a and b · attrtrain"
    differences = [float(row[4]) for row in rows(page)]
    assert len(differences) == 20 and differences == sorted(differences, reverse=True)
    page.select_option("#attribute-finding", "better")
    assert {row[0] for row in rows(page)} == {"attribute 10", "attribute 11", "attribute 12"}
    assert page.inner_text("#attribute-count") == "3 of 20 attributes"
    page.select_option("#attribute-finding", "")
    page.fill("#attribute-search", "onerror")
    assert len(rows(page)) == 1
    page.fill("#attribute-search", "")
    head = page.locator("#attribute-table thead th").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and len(rows(page)) == 20


def test_it_has_curves_of_both_and_the_settings_that_differ(compare_page, open_page):
    page = open_page(compare_page)
    assert page.locator("#training svg[role=img]").count() == 2  # nothing was logged in training
    label = page.locator("#training svg[role=img]").first.get_attribute("aria-label")
    assert "A: " in label and "B: " in label
    assert page.inner_text("#settings tbody tr").split() == ["run.name", "<b>a", "<b>b"]


@pytest.mark.parametrize("width", [320, 375, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_every_width_and_shuts_nobody_out(compare_page, open_page, barriers, width, dark):
    page = open_page(compare_page, width=width, dark=dark)
    assert barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_it_prints(compare_page, open_page):
    assert open_page(compare_page).pdf(format="A4").startswith(b"%PDF")
