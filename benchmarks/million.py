"""A table as large as a big portal's after years, and what the admin's pages cost with it.

    python -m benchmarks.million seed 1000000
    python -m benchmarks.million measure mmolove_referral/outboundevent/ "mmolove_referral/referral/?q=player7"

``seed`` fills the database that ``DATABASE_URL`` names (its own tables are made if need be, and emptied first) in bulk
SQL, in a minute or two; ``measure`` asks each page (below ``/admin/``) as a superuser and prints the median time of
``--times`` requests, the fastest (on a machine that does other things, too) and the number of queries. The rows are
spread evenly over ``--days`` days up to now:

=================  =======================================================================================
accounts           one per referral; the first thousand are the referrers of the others
referrals          10 for every 16 events: 6 of 10 qualified
events             ``registered`` for each referral, ``qualified`` for 6 of 10; 1 of 100 rejected, 1 of 200 exhausted
                   (``registered``), and the newest of each kind open (a thousand at most)
attempts           one for each settled event, and a failed one before every tenth
rewards            one per ``qualified``; the newest are due (a thousand at most)
=================  =======================================================================================
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from datetime import datetime, timedelta, timezone

import django
from django.db import connection

#: ``{at}`` of a row: seconds after the start.
MOMENTS = {
    "postgresql": "CAST('{start}+00' AS timestamptz) + ({at}) * interval '1 second'",
    "mysql": "TIMESTAMP('{start}') + INTERVAL ({at}) SECOND",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', julianday('{start}') + ({at}) / 86400.0)",
}
TABLES = ("deliveryattempt", "reward", "outboundevent", "referral", "serverhealth")
OPEN = 1000


def seed(events: int, days: int) -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    referrals, qualified = events * 10 // 16, events - events * 10 // 16
    still = min(OPEN, events // 20)
    start = datetime.now(timezone.utc) - timedelta(days=days)
    step = days * 86400 / referrals
    moment = MOMENTS[connection.vendor]

    def at(row: str, more: int = 0) -> str:
        seconds = f"{row} * {step:.6f} + {more}"
        return moment.format(start=f"{start:%Y-%m-%d %H:%M:%S}", at=seconds)

    def fill(table: str, columns: str, values: str, rows: int) -> None:
        said = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} ({columns}) "
                f"WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows}) "
                f"SELECT {values} FROM numbers"
            )
        print(f"{table}: {rows:,} rows in {time.monotonic() - said:.1f} s", flush=True)

    _empty()
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION max_recursive_iterations = {referrals + 1}")
    truth, falsity = ("1", "0") if connection.vendor != "postgresql" else ("TRUE", "FALSE")
    text = _concatenated
    fill(
        "auth_user",
        "id, username, password, first_name, last_name, email, is_superuser, is_staff, is_active, date_joined",
        f"n, {text('player', 'n')}, '!', '', '', '', {falsity}, {falsity}, {truth}, {at('n')}",
        referrals,
    )
    third = "(n * 10 + 5) / 6" if connection.vendor != "mysql" else "(n * 10 + 5) DIV 6"  # of 10 referrals, 6 qualified
    referrer = "1 + n % 1000 * 7919 % 1000"
    ours = f"n > {referrals - still}"
    fill(
        "mmolove_referral_referral",
        "id, user_id, server, token, referrer_id, referrer_code, state, referral_id, created_at, registered_at, "
        "qualified_at, pruned",
        f"n, n, 'default', {text('token-of-a-benchmark-', 'n')}, "
        f"CASE WHEN n > 1000 THEN {referrer} END, CASE WHEN n > 1000 THEN {text('', referrer)} ELSE '' END, "
        f"CASE WHEN {ours} THEN 'captured' WHEN n * 6 % 10 < 6 THEN 'qualified' ELSE 'registered' END, "
        f"{text('ref_', 'n')}, {at('n')}, CASE WHEN {ours} THEN NULL ELSE {at('n', 1)} END, "
        f"CASE WHEN NOT ({ours}) AND n * 6 % 10 < 6 THEN {at('n', 60)} END, ''",
        referrals,
    )
    body = _bytes('{"event":"registered","server_id":"srv_test"}')
    columns = (
        "id, referral_id, server, kind, server_event_id, body, frozen, state, outcome, reason, due_at, attempts, "
        "last_status, last_error, response, created_at, attempted_at, settled_at"
    )
    fill(
        "mmolove_referral_outboundevent",
        columns,
        f"n * 2, n, 'default', 'registered', {text('reg-', 'n')}, {body}, {truth}, "
        f"CASE WHEN {ours} THEN 'pending' WHEN n % 100 = 7 THEN 'rejected' WHEN n % 200 = 9 THEN 'exhausted' "
        "ELSE 'accepted' END, "
        f"CASE WHEN {ours} OR n % 100 = 7 OR n % 200 = 9 THEN '' ELSE 'advanced' END, '', {at('n')}, 1, "
        f"CASE WHEN {ours} THEN NULL WHEN n % 100 = 7 THEN 422 WHEN n % 200 = 9 THEN 503 ELSE 200 END, "
        f"CASE WHEN n % 100 = 7 THEN 'HTTP 422: illegal transition' WHEN n % 200 = 9 THEN 'HTTP 503' ELSE '' END, "
        f"'{{}}', {at('n')}, {at('n', 1)}, CASE WHEN {ours} THEN NULL ELSE {at('n', 1)} END",
        referrals,
    )
    late = f"n > {qualified - still}"
    fill(
        "mmolove_referral_outboundevent",
        columns,
        f"{third} * 2 + 1, {third}, 'default', 'qualified', {text('qual-', third)}, {body}, {truth}, "
        f"CASE WHEN {late} THEN 'waiting' ELSE 'accepted' END, CASE WHEN {late} THEN '' ELSE 'advanced' END, '', "
        f"{at(third)}, 1, CASE WHEN {late} THEN NULL ELSE 200 END, '', '{{}}', {at(third, 59)}, {at(third, 60)}, "
        f"CASE WHEN {late} THEN NULL ELSE {at(third, 60)} END",
        qualified,
    )
    _attempts()
    fill(
        "mmolove_referral_reward",
        "id, referral_id, state, due_at, attempts, last_error, created_at, granted_at",
        f"n, {third}, CASE WHEN {late} THEN 'due' ELSE 'granted' END, {at(third)}, 0, '', {at(third)}, "
        f"CASE WHEN {late} THEN NULL ELSE {at(third, 61)} END",
        qualified,
    )
    _finish()


def _attempts() -> None:
    """One for each settled event, and a failed one before every tenth; in the order in which they came."""
    late = "FALSE" if connection.vendor == "postgresql" else "0"

    def of(status: str, error: str, duration: str, condition: str) -> str:
        return (
            f"SELECT id AS event_id, attempted_at AS started_at, {duration} AS duration_ms, {status} AS status, "
            f"{error} AS error FROM mmolove_referral_outboundevent WHERE settled_at IS NOT NULL AND {condition}"
        )

    failed = of("503", "'HTTP 503'", "900 + id % 97", "id % 10 = 0")
    final = of("last_status", "last_error", "40 + id % 97", "1 = 1")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO mmolove_referral_deliveryattempt "
            "(event_id, started_at, duration_ms, signed_at, status, answer, error, late) "
            f"SELECT event_id, started_at, duration_ms, 0, status, '', error, {late} FROM ("
            f"{failed} UNION ALL {final}) AS attempts ORDER BY started_at"
        )
        print(f"mmolove_referral_deliveryattempt: {cursor.rowcount:,} rows", flush=True)


def _empty() -> None:
    tables = [f"mmolove_referral_{table}" for table in TABLES]
    more = ["django_session", "django_admin_log", "auth_user_user_permissions", "auth_user_groups", "auth_user"]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"TRUNCATE {', '.join(tables + more)} CASCADE")
            return
        if connection.vendor == "mysql":
            cursor.execute("SET SESSION foreign_key_checks = 0")
        for table in tables + more:
            cursor.execute(f"{'TRUNCATE' if connection.vendor == 'mysql' else 'DELETE FROM'} {table}")
        if connection.vendor == "mysql":
            cursor.execute("SET SESSION foreign_key_checks = 1")


def _finish() -> None:
    """What rows that were not inserted by Django leave undone: sequences and the planner's statistics."""
    tables = ["auth_user", *(f"mmolove_referral_{table}" for table in TABLES)]
    with connection.cursor() as cursor:
        for table in tables:
            if connection.vendor == "postgresql":
                last = f"(SELECT coalesce(max(id), 1) FROM {table})"
                cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})")
                cursor.execute(f"VACUUM ANALYZE {table}")
            else:
                cursor.execute(f"ANALYZE {'TABLE ' if connection.vendor == 'mysql' else ''}{table}")


def _concatenated(text: str, number: str) -> str:
    if connection.vendor == "mysql":
        return f"CONCAT('{text}', {number})"
    return f"'{text}' || CAST({number} AS text)"


def _bytes(text: str) -> str:
    return f"CAST('{text}' AS {'bytea' if connection.vendor == 'postgresql' else 'BINARY'})".replace(
        "AS BINARY)", "AS CHAR)" if connection.vendor == "mysql" else "AS BLOB)"
    )


def measure(pages: list[str], times: int) -> None:
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    users = get_user_model()._default_manager
    owner = users.filter(username="owner").first() or users.create_superuser("owner", "owner@example.com", "pw")
    client = Client()
    client.force_login(owner)
    for page in pages:
        took = []
        for _ in range(times + 1):  # the first fills caches
            began = time.perf_counter()
            response = client.get(f"/admin/{page}")
            assert response.status_code == 200, response
            list(response)
            took.append((time.perf_counter() - began) * 1000)
        with CaptureQueriesContext(connection) as queries:
            client.get(f"/admin/{page}")
        slowest = max(queries.captured_queries, key=lambda query: float(query["time"]))
        print(
            f"{connection.vendor:10} {statistics.median(took[1:]):8.1f} ms (fastest {min(took):.1f}) "
            f"{len(queries):3} queries, "
            f"{float(slowest['time']) * 1000:5.0f} ms the slowest  {page}",
            flush=True,
        )
        if os.environ.get("SLOWEST"):
            print(f"    {slowest['sql'][:1000]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.million")
    commands = parser.add_subparsers(dest="command", required=True)
    seeding = commands.add_parser("seed")
    seeding.add_argument("events", type=int)
    seeding.add_argument("--days", type=int, default=1000)
    measuring = commands.add_parser("measure")
    measuring.add_argument("pages", nargs="+")
    measuring.add_argument("--times", type=int, default=9)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    if options.command == "seed":
        seed(options.events, options.days)
    else:
        measure(options.pages, options.times)


if __name__ == "__main__":
    main()
