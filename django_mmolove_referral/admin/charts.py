"""Charts as SVG that any content security policy lets through: attributes instead of styles, and no script.

Only marks are drawn; they stretch to whatever room there is. Words stand beside the chart, as text of the page. Colours
are ``currentColor``, set by class in the stylesheet, so that they follow the admin's theme.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

HEIGHT = 100
WIDTH = 10
"""Of one column, with the gap to the next."""
GAP = 2
LEAST = 1
"""The height of a mark that would be too small to be seen."""


@dataclass(frozen=True)
class Series:
    """One kind of what is counted: its name, its colour's class, and a number for each column."""

    name: str
    tone: str
    values: Sequence[int]
    counted: Callable[[int], str] | None = None
    """The name as it stands behind a number, where it depends on that."""

    def of(self, count: int) -> str:
        """The name as it stands behind ``count``."""
        return self.name if self.counted is None else self.counted(count)


def columns(names: Sequence[str], series: Sequence[Series], label: str) -> SafeString:
    """Stacked columns, one for each of ``names``; ``label`` says the whole in words."""
    totals = [sum(one.values[number] for one in series) for number in range(len(names))]
    top = max(totals, default=0)
    return format_html(
        '<svg class="mmolove-columns" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">'
        "<title>{}</title>{}</svg>",
        label,
        max(len(names), 1) * WIDTH,
        HEIGHT,
        label,
        format_html_join("", "{}", ((_column(number, name, series, top),) for number, name in enumerate(names))),
    )


def _column(number: int, name: str, series: Sequence[Series], top: int) -> SafeString:
    said = "; ".join(f"{one.values[number]} {one.of(one.values[number])}" for one in series)
    marks, bottom = [], float(HEIGHT)
    for one in series:
        height = _height(one.values[number], top, len(series))
        bottom -= height
        if height:
            mark = _mark(number * WIDTH + GAP / 2, bottom, WIDTH - GAP, height, _said(name, one, number))
            marks.append(format_html('<g class="{}">{}</g>', one.tone, mark))
    # All of the column's room tells the day's numbers, as a mark may be too small to be pointed at.
    return format_html(
        '<g><title>{}: {}</title><rect x="{}" y="0" width="{}" height="{}" fill="none" pointer-events="all"/>{}</g>',
        name,
        said,
        number * WIDTH,
        WIDTH,
        HEIGHT,
        format_html_join("", "{}", ((mark,) for mark in marks)),
    )


def _said(name: str, series: Series, number: int) -> str:
    return f"{name}: {series.values[number]} {series.of(series.values[number])}"


def _height(value: int, top: int, series: int) -> float:
    """In proportion to ``top``, but for the least that is seen of each of ``series`` marks; together within the box."""
    return LEAST + value / top * (HEIGHT - series * LEAST) if value > 0 else 0.0


def bar(value: int, whole: int, label: str, tone: str = "mmolove-series") -> SafeString:
    """``value`` as a part of ``whole``, from left to right."""
    part = min(max(value / whole, 0.0), 1.0) * 100 if whole > 0 else 0.0
    return format_html(
        '<svg class="mmolove-bar" role="img" aria-label="{}" viewBox="0 0 100 10" preserveAspectRatio="none">'
        '<g class="mmolove-track"><rect x="0" y="0" width="100" height="10" fill="currentColor"/></g>'
        '<g class="{}">{}</g></svg>',
        label,
        tone,
        _mark(0, 0, part, 10, label),
    )


def _mark(x: float, y: float, width: float, height: float, title: str) -> SafeString:
    return format_html(
        '<rect x="{}" y="{}" width="{}" height="{}" fill="currentColor"><title>{}</title></rect>',
        *(_number(value) for value in (x, y, width, height)),
        title,
    )


def _number(value: float) -> str:
    """As SVG writes it, whatever the language."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def rate(value: int, whole: int) -> str:
    """A percentage in words of one place; a dash where there is nothing to divide by."""
    return _("%d %%") % round(100 * value / whole) if whole else "-"
