"""What the log's pages cost with a million events, in times of what they cost with a thousand.

    DATABASE_URL=postgres://… python -m benchmarks.admin_pages

Two databases beside the one that ``DATABASE_URL`` names are made, filled (``--large``, ``--small`` events) and dropped
again (unless ``--keep``, which also takes those it finds). A process for each asks the pages as a superuser, by
turns, ``--times`` times; printed are the medians and their ratio. The exit code tells whether all ratios are at most
``--limit``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

import django

LISTS = "mmolove_referral/"
LONG_AGO, SOME_DAY = 2000, 1500
"""Days ago, of which sixty events are in either table; the others are of the last thousand days."""
PAGES = {
    "events": "outboundevent/",
    "events, page 2": "outboundevent/?p=2",
    "events, the last page": "outboundevent/?p={last}",
    "events, attention": "outboundevent/?attention=1",
    **{
        f"events, {state}": f"outboundevent/?state__exact={state}"
        for state in ("pending", "waiting", "accepted", "rejected", "exhausted", "cancelled")
    },
    **{f"events, {kind}": f"outboundevent/?kind__exact={kind}" for kind in ("registered", "qualified", "reversed")},
    **{f"events, {status}": f"outboundevent/?status={status}" for status in ("2xx", "3xx", "4xx", "5xx", "none")},
    "events, one server": "outboundevent/?server=default",
    "events, another server": "outboundevent/?server=other",
    "events, last hour": "outboundevent/?created=1h",
    "events, last 30 days": "outboundevent/?created=30d",
    "events, long ago": "outboundevent/?created_to={long_ago}",
    "events, one day": "outboundevent/?created_from={some_day}&created_to={some_day}",
    "events, one day, rejected": "outboundevent/?created_from={some_day}&created_to={some_day}&state__exact=rejected",
    "events, accepted reversals": "outboundevent/?state__exact=accepted&kind__exact=reversed",
    "events, registered and 4xx": "outboundevent/?kind__exact=registered&status=4xx",
    "events, search key": "outboundevent/?q=reg-77",
    "events, search player": "outboundevent/?q={player}",
    "events, search referral id": "outboundevent/?q=ref_77",
    "events, search nothing": "outboundevent/?q=nobody",
    "events, search and filter": "outboundevent/?q={player}&state__exact=accepted",
    "referrals": "referral/",
    "referrals, the last page": "referral/?p={last_referrals}",
    **{
        f"referrals, {state}": f"referral/?state__exact={state}"
        for state in ("captured", "registered", "qualified", "conflict", "expired")
    },
    "referrals, search player": "referral/?q={player}",
    "referrals, search referrer": "referral/?q=player77",
    "referrals, search key": "referral/?q=reg-77",
    "rewards": "reward/",
    "rewards, attention": "reward/?attention=1",
    **{f"rewards, {state}": f"reward/?state__exact={state}" for state in ("due", "granted", "cancelled")},
    "rewards, search player": "reward/?q={player}",
    "rewards, search referrer": "reward/?q=player77",
}


class Portal:
    """A process with a database of ``events`` events, asked for pages over its pipes."""

    def __init__(self, events: int, keep: bool) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.admin_pages", "--serve", str(events), *(["--keep"] if keep else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.values = dict(pair.split("=") for pair in self._read().split())

    def ask(self, page: str) -> tuple[float, int]:
        """Milliseconds and queries."""
        assert self._process.stdin is not None
        self._process.stdin.write(page.format(**self.values) + "\n")
        self._process.stdin.flush()
        took, queries = self._read().split()
        return float(took), int(queries)

    def __enter__(self) -> Portal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
            print(line, end="", flush=True)
        raise SystemExit("The portal's process ended.")


def serve(events: int, keep: bool) -> None:
    """In the process of a :class:`Portal`."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext, setup_test_environment
    from django.utils import timezone

    from django_mmolove_referral.models import OutboundEvent

    from . import million

    setup_test_environment()
    name = f"{settings.DATABASES['default']['NAME']}_{events}"
    connection.settings_dict["TEST"]["NAME"] = name
    connection.creation.create_test_db(verbosity=0, autoclobber=True, keepdb=keep)
    if OutboundEvent.objects.count() != events:
        million.seed(events, days=1000)
        rarities()
        million._finish()
    users = get_user_model()._default_manager
    owner = users.filter(username="owner").first() or users.create_superuser("owner", "owner@example.com", "pw")
    client = Client()
    client.force_login(owner)
    values: dict[str, Any] = {
        "last": min(events, 10_000) // 50,
        "last_referrals": min(events * 10 // 16, 10_000) // 50,
        # A player without friends: in the large table the first thousand have some.
        "player": "player78" if events < 10_000 else "player5078",
    }
    for name, days in (("long_ago", LONG_AGO), ("some_day", SOME_DAY)):
        values[name] = f"{timezone.now() - timedelta(days=days):%Y-%m-%d}"
    print(">", *(f"{name}={value}" for name, value in values.items()), flush=True)
    for line in sys.stdin:
        page = f"/admin/{LISTS}{line.strip()}"
        began = time.perf_counter()
        response = client.get(page)
        took = (time.perf_counter() - began) * 1000
        assert response.status_code == 200, (page, response)
        with CaptureQueriesContext(connection) as queries:
            client.get(page)
        if os.environ.get("QUERIES"):
            for query in queries.captured_queries:
                print(f"{query['time']} {query['sql'][:600]}")
        print(f"> {took} {len(queries)}", flush=True)
    if not keep:
        connection.creation.destroy_test_db(name, verbosity=0)


def rarities() -> None:
    """Sixty of each rare thing, the same in both tables, and among the oldest: where walking backwards comes last."""
    from django.utils import timezone

    from django_mmolove_referral.models import OutboundEvent, Referral, Reward

    def rare(number: int, model: Any = OutboundEvent, **values: Any) -> None:
        rows = model.objects.filter(kind="registered") if model is OutboundEvent else model.objects
        keys = list(rows.order_by("pk").values_list("pk", flat=True)[60 * number : 60 * (number + 1)])
        model.objects.filter(pk__in=keys).update(**values)

    now = timezone.now()
    rare(7, created_at=now - timedelta(days=LONG_AGO))
    rare(8, created_at=now - timedelta(days=SOME_DAY))
    OutboundEvent.objects.filter(pk__gt=OutboundEvent.objects.latest("pk").pk - 60).update(created_at=now)
    rare(0, state="rejected", last_status=422)
    rare(1, state="exhausted", last_status=503)
    rare(2, state="cancelled")
    rare(3, server="other")
    rare(4, state="rejected", last_status=302)
    rare(5, state="exhausted", last_status=0)
    rare(6, kind="reversed")
    rare(0, Referral, state="conflict")
    rare(1, Referral, state="expired")
    rare(0, Reward, state="cancelled")
    rare(1, Reward, state="due", last_error="RuntimeError: the bank is closed")
    # A player with as many friends as the best in the large table.
    Referral.objects.filter(pk__lte=625).exclude(pk=77).update(referrer=77)


def compare(large: int, small: int, times: int, limit: float, keep: bool, only: str) -> bool:
    worst = 0.0
    with Portal(small, keep) as few, Portal(large, keep) as many:
        print(f"{'':32}{small:>12,}{large:>12,}   ratio  queries")
        for title, page in PAGES.items():
            if only not in title:
                continue
            took: dict[Portal, list[float]] = {few: [], many: []}
            queries: dict[Portal, int] = {}
            for turn in range(times + 1):
                for portal in (few, many) if turn % 2 else (many, few):
                    milliseconds, queries[portal] = portal.ask(page)
                    if turn:  # the first fills caches
                        took[portal].append(milliseconds)
            base, loaded = statistics.median(took[few]), statistics.median(took[many])
            worst = max(worst, loaded / base)
            print(
                f"{title:32}{base:9.1f} ms{loaded:9.1f} ms{loaded / base:8.2f}  {queries[few]}, {queries[many]}",
                "" if loaded / base <= limit else f"  over {limit}",
                flush=True,
            )
    print(f"At most {worst:.2f} times.")
    return worst <= limit


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.admin_pages")
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=1_000)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--limit", type=float, default=2.5)
    parser.add_argument("--only", default="", help="pages with this in their titles")
    parser.add_argument("--keep", action="store_true", help="the databases, for the next time")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    if options.serve:
        django.setup()
        serve(options.serve, options.keep)
    elif not compare(options.large, options.small, options.times, options.limit, options.keep, options.only):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
