"""A real headless Chromium, driven by Playwright; it opens pages from disk and may ask nobody for anything."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from report_data import HOSTILE, document_of, drawn_predictions

from attrtrain.data.reader import ShardSet
from attrtrain.report.run_report import write_report

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
HISTORY = """
{"kind": "train", "step": 10, "loss": 0.7, "lr": 0.001}
{"kind": "val", "step": 15, "epoch": 1, "map": 0.3, "prior_map": 0.2, "loss": 0.6}
{"kind": "train", "step": 20, "loss": 0.5, "lr": 0.0005}
{"kind": "val", "step": 30, "epoch": 2, "map": 0.4, "prior_map": 0.2, "loss": 0.55}
"""


@dataclass
class OpenedPage:
    """A page, and what went wrong in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")  # not longer: while Playwright runs, this thread can run no other event loop
def browser() -> Iterator[Browser]:
    """The browser. Where there is none, tests skip, and fail in CI."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        if os.environ.get("CI") or os.environ.get("ATTRTRAIN_REQUIRE_CHROMIUM") == "1":
            pytest.fail("no Chromium: install the package chromium")
        pytest.skip("no Chromium: install the package chromium")
    with sync_playwright() as playwright:
        # Root, in a container, has no sandbox; the pages are our own.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a file. When the test ends, the page must have complained of nothing and asked for nothing but itself."""
    opened: list[OpenedPage] = []

    def open_file(path: Path, *, width: int = 1280, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        one = OpenedPage(context.new_page())
        opened.append(one)
        page = one.page
        page.on("console", lambda message: one.complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: one.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (one.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        allowed = path.resolve().as_uri()

        def judge(request) -> None:
            if request.url.split("#")[0] != allowed and not request.url.startswith("data:"):
                one.complaints.append(f"request: {request.url}")

        page.on("request", judge)
        page.goto(allowed)
        return page

    yield open_file
    complaints = [text for one in opened for text in one.complaints]
    for one in opened:
        one.page.context.close()
    assert complaints == []


@pytest.fixture
def barriers() -> Callable[[Page], list[str]]:
    """Tells what axe-core, which checks pages against the W3C's guidelines (WCAG 2), finds wrong with one."""

    def find(page: Page) -> list[str]:
        violations = Axe().run(page).response["violations"]
        return [f"{rule['id']}: {node['html'][:200]}" for rule in violations for node in rule["nodes"]]

    return find


@pytest.fixture(scope="session")
def report_page(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on the toy's crops with made-up scores and hostile names. Read it, never write it."""
    folder = tmp_path_factory.mktemp("report")
    shards = ShardSet([toy_shards], "train")  # enough for several pages of objects
    predictions = drawn_predictions(objects=len(shards), attributes=20, known=0.9, names=HOSTILE)
    predictions.labels[:, 9] = 0  # no positive
    predictions.labels[:, 11] = np.arange(len(shards)) < 2  # too few
    predictions = changed(predictions, object_id=shards.object_ids, image_id=shards.column("image_id"))
    (folder / "metrics.jsonl").write_text(HISTORY.lstrip())
    document = document_of(predictions)
    document.source["protocol"] = "protocol, except in 2 points:\n  - one\n  - two"
    write_report(
        folder / "report.html",
        title="toy",
        document=document,
        predictions=predictions,
        shards=shards,
        settings="train:\n  epochs: 2\n",
        history=folder / "metrics.jsonl",
        audit={"verdict": "learnable", "p_value": 0.001, "effect": 0.2},
        versions={"attrtrain": "9.9.9"},
    )
    return folder / "report.html"
