"""What the pages in docs/ tell people to type."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def commands(page: str) -> list[str]:
    """The command lines of a page, one a line but for those that go on behind a backslash."""
    joined = (re.sub(r"\\\n\s*", "", block) for block in blocks(page, "bash"))
    return [line for block in joined for line in block.splitlines()]
