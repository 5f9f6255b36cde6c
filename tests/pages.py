"""The documentation's own code, for the tests that run it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str = "python") -> list[str]:
    """The fenced blocks of a page in one language, without their indentation."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [
        "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
        for indent, name, text in found
        if name == language
    ]


def code(page: str, containing: str, *, language: str = "python") -> str:
    """The one block of ``page`` (a path below ``docs/``, or ``"README.md"``) with ``containing`` in it.

    Called with literals, so that :mod:`tests.test_docs` can tell which blocks no test runs.
    """
    path = ROOT / page if page == "README.md" else DOCS / page
    found = [block for block in blocks(path, language) if containing in block]
    assert len(found) == 1, f"{len(found)} blocks of {page} contain {containing!r}"
    return found[0]
