"""``manage.py mmolove_stats``: the numbers of the admin's overview, in the shell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandParser

from ... import stats
from ...advice import when
from ...doctor import needs
from ...masking import printable
from ..base import ReferralCommand


class Command(ReferralCommand):
    help = (
        "Tell how referrals and deliveries stand: what needs attention, the last days, what is open, and how fast "
        "MMOLove answers. The same numbers as on the overview in the admin. --json is for machines: its keys stay."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        found = stats.collect()
        if options["json"]:
            self.stdout.write(json.dumps(found.as_dict(), indent=2))
        else:
            for line in (*_needs(), *_lines(found)):
                self.stdout.write(line)


def _needs() -> Iterator[str]:
    found = needs()
    yield "Needs attention:" if found else "Nothing needs attention."
    for need in found:
        yield f"- {need.id}: {need.words} {need.cure}"


def _lines(found: stats.Stats) -> Iterator[str]:
    events, rewards, latency, funnel = found.events, found.rewards, found.latency, found.funnel
    yield f"Since {when(found.since)} ({found.time_zone}):"
    for name in ("captured", "registered", "qualified", "rewarded"):
        count = getattr(funnel, name)
        share = f", {round(100 * count / funnel.captured)} %" if funnel.captured else ""
        yield f"  {name:12}{count}{share}"
    accepted, refused, failed = (
        sum(getattr(day, name) for day in found.days) for name in ("accepted", "refused", "failed")
    )
    yield f"  {'requests':12}{accepted} accepted, {refused} refused, {failed} without a usable answer"
    yield "Now:"
    counts = ", ".join(
        f"{_amount(getattr(events, name))} {name}" for name in ("pending", "waiting", "rejected", "exhausted")
    )
    yield f"  {'events':12}{counts}"
    if found.oldest:
        yield f"  {'oldest open':12}{found.oldest.server_event_id}, written {when(found.oldest.created_at)}"
    yield f"  {'rewards':12}{_amount(rewards.due)} due, {_amount(rewards.failing)} could not be granted"
    if latency.answers:
        yield f"  {'answer time':12}median {latency.median} ms, 95 % within {latency.p95} ms (last {latency.answers})"
    for server in found.as_dict()["servers"]:
        yield f"  {'server':12}{server['server']}: {server['problem'] or server['state']}"
    if found.referrers:
        yield "Top referrers (captured, qualified, rewarded):"
    for referrer in found.referrers:
        yield f"  {printable(referrer.name)}: {referrer.captured}, {referrer.qualified}, {referrer.rewarded}"


def _amount(count: int) -> str:
    """A number as it was counted: up to a limit."""
    return f"more than {stats.COUNTED}" if count > stats.COUNTED else str(count)
