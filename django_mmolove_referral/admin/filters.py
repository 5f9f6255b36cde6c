"""Filters that never scan: their choices come from code and settings, and what they ask for is in an index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..conf import ALIAS_LENGTH, ConfigError, conf
from ..models import OutboundEvent, Reward
from .paging import counted

State = OutboundEvent.State

NEEDS_ATTENTION = (State.REJECTED.value, State.EXHAUSTED.value)
"""Where events are that nothing but a person gets any further."""


class Choice(admin.SimpleListFilter):
    """One of a few values; another is told to be none."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if value not in {str(choice) for choice, _title in self.lookup_choices}:
            raise IncorrectLookupParameters(f"{self.parameter_name} cannot be {value!r}")
        return self.narrow(queryset, value)

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        raise NotImplementedError


class StateFilter(Choice):
    title = _("state")
    parameter_name = "state__exact"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return list(model_admin.model.State.choices)

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(state=value)


class KindFilter(Choice):
    title = _("kind")
    parameter_name = "kind__exact"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return list(OutboundEvent.KINDS)

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        # In any state: with that the index on state and kind can be used.
        return queryset.filter(kind=value, state__in=State.values)


class ServerFilter(Choice):
    """The configured servers, if there are several. A link may name one that is not configured any more."""

    title = _("server")
    parameter_name = "server"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        try:
            aliases = set(conf.servers)
        except ConfigError:
            aliases = set()
        value = self.value()
        if value is not None and value.isprintable() and 0 < len(value) <= ALIAS_LENGTH:
            aliases.add(value)
        return [(alias, alias) for alias in sorted(aliases)]

    def has_output(self) -> bool:
        return len(self.lookup_choices) > 1 or self.value() is not None

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(server=value)


class StatusFilter(Choice):
    title = _("HTTP status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [*((f"{digit}xx", f"{digit}xx") for digit in "2345"), ("none", _("none: no answer yet"))]

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        if value != "2xx":
            # Only a 200 is accepted, and nearly all are: the index on state, kind and status spares those.
            kinds = [kind for kind, _title in OutboundEvent.KINDS]
            unaccepted = [state for state in State.values if state != State.ACCEPTED]
            queryset = queryset.filter(state__in=unaccepted, kind__in=kinds)
        if value == "none":
            return queryset.filter(Q(last_status__isnull=True) | Q(last_status=0))
        first = int(value[0]) * 100
        return queryset.filter(last_status__gte=first, last_status__lt=first + 100)


class AttentionFilter(admin.SimpleListFilter):
    """What nothing but a person gets any further, and how much of it there is."""

    title = _("attention")
    parameter_name = "attention"

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        if self.value() not in (None, "1"):
            raise IncorrectLookupParameters(f"attention cannot be {self.value()!r}")

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        count = counted(self.needing(model_admin.get_queryset(request)))
        return [("1", gettext("Needs attention (%s)") % count)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else self.needing(queryset)

    def needing(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        raise NotImplementedError


class EventsNeedingAttention(AttentionFilter):
    """Rejected and exhausted: redelivering is a person's decision."""

    def needing(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state__in=NEEDS_ATTENTION)


class RewardsNeedingAttention(AttentionFilter):
    """Due, but the portal's receiver raised, or there is none."""

    def needing(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=Reward.State.DUE).exclude(last_error="")


class PeriodFilter(admin.SimpleListFilter):
    """When it was written: a while up to now, or from one day to another (both included)."""

    title = _("time")
    parameter_name = "created"
    template = "admin/mmolove_referral/period_filter.html"
    bounds: ClassVar = ("created_from", "created_to")
    spans: ClassVar = {
        "1h": (timedelta(hours=1), _("The last hour")),
        "24h": (timedelta(hours=24), _("The last 24 hours")),
        "7d": (timedelta(days=7), _("The last 7 days")),
        "30d": (timedelta(days=30), _("The last 30 days")),
    }

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.days: dict[str, date | None] = {name: _day(params.pop(name, [""])[-1]) for name in self.bounds}
        self.others: list[tuple[str, str]] = []

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name, *self.bounds]

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [(value, title) for value, (_span, title) in self.spans.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value, (first, last) = self.value(), self.days.values()
        if value is not None:
            if value not in self.spans:
                raise IncorrectLookupParameters(f"created cannot be {value!r}")
            queryset = queryset.filter(created_at__gte=timezone.now() - self.spans[value][0])
        if first is not None:
            queryset = queryset.filter(created_at__gte=_start(first))
        if last is not None:
            queryset = queryset.filter(created_at__lt=_start(last + timedelta(days=1)))
        return queryset

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        self.others = [
            (name, value)
            for name, values in changelist.filter_params.items()
            if name not in self.expected_parameters()
            for value in values
        ]
        custom = any(self.days.values())
        yield {
            "selected": self.value() is None and not custom,
            "query_string": changelist.get_query_string(remove=[self.parameter_name, *self.bounds]),
            "display": gettext("All"),
        }
        for value, title in self.lookup_choices:
            yield {
                "selected": self.value() == value and not custom,
                "query_string": changelist.get_query_string({self.parameter_name: value}, remove=list(self.bounds)),
                "display": title,
            }


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text) if text else None
    except ValueError:
        day = date.max
    if day is not None and not 1900 <= day.year <= 9000:
        raise IncorrectLookupParameters(f"{text!r} is no day")
    return day


def _start(day: date) -> datetime:
    """Midnight in the time zone of whoever asks."""
    midnight = datetime.combine(day, time.min)
    return timezone.make_aware(midnight) if settings.USE_TZ else midnight


def parameters(filters: Any) -> set[str]:
    """The parameters of an address that ``filters`` understand."""
    found = {filter_class.parameter_name for filter_class in filters}
    return found | {name for filter_class in filters for name in getattr(filter_class, "bounds", ())}
