"""A page as its readers see it: headings with their anchors, links, tables, and text without code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tests.pages import DOCS, ROOT, pages, read

OTHERS = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
"""Pages at the top of the repository, beside the README."""

_FENCE = re.compile(r"^ *(```|:::).*?^ *\1$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


class Link(NamedTuple):
    page: Path
    line: int
    target: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@lru_cache
def files() -> tuple[Path, ...]:
    """Every page there is."""
    top = [ROOT / name for name in OTHERS if (ROOT / name).exists()]
    return (*top, *(ROOT / page if page == "README.md" else DOCS / page for page in pages()))


@lru_cache
def prose(path: Path) -> str:
    """A page's text; fenced code is blank lines, so that line numbers stay."""
    text = path.read_text(encoding="utf-8")
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


@lru_cache
def anchors(path: Path) -> frozenset[str]:
    """What a link to this page may name after ``#``, as GitHub and the site make it of the headings."""
    found: list[str] = []
    for _level, heading in _HEADING.findall(prose(path)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return frozenset(found)


def links(path: Path) -> Iterator[Link]:
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", lambda match: "`" * len(match[0]), prose(path))
    for match in _LINK.finditer(text):
        yield Link(path, text.count("\n", 0, match.start()) + 1, match[1])


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    text = read(page)
    match = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert match, f"{page} has no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in ``text``, without their heads."""
    found: list[list[str]] = []
    body = False
    for line in text.splitlines():
        if not line.lstrip().startswith("|"):
            body = False
        elif re.fullmatch(r"[|\s:-]+", line):
            body = True
        elif body:
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
    return found


def names(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)
