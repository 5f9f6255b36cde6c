"""Links and anchors lead somewhere, on GitHub and on the site; pictures are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.site import Link, anchors, files, links
from tests.pages import DOCS, ROOT, blocks, pages


def broken(link: Link) -> str:
    if re.match(r"[a-z]+:", link.target):
        return (
            "" if link.target.startswith(("https://", "http://127.0.0.1", "mailto:")) else "is neither https nor here"
        )
    name, _, anchor = link.target.partition("#")
    target = (link.page.parent / name).resolve() if name else link.page
    if not target.exists():
        return "is not there"
    if link.page.is_relative_to(DOCS) and not target.is_relative_to(DOCS):
        return "is outside docs/, where the site has no page"
    if anchor and target.suffix == ".md" and anchor not in _all_anchors(target):
        return f"has no heading #{anchor}; there are {', '.join(sorted(_all_anchors(target)))}"
    return ""


def _all_anchors(path: Path) -> frozenset[str]:
    """With those of what a page includes."""
    included = re.findall(r"^```\{include\} (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return anchors(path).union(*(anchors((path.parent / name).resolve()) for name in included))


@pytest.mark.parametrize("page", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = [f"{link.where}: {link.target} {why}" for link in links(page) if (why := broken(link))]
    assert not wrong, "\n".join(wrong)


def test_a_broken_link_is_seen() -> None:
    page = DOCS / "index.md"
    assert broken(Link(page, 1, "nowhere.md")) == "is not there"
    assert broken(Link(page, 1, "admin.md#nothing")).startswith("has no heading #nothing")
    assert broken(Link(page, 1, "../LICENSE")) == "is outside docs/, where the site has no page"
    assert broken(Link(page, 1, "images/none.png")) == "is not there"
    assert broken(Link(page, 1, "ftp://example.com")) == "is neither https nor here"
    assert broken(Link(page, 1, "admin.md#who-may-what")) == ""


def test_each_page_is_in_the_site_s_navigation() -> None:
    listed = {
        entry.rpartition("<")[2].rstrip(">")
        for block in blocks("index.md", "{toctree}")
        for entry in block.text.splitlines()
        if entry and not entry.startswith(":")
    }
    named = {link.target for link in links(DOCS / "index.md") if link.target.endswith(".md")}
    for page in pages():
        if page in ("README.md", "index.md"):
            continue
        name = page.removesuffix(".md")
        assert name in listed, f"{page} is in no toctree of index.md"
        # The integrations have an overview of their own.
        assert page in named or page.startswith("integrations/"), f"{page} is not in index.md's table of all pages"
