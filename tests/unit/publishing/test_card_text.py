"""Text out of data shows on a model card as it is, whatever characters it has."""

from pathlib import Path
from typing import get_args

import cmarkgfm
import pytest
from markdown_it import MarkdownIt

from attrtrain.config.schema import Head, UnknownLabels
from attrtrain.publishing import model_card
from attrtrain.publishing.model_card import as_text, write_card
from attrtrain.publishing.options import CardOptions
from attrtrain.publishing.published_model import read_published_model
from tests.bundles import draw_bundle


@pytest.mark.parametrize(
    "text",
    [
        "plain name", "a / b", "a|b", "`code`", "*bold* _under_ ~~gone~~", "<script>alert(1)</script>", "<!-- x", "![a](b)", "[a]: b",
        "# heading", "\\", "\\|", "&amp; &lt;", "{{ 7 * 7 }}", "naïve 日本", "a\u2028b",
    ],
)  # fmt: skip
def test_a_name_stays_itself_in_a_table_and_in_a_line(text: str) -> None:
    reader = MarkdownIt("commonmark").enable("table")
    for source in (f"| a | b |\n|---|---|\n| {as_text(text)} | x |", f"- **x**: {as_text(text)}, more"):
        tokens = [child for token in reader.parse(source) for child in token.children or []]
        assert not {child.type for child in tokens} & {"html_inline", "link_open", "image", "code_inline", "em_open"}
    cells = [
        token for token in reader.parse(f"| a | b |\n|---|---|\n| {as_text(text)} | x |") if token.type == "inline"
    ]
    assert [child.type for child in cells[2].children if child.type not in ("text", "text_special")] == []
    seen = "".join(child.content for child in cells[2].children)
    assert seen == " ".join(text.split()) and cells[3].children[0].content == "x"


def test_a_name_cannot_begin_another_line() -> None:
    assert "\n" not in as_text("a\n\n# heading\n- item")


@pytest.mark.parametrize(
    "text",
    ["http://evil.example/now", "see https://a.example", "www.evil.example", "WWW.evil.example", "me@evil.example", "ftp://a.example/b", "![p](http://a.example/x.png)"],
)  # fmt: skip
def test_an_address_in_a_name_is_no_link_where_github_makes_links(text: str) -> None:
    for source in (f"| a | b |\n|---|---|\n| {as_text(text)} | x |", f"- **x**: {as_text(text)}, more"):
        page = cmarkgfm.github_flavored_markdown_to_html(source)
        assert "<a " not in page and "<img" not in page
        assert text in page.replace("\u2060", "")
    assert "<a " in cmarkgfm.github_flavored_markdown_to_html("www.evil.example")


def test_every_head_and_meaning_of_unknown_labels_has_words() -> None:
    assert set(model_card._HEADS) == set(get_args(Head)) and set(model_card._UNKNOWN) == set(get_args(UnknownLabels))


@pytest.mark.parametrize("written", ["[mask]", "{mask: 1}", "5", "mask"])
def test_a_config_that_somebody_edited_says_what_unknown_labels_meant_or_that_it_is_missing(
    tmp_path: Path, written: str
) -> None:
    draw_bundle(tmp_path / "bundle")
    (tmp_path / "config.yaml").write_text(f"labels:\n  unknown: {written}\n")
    card = write_card(read_published_model(tmp_path), CardOptions(), ".")
    told = model_card._UNKNOWN["mask"] if written == "mask" else "Missing: what unknown labels meant to the loss."
    assert f"- **Labels.** {told} No unknown label" in card


@pytest.mark.parametrize(
    ("audit", "told"),
    [('{"verdict": "noise"}', "noise"), ('{"reason": "p = 0.6"}', "unknown: p = 0.6")],
)
def test_an_audit_that_says_less_is_told_as_far_as_it_goes(tmp_path: Path, audit: str, told: str) -> None:
    draw_bundle(tmp_path / "bundle")
    (tmp_path / "audit.json").write_text(audit)
    assert f"- Label audit: {told}.\n" in write_card(read_published_model(tmp_path), CardOptions(), ".")
