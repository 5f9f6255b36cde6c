"""Every Python block of the documentation is taken by a test; which ones are not is said with page and line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.pages import ROOT, Block, blocks, code, pages


class Taken(NamedTuple):
    """A call that takes code from a page: one block with these words in it, or (no words) all blocks."""

    page: str
    words: str | None
    where: str


@lru_cache
def taken() -> list[Taken]:
    """Calls of :func:`~tests.pages.code` and :func:`~tests.pages.blocks` with literal arguments, in all tests."""
    return [found for path in sorted((ROOT / "tests").rglob("*.py")) for found in _calls(path)]


def _calls(path: Path) -> Iterator[Taken]:
    source = path.read_text(encoding="utf-8")
    if "tests.pages" not in source and "pages import" not in source:
        return
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        literals = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        if not literals or not str(literals[0]).endswith(".md"):
            continue
        where = f"{path.relative_to(ROOT)}:{node.lineno}"
        if name == "code" and len(literals) > 1:
            yield Taken(str(literals[0]), str(literals[1]), where)
        elif name == "blocks":
            yield Taken(str(literals[0]), None, where)


def runs(call: Taken, block: Block) -> bool:
    return call.page == block.page and (call.words is None or call.words in block.text)


def test_each_python_block_is_run_by_a_test() -> None:
    left = [
        f"{block.where}: {block.text.strip().splitlines()[0]}"
        for page in pages()
        for block in blocks(page, "python")
        if not any(runs(call, block) for call in taken())
    ]
    assert not left, "No test takes these blocks with tests.pages.code():\n" + "\n".join(left)


def test_no_test_takes_a_block_that_is_gone() -> None:
    gone = [
        f"{call.where}: {call.words!r} in {call.page}"
        for call in taken()
        if call.words is not None and not any(runs(call, block) for block in blocks(call.page))
    ]
    assert not gone, "\n".join(gone)


def test_a_block_is_told_by_words_that_only_it_has() -> None:
    with pytest.raises(AssertionError, match=r"0 blocks of README\.md"):
        code("README.md", "no such" + " words")
    with pytest.raises(AssertionError, match=r"\d+ blocks of README\.md"):
        code("README.md", " ")
    assert all(re.search(r"\S", block.text) for block in blocks("README.md", "python"))
