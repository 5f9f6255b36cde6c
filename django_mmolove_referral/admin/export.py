"""The list that is open, as CSV: streamed in chunks, so that a million rows take the memory of a thousand."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from io import StringIO
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

CHUNK = 1000
"""Rows that are read, and kept in memory, at a time."""
BOM = "\ufeff"
"""Tells spreadsheets that the text is UTF-8."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
Columns = Mapping[str, Callable[[Any], object]]


def exported(request: HttpRequest, rows: QuerySet[Any], columns: Columns, name: str) -> StreamingHttpResponse:
    """A download of ``rows``, the newest first; ``columns``: what stands in each, by its heading."""
    chunks = _chunks(rows, columns)
    return StreamingHttpResponse(
        # Under ASGI only an asynchronous iterator is streamed.
        _in_threads(chunks) if isinstance(request, ASGIRequest) else chunks,
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="mmolove-{name}-{timezone.now():%Y-%m-%d}.csv"',
            "Cache-Control": "private, no-store",
        },
    )


def cell(value: object) -> str:
    """``value`` as text that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text


def _chunks(rows: QuerySet[Any], columns: Columns) -> Iterator[str]:
    """A key at a time is remembered instead of a cursor: MariaDB's client would hold the whole result."""
    yield BOM + _lines([list(columns)])
    page = list(rows.order_by("-pk")[:CHUNK])
    while page:
        yield _lines([[cell(column(row)) for column in columns.values()] for row in page])
        page = list(rows.order_by("-pk").filter(pk__lt=page[-1].pk)[:CHUNK]) if len(page) == CHUNK else []


def _lines(rows: list[list[str]]) -> str:
    out = StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


async def _in_threads(chunks: Iterator[str]) -> AsyncIterator[str]:
    following = sync_to_async(lambda: next(chunks, None))
    while (chunk := await following()) is not None:
        yield chunk
