"""Captures the referral token of a visit and makes the visit known to the sign-up. Nothing else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_cache_control

from .capture import Visit, current_visit, enter_visit
from .conf import ConfigError, conf
from .logs import over, trouble
from .record import usable_token

logger = logging.getLogger("mmolove_referral.capture")

#: A query string longer than this is not searched: no registration link is that long.
QUERY_LIMIT = 16 * 1024


class ReferralMiddleware:
    """Stands after ``SessionMiddleware`` and before ``FetchFromCacheMiddleware``. Sync and async.

    A request without a token costs two substring tests: no query is parsed, no session read, no ``Vary`` set.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        get_response: Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]],
    ) -> None:
        self.get_response: Callable[[HttpRequest], Any] = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._acall(request)
        outer, visit = current_visit(), Visit(request)
        enter_visit(visit)
        try:
            if _mentions_token(request):
                _capture(request, visit)
            response = self.get_response(request)
            if visit.private:
                _finish(request, response, visit)
            return response
        finally:
            visit.request = None
            enter_visit(outer)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        outer, visit = current_visit(), Visit(request)
        enter_visit(visit)
        try:
            if _mentions_token(request):
                # Reading the session may read the database.
                await sync_to_async(_capture)(request, visit)
            response: HttpResponseBase = await self.get_response(request)
            if visit.private:
                _finish(request, response, visit)
            return response
        finally:
            visit.request = None
            enter_visit(outer)


def _mentions_token(request: HttpRequest) -> bool:
    meta = request.META
    try:
        parameter, cookie = conf.token_names
        # Parsing GET and COOKIES costs a hundred times as much.
        return parameter in meta.get("QUERY_STRING", "") or cookie in meta.get("HTTP_COOKIE", "")
    except ConfigError:
        return False  # the system checks name the key


def _capture(request: HttpRequest, visit: Visit) -> None:
    try:
        token = _query_token(request)
        cookie = usable_token(request.COOKIES.get(conf.cookie_name)) if token is None else None
        if not (token or cookie) or not visit.may_keep():
            return
        if cookie and not visit.token:
            token = cookie
        if token is not None:
            visit.capture(token)
            over(logger, "capture", "Referral tokens can be captured again.")
    except Exception as error:  # noqa: BLE001  # whatever a session store does
        text = "A referral token could not be captured; the visitor goes on without it."
        trouble(logger, "capture", error, text)


def _query_token(request: HttpRequest) -> str | None:
    if len(request.META.get("QUERY_STRING", "")) > QUERY_LIMIT:
        return None
    try:
        values = request.GET.getlist(conf.query_param)
    except SuspiciousOperation:  # too many parameters: whether that is an error is the view's business
        return None
    return next((token for token in map(usable_token, reversed(values)) if token), None)


def _finish(request: HttpRequest, response: HttpResponseBase, visit: Visit) -> None:
    """Keep the response out of shared caches: it is this visitor's; and mind a cookie of our own."""
    try:
        patch_cache_control(response, private=True)
        if not conf.set_cookie or not visit.changed:
            pass
        elif visit.used_up:
            if conf.cookie_name in request.COOKIES:
                response.delete_cookie(conf.cookie_name, **_where())
        elif visit.token and visit.token != request.COOKIES.get(conf.cookie_name):
            response.set_cookie(
                conf.cookie_name,
                visit.token,
                max_age=int(conf.token_max_age),
                secure=request.is_secure() or settings.SESSION_COOKIE_SECURE,
                httponly=True,
                **_where(),
            )
    except Exception as error:  # noqa: BLE001  # the page is made, and stays as it is
        text = "The cookie of a referral token could not be written; the visitor goes on without it."
        trouble(logger, "cookie", error, text)
    else:
        over(logger, "cookie", "The cookies of referral tokens can be written again.")


def _where() -> dict[str, Any]:
    """Where our cookie is sent: wherever the session is, as one stands in for the other. But it has to come along from
    other sites, so it is never stricter than ``Lax``."""
    return {"domain": settings.SESSION_COOKIE_DOMAIN, "path": settings.SESSION_COOKIE_PATH, "samesite": "Lax"}
