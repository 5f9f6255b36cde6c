"""``python -m benchmarks.middleware``: what a request without a token pays for the middleware, against one that does
nothing, under WSGI and ASGI. In one process, by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from statistics import median
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from . import portal
from .race import judge, say


class NoOp:
    """As short as a middleware for both can be."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        return self.acall(request) if self.is_async else self.get_response(request)

    async def acall(self, request: Any) -> Any:
        return await self.get_response(request)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--laps", type=int, default=9)
    options = parser.parse_args()
    portal.setup()
    from django.contrib.sessions.backends.signed_cookies import SessionStore
    from django.http import HttpResponse
    from django.test import RequestFactory

    from django_mmolove_referral.middleware import ReferralMiddleware

    request = RequestFactory().get("/news/?page=2&sort=new", headers={"cookie": "sessionid=abcdefgh; theme=dark"})
    request.session = SessionStore()  # as SessionMiddleware leaves it: not yet read
    response = HttpResponse("news")

    def view(request: Any) -> Any:
        return response

    async def aview(request: Any) -> Any:
        return response

    def sync(middleware: Any) -> float:
        called = middleware(view)
        began = time.perf_counter()
        for _ in range(options.requests):
            called(request)
        return time.perf_counter() - began

    async def run(called: Callable[[Any], Coroutine[Any, Any, Any]]) -> float:
        began = time.perf_counter()
        for _ in range(options.requests):
            await called(request)
        return time.perf_counter() - began

    def asynchronous(middleware: Any) -> float:
        return asyncio.run(run(middleware(aview)))

    met = []
    for name, measure, bound in (("WSGI", sync, 0.5), ("ASGI", asynchronous, 2.0)):
        took: dict[Any, list[float]] = {NoOp: [], ReferralMiddleware: []}
        for _ in range(options.laps):
            for middleware, seconds in took.items():
                seconds.append(measure(middleware) / options.requests * 1e6)
        nothing, ours = median(took[NoOp]), median(took[ReferralMiddleware])
        say(f"{name}: no-op {nothing:.3f} µs, ours {ours:.3f} µs a request; {options.laps} laps")
        met.append(judge(f"{name}: more than a no-op middleware", ours - nothing, bound, least=False, unit=" µs"))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
