"""What needs a person, in the doctor's words, and where in the admin each of it is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from ..doctor import Finding, Severity, needs
from ..models import OutboundEvent, Reward

Query = dict[str, str]

_PENDING: Query = {"state__exact": OutboundEvent.State.PENDING.value}

PLACES: dict[str, tuple[str, Query]] = {
    "settings.missing": ("serverhealth", {}),
    "server.paused": ("serverhealth", {}),
    "server.unknown": ("outboundevent", {}),
    "delivery.failing": ("outboundevent", _PENDING),
    "clock.skew": ("serverhealth", {}),
    "dispatcher.silent": ("outboundevent", _PENDING),
    "sweep.silent": ("outboundevent", _PENDING),
    "backlog.old": ("outboundevent", _PENDING),
    "events.rejected": ("outboundevent", {"state__exact": OutboundEvent.State.REJECTED.value}),
    "events.exhausted": ("outboundevent", {"state__exact": OutboundEvent.State.EXHAUSTED.value}),
    "rewards.no_receiver": ("reward", {"state__exact": Reward.State.DUE.value}),
    "rewards.failing": ("reward", {"attention": "1"}),
}
"""By a finding's id: the model whose page shows it, and that page's query. The others are seen outside of the admin."""

LABELS: dict[str, Callable[[], str]] = {
    "outboundevent": lambda: _("Show these events"),
    "reward": lambda: _("Show these rewards"),
    "serverhealth": lambda: _("Show the server"),
}


@dataclass(frozen=True)
class Need:
    """A finding, and the address and the label of where to click: empty where there is no such page."""

    finding: Finding
    link: str
    label: str

    @property
    def urgent(self) -> bool:
        return self.finding.severity is Severity.ERROR


def attention(site: str) -> list[Need]:
    """What needs a person, the most pressing first, with links within the admin ``site``."""
    return [_need(finding, site) for finding in needs()]


def listed(site: str, model: str, **query: str) -> str:
    """The address of a model's list; empty where this site has none."""
    try:
        url = reverse(f"{site}:mmolove_referral_{model}_changelist")
    except NoReverseMatch:
        return ""
    return f"{url}?{urlencode(query)}" if query else url


def _need(finding: Finding, site: str) -> Need:
    if finding.id not in PLACES:
        return Need(finding, "", "")
    model, query = PLACES[finding.id]
    if finding.server and model == "outboundevent":
        query = {**query, "server": finding.server}
    return Need(finding, listed(site, model, **query), LABELS[model]())
