"""Text out of data shows on a model card as it is, whatever characters it has."""

import pytest
from markdown_it import MarkdownIt

from attrtrain.publishing.model_card import as_text


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
