"""``python -m benchmarks.claim``: what claiming costs beside a million finished events and 100,000 that wait for a
paused server, against a table without them; and whether the index alone answers. On PostgreSQL or MariaDB
(``DATABASE_URL``).
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median

from . import portal
from .race import judge, say
from .sink import SERVER_ID

EMPTY, LARGE = "default", "large"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--due", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--laps", type=int, default=5)
    options = parser.parse_args()
    portal.setup(aliases=(EMPTY, LARGE))
    with portal.database(EMPTY), portal.database(LARGE):
        for alias in (EMPTY, LARGE):
            portal.populate(options.due, alias)
        fill(options.finished, "default", "accepted")
        fill(options.waiting, "paused", "pending")
        portal.unsend(EMPTY)
        portal.vacuum(LARGE)
        plan = explain(LARGE)
        say(plan)
        index_alone = "mmolove_event_due" in plan and not any(word in plan for word in ("Seq Scan", "Sort", "filesort"))
        took: dict[str, list[float]] = {EMPTY: [], LARGE: []}
        for _ in range(options.laps):
            for alias, laps in took.items():
                laps.append(claims(alias, options.due // options.batch, options.batch))
    ratio = median(took[LARGE]) / median(took[EMPTY])
    say(
        f"claim of {options.batch}, alone: {median(took[EMPTY]):.2f} ms; among the others: {median(took[LARGE]):.2f} ms"
    )
    met = [judge("claim in a large table against an empty one", ratio, 1.3, least=False)]
    say(f"{'met   ' if index_alone else 'MISSED'}  the index alone, by EXPLAIN")
    return 0 if all([*met, index_alone]) else 1


def claims(alias: str, number: int, batch: int) -> float:
    """The median of that many claims, in ms; everything is given back."""
    from django_mmolove_referral.delivery.claim import claim, release

    taken, times = [], []
    for _ in range(number):
        began = time.perf_counter()
        taken.append(claim("default", SERVER_ID, batch, using=alias))
        times.append(1000 * (time.perf_counter() - began))
    assert all(len(one) == batch for one in taken)
    for one in taken:
        release(one, using=alias)
    portal.vacuum(alias)
    return median(times)


def fill(number: int, server: str, state: str) -> None:
    """That many events of ``server``; what is said of them in a row costs no more than another."""
    from django.db import connections

    from django_mmolove_referral.models import OutboundEvent, Referral

    connection = connections[LARGE]
    first = OutboundEvent.objects.using(LARGE).order_by("-pk").values_list("pk", flat=True)[0] + 1
    one = Referral.objects.using(LARGE).order_by("pk")[0]
    recursive = f"WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {number})"
    nobody = "CAST(NULL AS {})".format("bigint" if connection.vendor == "postgresql" else "SIGNED")
    referrals, events = Referral._meta.db_table, OutboundEvent._meta.db_table
    stamp = connection.ops.quote_name("created_at")
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"SET SESSION max_recursive_iterations = {number + 1}")
        head = (
            f"INSERT INTO {referrals} (id, user_id, server, token, referrer_code, state, referral_id, pruned, {stamp})"
        )
        row = f"SELECT i + {first + 10_000_000}, {nobody}, '{server}', 't', '', 'registered', '', '', %s FROM n"
        cursor.execute(f"{head} {recursive} {row}", [one.created_at])
        head = (
            f"INSERT INTO {events} (id, referral_id, server, kind, server_event_id, body, frozen, state, outcome,"
            f" reason, due_at, attempts, last_error, response, {stamp})"
        )
        row = (
            f"SELECT i + {first}, i + {first + 10_000_000}, '{server}', 'registered', 'reg-1', '', %s, '{state}', '',"
            " '', %s, 1, '', '{}', %s FROM n"
        )
        cursor.execute(f"{head} {recursive} {row}", [True, one.created_at, one.created_at])


def explain(alias: str) -> str:
    """The plan of the query that finds what is due."""
    from django.db import connections
    from django.test.utils import CaptureQueriesContext

    from django_mmolove_referral.delivery.claim import claim, release

    connection = connections[alias]
    with CaptureQueriesContext(connection) as asked:
        taken = claim("default", SERVER_ID, 100, using=alias)
    release(taken, using=alias)
    query = next(one["sql"] for one in asked.captured_queries if one["sql"].startswith("SELECT"))
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {query}")
        return "\n".join(" ".join(str(column) for column in row) for row in cursor.fetchall())


if __name__ == "__main__":
    sys.exit(main())
