"""``python -m benchmarks.signup``: what a referral adds to a sign-up, and what ``mark_qualified`` asks for an account
without one. In one process, by turns, on ``DATABASE_URL``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from statistics import median
from typing import Any

from . import portal
from .race import judge, say

WARM = 50
names = (f"visitor{number}" for number in count())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=200, help="of each kind in a lap")
    parser.add_argument("--laps", type=int, default=5)
    parser.add_argument("--accounts", type=int, default=20_000, help="referred ones that there are already")
    options = parser.parse_args()
    portal.setup()
    with portal.database():
        portal.populate(options.accounts)
        portal.vacuum("default")
        for which in (False, True):
            sign_ups(WARM, referred=which)
        took: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(options.laps):
            for which, laps in took.items():
                laps.append(sign_ups(options.visitors, referred=which))
        usual, referred = median(took[False]), median(took[True])
        say(f"sign-up {usual:.2f} ms, referred {referred:.2f} ms; {options.laps} laps of {options.visitors}")
        met = [judge("a referral adds", referred - usual, 1.5, least=False, unit=" ms")]
        met.append(_statements())
        met.append(_unreferred())
    return 0 if all(met) else 1


def sign_ups(number: int, *, referred: bool) -> float:
    """The median of that many, in ms: one request through the middleware, as a form's POST."""
    return median(_sign_up(referred) for _ in range(number))


def _sign_up(referred: bool) -> float:
    from django.http import HttpRequest, HttpResponse

    from django_mmolove_referral.middleware import ReferralMiddleware

    request = _request(referred)

    def view(request: HttpRequest) -> HttpResponse:
        from django.contrib.auth.models import User
        from django.db import transaction

        with transaction.atomic():  # ATOMIC_REQUESTS
            User.objects.create_user(next(names), password="pw")
        return HttpResponse()

    called = ReferralMiddleware(view)
    began = time.perf_counter()
    called(request)
    return 1000 * (time.perf_counter() - began)


_tokens: Iterator[str] = (f"token-{number}-{'x' * 40}" for number in count())


def _request(referred: bool) -> Any:
    """A visitor with a session; a referred one has come with a token before."""
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.sessions.backends.signed_cookies import SessionStore
    from django.test import RequestFactory

    from django_mmolove_referral.capture import Visit

    request: Any = RequestFactory().post("/register/")
    request.session, request.user = SessionStore(), AnonymousUser()
    if referred:
        Visit(request).capture(next(_tokens))
    return request


def _statements() -> bool:
    """What a referral adds to the statements of a sign-up, and how often it wakes the dispatcher."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from django_mmolove_referral.delivery import dispatch

    def asked(referred: bool) -> Counter[str]:
        with CaptureQueriesContext(connection) as queries:
            _sign_up(referred)
        return Counter(query["sql"].split()[0] for query in queries.captured_queries)

    wake_ups: list[int] = []
    wake = dispatch.wake
    dispatch.wake = lambda: wake_ups.append(1)
    try:
        before = asked(referred=False)
        added = asked(referred=True) - before
    finally:
        dispatch.wake = wake
    say(f"a referral adds the statements {dict(added)} and {len(wake_ups)} wake-up")
    return _told("2 INSERTs, 1 savepoint, 1 wake-up", (added["INSERT"], added["SAVEPOINT"], len(wake_ups)) == (2, 1, 1))


def _unreferred() -> bool:
    """``mark_qualified`` for an account without a referral."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from django_mmolove_referral import mark_qualified

    user = User.objects.create_user(next(names))
    with CaptureQueriesContext(connection) as queries:
        mark_qualified(user)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {queries.captured_queries[0]['sql']}")
        plan = "\n".join(" ".join(str(column) for column in row) for row in cursor.fetchall())
    say(plan)
    return _told("mark_qualified for an unreferred account: one indexed query", len(queries) == 1 and "once" in plan)


def _told(what: str, met: bool) -> bool:
    say(f"{'met   ' if met else 'MISSED'}  {what}")
    return met


if __name__ == "__main__":
    sys.exit(main())
