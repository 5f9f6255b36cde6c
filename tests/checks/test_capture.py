"""Middleware, sessions and cookies, compared whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.checks import Warning  # noqa: A004

from django_mmolove_referral.checks import CACHE, MIDDLEWARE, SESSION
from django_mmolove_referral.middleware import ReferralMiddleware

from .conftest import Ours

UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
BOTH_CACHES = "django.middleware.cache.CacheMiddleware"
OTHER_SESSION = f"{__name__}.OtherSessions"
OTHER_OURS = f"{__name__}.OtherReferrals"
FUNCTION = "tests.checks.test_capture.as_function"
BACKENDS = "django.contrib.sessions.backends"
CACHES = "django.core.cache.backends"


class OtherSessions(SessionMiddleware):
    """As packages for sessions bring one."""


class OtherReferrals(ReferralMiddleware):
    """As a portal may write one."""


def as_function(get_response: Callable[..., Any]) -> Callable[..., Any]:
    return get_response


NOT_INSTALLED = Warning(
    "The referral middleware is not installed: no visit is captured, no sign-up is attributed.",
    hint=(
        "Add 'django_mmolove_referral.middleware.ReferralMiddleware' to MIDDLEWARE, "
        "after 'django.contrib.sessions.middleware.SessionMiddleware'."
    ),
    id="mmolove_referral.W002",
)
BEFORE_SESSIONS = Warning(
    "The referral middleware comes before the sessions: a token is forgotten after one request.",
    hint=(
        "Move 'django_mmolove_referral.middleware.ReferralMiddleware' below "
        "'django.contrib.sessions.middleware.SessionMiddleware' in MIDDLEWARE."
    ),
    id="mmolove_referral.W003",
)
AFTER_CACHE = Warning(
    "The referral middleware comes after the page cache: a cached page captures nothing.",
    hint=(
        "Move 'django_mmolove_referral.middleware.ReferralMiddleware' above "
        "'django.middleware.cache.FetchFromCacheMiddleware' in MIDDLEWARE."
    ),
    id="mmolove_referral.W004",
)
NO_SESSIONS = Warning(
    "There are no sessions: a token is forgotten after one request.",
    hint=(
        "Add 'django.contrib.sessions.middleware.SessionMiddleware' to MIDDLEWARE, above "
        "'django_mmolove_referral.middleware.ReferralMiddleware'. A portal that does without sessions can keep the "
        "token in a cookie: MMOLOVE_REFERRAL['SET_COOKIE'] = True."
    ),
    id="mmolove_referral.W006",
)
NO_TABLE = Warning(
    "Sessions cannot be kept: SESSION_ENGINE = 'django.contrib.sessions.backends.db' needs the table of an app that "
    "is not installed.",
    hint="Add 'django.contrib.sessions' to INSTALLED_APPS, and run python manage.py migrate.",
    id="mmolove_referral.W007",
)
STRICT = Warning(
    "SESSION_COOKIE_SAMESITE is 'Strict', so who follows a link on another site comes without their session and is "
    "given a new one: who shared the link is forgotten, and who was logged in is logged out.",
    hint="Set SESSION_COOKIE_SAMESITE to 'Lax', which is Django's default.",
    id="mmolove_referral.W017",
)
VOLATILE = Warning(
    "Sessions are kept in CACHES['default'], which no two processes share: a token that one saw, another forgot.",
    hint="Set SESSION_ENGINE to 'django.contrib.sessions.backends.db', or CACHES['default'] to a shared cache.",
    id="mmolove_referral.W021",
)


def taken(key: str, name: str, what: str) -> Warning:
    return Warning(
        f"MMOLOVE_REFERRAL['{key}'] = '{name}' is the name of {what}.",
        hint=f"Remove MMOLOVE_REFERRAL['{key}']: MMOLove's own name for it is 'mmref'.",
        id="mmolove_referral.W018",
    )


def cookie(name: str) -> Warning:
    return taken("COOKIE_NAME", name, "a cookie of Django's, whose value would be reported as a token")


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ([], [NOT_INSTALLED]),
        ([SESSION, CACHE], [NOT_INSTALLED]),
        ([SESSION, MIDDLEWARE], []),
        ((SESSION, MIDDLEWARE), []),
        ([UPDATE, SESSION, MIDDLEWARE, CACHE], []),
        ([SESSION, MIDDLEWARE, UPDATE, CACHE], []),
        ([SESSION, MIDDLEWARE, BOTH_CACHES], []),
        ([MIDDLEWARE, SESSION], [BEFORE_SESSIONS]),
        ([MIDDLEWARE, SESSION, CACHE], [BEFORE_SESSIONS]),
        ([SESSION, CACHE, MIDDLEWARE], [AFTER_CACHE]),
        ([SESSION, BOTH_CACHES, MIDDLEWARE], [AFTER_CACHE]),
        ([CACHE, MIDDLEWARE, SESSION], [BEFORE_SESSIONS, AFTER_CACHE]),
        ([MIDDLEWARE], [NO_SESSIONS]),
        ([CACHE, MIDDLEWARE], [NO_SESSIONS, AFTER_CACHE]),
        ([OTHER_SESSION, OTHER_OURS], []),
        ([OTHER_OURS, OTHER_SESSION], [BEFORE_SESSIONS]),
        ([FUNCTION, "portal.gone.Middleware", SESSION, FUNCTION, MIDDLEWARE], []),
    ],
)
def test_the_place_of_the_middleware_is_checked(order: Any, found: list[Warning], settings: Any, ours: Ours) -> None:
    settings.MIDDLEWARE = order
    assert ours() == found


def test_a_portal_without_sessions_may_keep_the_token_in_a_cookie(
    settings: Any, configure: Callable[..., None], ours: Ours
) -> None:
    settings.MIDDLEWARE = [MIDDLEWARE]
    configure(SET_COOKIE=True)
    assert ours() == []


@pytest.mark.parametrize(
    ("engine", "warnings"),
    [("db", [NO_TABLE]), ("signed_cookies", []), ("cache", []), ("file", [])],
)
def test_sessions_in_a_table_need_the_app(engine: str, warnings: list[Warning], settings: Any, ours: Ours) -> None:
    settings.SESSION_ENGINE = f"{BACKENDS}.{engine}"
    assert ours() == []
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django.contrib.sessions"]
    assert ours() == warnings
    settings.MIDDLEWARE = [MIDDLEWARE]
    assert ours() == [NO_SESSIONS]


@pytest.mark.parametrize(
    ("samesite", "warnings"), [("Strict", [STRICT]), ("strict", [STRICT]), ("Lax", []), ("None", []), (False, [])]
)
def test_strict_sessions_do_not_come_back_from_mmolove(
    samesite: object, warnings: list[Warning], settings: Any, ours: Ours
) -> None:
    settings.SESSION_COOKIE_SAMESITE = samesite
    assert ours() == warnings


@pytest.mark.parametrize(
    ("engine", "cache", "warnings"),
    [
        ("cache", "locmem.LocMemCache", [VOLATILE]),
        ("cache", "dummy.DummyCache", [VOLATILE]),
        ("cached_db", "locmem.LocMemCache", [VOLATILE]),
        ("cached_db", "dummy.DummyCache", []),  # reads the database each time
        ("cache", "redis.RedisCache", []),
        ("db", "locmem.LocMemCache", []),
        ("signed_cookies", "locmem.LocMemCache", []),
    ],
)
def test_sessions_that_no_two_processes_share_are_no_matter_for_production(
    engine: str, cache: str, warnings: list[Warning], settings: Any, ours: Ours
) -> None:
    settings.SESSION_ENGINE = f"{BACKENDS}.{engine}"
    settings.CACHES = {"default": {"BACKEND": f"{CACHES}.{cache}"}}
    assert ours() == []
    assert ours(deploy=True) == warnings


@pytest.mark.parametrize(
    ("keys", "warnings"),
    [
        ({"COOKIE_NAME": "sessionid"}, [cookie("sessionid")]),
        ({"COOKIE_NAME": "csrftoken"}, [cookie("csrftoken")]),
        ({"COOKIE_NAME": "django_language"}, [cookie("django_language")]),
        ({"COOKIE_NAME": "messages"}, [cookie("messages")]),
        (
            {"QUERY_PARAM": "next"},
            [taken("QUERY_PARAM", "next", "a parameter of Django's, whose value would be a token")],
        ),
        ({"COOKIE_NAME": "friend", "QUERY_PARAM": "friend"}, []),
    ],
)
def test_names_that_django_uses_are_not_for_tokens(
    keys: dict[str, str], warnings: list[Warning], configure: Callable[..., None], ours: Ours
) -> None:
    configure(**keys)
    assert ours() == warnings


def test_the_portals_own_names_count(settings: Any, configure: Callable[..., None], ours: Ours) -> None:
    settings.SESSION_COOKIE_NAME = "portal"
    configure(COOKIE_NAME="portal")
    assert ours() == [cookie("portal")]
    configure(COOKIE_NAME="sessionid")
    assert ours() == []
