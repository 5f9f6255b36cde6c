"""The documentation's own code, for the tests that run it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^( *)(```|:::)(\S*)[^\n]*\n(.*?)^\1\2$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    #: The line of its first line of text, from 1.
    line: int
    language: str
    #: Without its indentation.
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """The pages, as paths below ``docs/``, and ``"README.md"``."""
    found = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md") if "_build" not in path.parts)
    return ["README.md", *(path.as_posix() for path in found)]


def path_of(page: str) -> Path:
    return ROOT / page if page == "README.md" else DOCS / page


@lru_cache
def read(page: str) -> str:
    return path_of(page).read_text(encoding="utf-8")


def blocks(page: str, language: str = "") -> Iterator[Block]:
    """The fenced blocks of a page, in one language or in any, in their order."""
    for match in _FENCE.finditer(read(page)):
        indent, _fence, name, text = match.groups()
        if language in ("", name):
            plain = "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
            yield Block(page, read(page).count("\n", 0, match.start(4)) + 1, name, plain)


def code(page: str, containing: str, *, language: str = "python") -> str:
    """The one block of ``page`` (a path below ``docs/``, or ``"README.md"``) with ``containing`` in it.

    Called with literals, so that :mod:`tests.test_docs` can tell which blocks no test runs.
    """
    found = [block for block in blocks(page, language) if containing in block.text]
    assert len(found) == 1, f"{len(found)} blocks of {page} contain {containing!r}"
    return found[0].text
