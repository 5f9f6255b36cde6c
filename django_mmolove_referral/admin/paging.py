"""Lists that stay as fast with a million rows as with a thousand: capped counts, short reads in one fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Page, Paginator
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.functional import cached_property

if TYPE_CHECKING:
    Base = Paginator[Any]
else:  # generic for the type checker only
    Base = Paginator

CAP = 10_000
"""Rows that are counted, and that can be paged through, at most. Older ones are found by filters and searches."""


class AtLeast(int):
    """A number that says of itself that there are more: ``10,000+``."""

    capped = True

    def __str__(self) -> str:
        if settings.USE_THOUSAND_SEPARATOR:
            return super().__repr__()  # Django's templates set the separators, which has to be done to a number
        return f"{number_format(int(self), force_grouping=True)}+"


def counted(rows: QuerySet[Any]) -> int:
    """How many ``rows`` there are, if that is not more than ``CAP``: the database stops counting there."""
    count = rows.order_by()[: CAP + 1].count()
    return AtLeast(CAP) if count > CAP else count


def newest(rows: QuerySet[Any], start: int, stop: int, *, count: int) -> list[Any]:
    """The rows of one page, the newest first; ``count`` is what :func:`counted` told of them.

    Their keys first, which indexes alone can tell, then the rows with what is joined to them. Few rows are found by
    an index and sorted; for many the primary key is walked backwards until the page is full. Left to itself a
    database now and then walks all of the primary key for few rows, hence the "+ 0", which keeps it from that.
    """
    order = "-pk" if isinstance(count, AtLeast) else (F("pk") + 0).desc()
    keys = list(rows.order_by(order).values_list("pk", flat=True)[start:stop])
    page = rows.model._default_manager.using(rows.db).filter(pk__in=keys)
    page.query.select_related = rows.query.select_related
    found = {row.pk: row for row in page} if keys else {}
    return [found[key] for key in keys if key in found]


class LogPaginator(Base):
    """Pages through the newest ``CAP`` rows: no page, not even the last, makes the database count or skip more."""

    object_list: QuerySet[Any]

    @cached_property
    def count(self) -> int:
        return counted(self.object_list)

    def page(self, number: int | str) -> Page[Any]:
        valid = self.validate_number(number)
        start = (valid - 1) * self.per_page
        return Page(self.rows(start, min(start + self.per_page, self.count)), valid, self)

    def rows(self, start: int, stop: int) -> Sequence[Any]:
        return newest(self.object_list, start, stop, count=self.count)


class LogChangeList(ChangeList):
    """A list of the log: always the newest first, as every other order would have to be sorted."""

    paginator: LogPaginator

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not (self.query or self.has_active_filters):
            self.full_result_count = self.result_count  # all are shown: no "2 results (Show all)"
        if isinstance(self.result_list, QuerySet):  # all on one page
            self.result_list = self.paginator.rows(0, self.result_count)
