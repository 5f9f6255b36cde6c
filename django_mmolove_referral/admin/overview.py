"""The overview: how referrals and deliveries stand, what needs a person, and where to click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.formats import date_format, number_format
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import advice
from ..conf import ConfigError
from ..models import OutboundEvent
from ..stats import COUNTED, Day, Stats, collect
from ..window import DAYS, Referrer
from .attention import attention, listed
from .base import LogAdmin, linked
from .cards import Card, cards
from .charts import Series, bar, columns, rate
from .pages import page

NEEDED = tuple(
    f"mmolove_referral.view_{model}"
    for model in ("referral", "outboundevent", "deliveryattempt", "reward", "serverhealth")
)
"""The page tells of all these, so it is for those who may see all of them."""


def overview(admin: LogAdmin[Any], request: HttpRequest) -> HttpResponse:
    """The page, on ``admin``'s site."""
    if not request.user.has_perms(NEEDED):
        raise PermissionDenied
    stats = collect()
    site = admin.admin_site.name
    found = attention(site)
    return page(
        admin,
        request,
        "overview",
        _("Overview"),
        well=_well(stats),
        needs=found,
        urgent=any(need.urgent for need in found),
        days=_period(stats),
        tiles=_tiles(stats, site),
        charts=[_signups(stats.days), _deliveries(stats.days)],
        funnel=_funnel(stats),
        referrers=_referrers(stats.referrers, site),
        servers=_cards(stats),
        may_test=admin.may(request, "send_test_event"),
    )


def _well(stats: Stats) -> advice.Advice:
    """What to say if nothing needs attention."""
    if not stats.funnel.captured and not stats.events.open and not stats.latency.answers:
        return advice.Advice(
            _("Ready. Nobody has come by a share link yet."),
            _("To try it, follow a player's share link in a private window and sign up, or send a test event below."),
        )
    if stats.events.open:
        cause = ngettext(
            "All is well. %(count)s event is on its way.",
            "All is well. %(count)s events are on their way.",
            stats.events.open,
        )
        return advice.Advice(cause % {"count": _counted(stats.events.open)}, _("Nothing is to be done."))
    return advice.Advice(_("All is well. Everything has been delivered."), _("Nothing is to be done."))


def _period(stats: Stats) -> str:
    if len(stats.days) == DAYS:
        return _("The last %d days") % DAYS
    return _("Since %s: more would take too long to count") % advice.when(stats.since)


def _tiles(stats: Stats, site: str) -> list[dict[str, Any]]:
    accepted, refused, failed = (
        sum(getattr(day, name) for day in stats.days) for name in ("accepted", "refused", "failed")
    )
    since = _name(stats.days[0])
    events, latency, oldest = stats.events, stats.latency, stats.oldest
    state = OutboundEvent.State
    return [
        {
            "name": _("Accepted"),
            "number": _grouped(accepted),
            "note": ngettext("request since %s", "requests since %s", accepted) % since,
            "tone": "good",
        },
        {
            "name": _("Refused"),
            "number": _grouped(refused),
            "note": ngettext(
                "request since %(since)s; %(failed)s more got no usable answer",
                "requests since %(since)s; %(failed)s more got no usable answer",
                refused,
            )
            % {"since": since, "failed": _grouped(failed)},
            "tone": "bad" if refused else "over",
        },
        {
            "name": _("Open"),
            "number": _counted(events.open),
            "note": _("%(pending)s pending, %(waiting)s waiting for another event")
            % {"pending": _counted(events.pending), "waiting": _counted(events.waiting)},
            "link": listed(site, "outboundevent", state__exact=state.PENDING.value) if events.open else "",
            "tone": "busy" if events.open else "over",
        },
        {
            "name": _("Oldest open"),
            "number": timesince(oldest.created_at, stats.now, depth=1) if oldest else "-",
            "note": linked(OutboundEvent(pk=oldest.pk), oldest.server_event_id, site=site)
            if oldest
            else _("nothing waits"),
            "tone": "busy" if oldest else "over",
        },
        {
            "name": _("Answer time"),
            "number": _("%s ms") % _grouped(latency.median) if latency.median is not None else "-",
            "note": _("median of the last %(answers)s; 95 %% within %(p95)s ms")
            % {"answers": _grouped(latency.answers), "p95": _grouped(latency.p95)}
            if latency.p95 is not None
            else _("no answer yet"),
            "tone": "over",
        },
    ]


def _signups(days: Sequence[Day]) -> dict[str, Any]:
    return _chart(
        _("Sign-ups by a share link"),
        days,
        [Series(_("sign-ups"), "mmolove-series", [day.captured for day in days], _signed_up)],
    )


def _signed_up(count: int) -> str:
    return ngettext("sign-up", "sign-ups", count)


def _deliveries(days: Sequence[Day]) -> dict[str, Any]:
    return _chart(
        _("Requests to MMOLove"),
        days,
        [
            Series(_("accepted"), "mmolove-good", [day.accepted for day in days]),
            Series(_("without a usable answer"), "mmolove-busy", [day.failed for day in days]),
            Series(_("refused"), "mmolove-bad", [day.refused for day in days]),
        ],
    )


def _chart(title: str, days: Sequence[Day], series: Sequence[Series]) -> dict[str, Any]:
    names = [_name(day) for day in days]
    rows = list(zip(*(one.values for one in series), strict=True))
    totals = [sum(row) for row in rows]
    most = max(totals)
    sums = [f"{_grouped(sum(one.values))} {one.of(sum(one.values))}" for one in series]
    return {
        "title": title,
        "svg": columns(names, series, _("%(title)s by day: %(sums)s") % {"title": title, "sums": ", ".join(sums)}),
        "series": [(one.name, one.tone, said) for one, said in zip(series, sums, strict=True)],
        "first": names[0],
        "last": names[-1],
        "most": _("Most on a day: %s") % _grouped(most),
        "rows": [(name, [_grouped(value) for value in row]) for name, row in zip(names, rows, strict=True)],
    }


def _name(day: Day) -> str:
    return str(date_format(day.day, "MONTH_DAY_FORMAT"))


def _funnel(stats: Stats) -> list[dict[str, Any]]:
    funnel = stats.funnel
    steps = [
        (_("Captured"), _("signed up by a share link"), funnel.captured),
        (_("Registered"), _("MMOLove knows the account"), funnel.registered),
        (_("Qualified"), _("reached the milestone"), funnel.qualified),
        (_("Rewarded"), _("the reward was granted"), funnel.rewarded),
    ]
    before = [funnel.captured, *(step[2] for step in steps)]
    return [
        {
            "name": name,
            "meaning": meaning,
            "count": _grouped(count),
            "rate": rate(count, funnel.captured),
            "of_before": rate(count, last) if number else "",
            "bar": bar(
                count,
                funnel.captured,
                _("%(name)s: %(count)s of %(whole)s")
                % {"name": name, "count": _grouped(count), "whole": _grouped(funnel.captured)},
            ),
        }
        for number, ((name, meaning, count), last) in enumerate(zip(steps, before, strict=False))
    ]


def _referrers(best: Sequence[Referrer], site: str) -> list[tuple[SafeString | str, Referrer]]:
    user = get_user_model()
    return [(linked(user(pk=one.user), one.name, site=site), one) for one in best]


def _cards(stats: Stats) -> list[Card]:
    """None if the settings do not say which servers there are: that is told first of all."""
    try:
        return cards(stats.health)
    except ConfigError:
        return []


def _grouped(number: int) -> str:
    return str(number_format(number, force_grouping=True))


def _counted(number: int) -> str:
    """A number that was counted up to a limit."""
    return f"{_grouped(COUNTED)}+" if number > COUNTED else _grouped(number)
