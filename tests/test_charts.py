"""Charts: nothing leaves the box, every number can be read, nothing is markup."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from django_mmolove_referral.admin.charts import HEIGHT, WIDTH, Series, bar, columns, rate

counts = st.integers(0, 5) | st.integers(0, 10**30)
texts = st.text(st.characters(exclude_categories=["C"]), max_size=12)


@st.composite
def charts(draw: st.DrawFn) -> tuple[list[str], list[Series], str]:
    days = draw(st.integers(0, 12))
    values = st.lists(counts, min_size=days, max_size=days)
    series = draw(st.lists(st.builds(Series, texts, st.just("mmolove-good"), values), min_size=1, max_size=4))
    return draw(st.lists(texts, min_size=days, max_size=days)), series, draw(texts)


def parsed(svg: str) -> ElementTree.Element:
    """The chart, which is well-formed, and is free of what a strict policy would block."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        assert "style" not in element.attrib
        assert not any(name.startswith("on") for name in element.attrib)
        assert element.tag in ("svg", "g", "rect", "title")
    assert root.attrib["role"] == "img"
    return root


def number(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name])


def marks(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [rect for rect in root.iter("rect") if rect.attrib["fill"] == "currentColor"]


@given(charts())
def test_marks_stay_in_the_box_and_do_not_overlap(chart: tuple[list[str], list[Series], str]) -> None:
    names, series, label = chart
    root = parsed(columns(names, series, label))
    _x, _y, width, height = map(float, root.attrib["viewBox"].split())
    assert (width, height) == (max(len(names), 1) * WIDTH, HEIGHT)
    for column, day in enumerate(root.findall("g")):
        bottom = height
        for mark in marks(day):
            assert (
                column * WIDTH <= number(mark, "x") < number(mark, "x") + number(mark, "width") <= (column + 1) * WIDTH
            )
            assert number(mark, "height") > 0
            assert number(mark, "y") >= -0.01
            assert number(mark, "y") + number(mark, "height") == pytest.approx(bottom, abs=0.01)
            bottom = number(mark, "y")


@given(charts())
def test_every_number_is_in_a_title(chart: tuple[list[str], list[Series], str]) -> None:
    names, series, label = chart
    root = parsed(columns(names, series, label))
    assert root.attrib["aria-label"] == label
    days = root.findall("g")
    assert len(days) == len(names)
    for column, (name, day) in enumerate(zip(names, days, strict=True)):
        told = "; ".join(f"{one.values[column]} {one.name}" for one in series)
        assert day.findtext("title") == f"{name}: {told}"
        assert [mark.findtext("title") for mark in marks(day)] == [
            f"{name}: {one.values[column]} {one.name}" for one in series if one.values[column]
        ]


@given(st.lists(counts, min_size=2, max_size=12))
def test_more_is_higher(values: list[int]) -> None:
    root = parsed(columns([str(value) for value in values], [Series("sign-ups", "tone", values)], "label"))
    heights = {
        value: number(mark, "height") if (mark := next(iter(marks(day)), None)) is not None else 0.0
        for value, day in zip(values, root.findall("g"), strict=True)
    }
    assert sorted(heights.values()) == [heights[value] for value in sorted(heights)]
    assert all((height > 0) == (value > 0) for value, height in heights.items())
    if any(values):
        assert max(heights.values()) == pytest.approx(HEIGHT, abs=0.01)


@given(counts, counts, texts)
def test_a_bar_is_never_longer_than_its_track(value: int, whole: int, label: str) -> None:
    track, mark = marks(parsed(bar(value, whole, label)))
    assert 0 <= number(mark, "width") <= number(track, "width")
    assert mark.findtext("title") == label
    if whole and value >= whole:
        assert number(mark, "width") == number(track, "width")


def test_one_column_fills_the_height_whatever_the_language() -> None:
    with translation.override("de"):
        svg = columns(["20. November"], [Series("Anmeldungen", "mmolove-series", [3])], "Anmeldungen")
    assert svg == (
        '<svg class="mmolove-columns" role="img" aria-label="Anmeldungen" viewBox="0 0 10 100" '
        'preserveAspectRatio="none"><title>Anmeldungen</title><g><title>20. November: 3 Anmeldungen</title>'
        '<rect x="0" y="0" width="10" height="100" fill="none" pointer-events="all"/>'
        '<g class="mmolove-series"><rect x="1" y="0" width="8" height="100" fill="currentColor">'
        "<title>20. November: 3 Anmeldungen</title></rect></g></g></svg>"
    )


def test_markup_is_text() -> None:
    svg = columns(['<b>"'], [Series("<i>", '"><script>', [1])], "</svg><script>alert(1)</script>")
    assert "<script" not in svg
    assert "<b>" not in svg
    assert "<i>" not in svg


@pytest.mark.parametrize(
    ("value", "whole", "told"), [(0, 0, "-"), (0, 3, "0 %"), (1, 3, "33 %"), (3, 3, "100 %"), (10**30, 10**30, "100 %")]
)
def test_rate(value: int, whole: int, told: str) -> None:
    assert rate(value, whole) == told
