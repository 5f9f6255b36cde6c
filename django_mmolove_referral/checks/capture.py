"""Middleware, sessions and cookies: what has to hold for a visit's token to reach the sign-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..conf import SETTING, ConfigError, conf
from .message import warning

MIDDLEWARE = "django_mmolove_referral.middleware.ReferralMiddleware"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
CACHE = "django.middleware.cache.FetchFromCacheMiddleware"

_BACKENDS = "django.contrib.sessions.backends."
_DUMMY = "django.core.cache.backends.dummy.DummyCache"
_LOCAL = "django.core.cache.backends.locmem.LocMemCache"
_VOLATILE = {("cache", _DUMMY), ("cache", _LOCAL), ("cached_db", _LOCAL)}
"""Kind of session and cache where what one process writes, another does not read."""


def check_middleware(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W002, W003, W004, W006."""
    place, sessions, cache = _place(MIDDLEWARE), _place(SESSION), _place(CACHE)
    names = {"ours": MIDDLEWARE, "sessions": SESSION, "cache": CACHE}
    if place is None:
        return [
            warning(
                2,
                _("The referral middleware is not installed: no visit is captured, no sign-up is attributed."),
                _("Add '%(ours)s' to MIDDLEWARE, after '%(sessions)s'.") % names,
            )
        ]
    found = []
    if sessions is None and not _keeps_cookie():
        found.append(
            warning(
                6,
                _("There are no sessions: a token is forgotten after one request."),
                _(
                    "Add '%(sessions)s' to MIDDLEWARE, above '%(ours)s'. A portal that does without sessions can keep "
                    "the token in a cookie: %(setting)s['SET_COOKIE'] = True."
                )
                % {**names, "setting": SETTING},
            )
        )
    if sessions is not None and sessions > place:
        found.append(
            warning(
                3,
                _("The referral middleware comes before the sessions: a token is forgotten after one request."),
                _("Move '%(ours)s' below '%(sessions)s' in MIDDLEWARE.") % names,
            )
        )
    if cache is not None and cache < place:
        found.append(
            warning(
                4,
                _("The referral middleware comes after the page cache: a cached page captures nothing."),
                _("Move '%(ours)s' above '%(cache)s' in MIDDLEWARE.") % names,
            )
        )
    return found


def check_sessions(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W007 and W017."""
    if _place(SESSION) is None:
        return []
    found = []
    in_table = settings.SESSION_ENGINE in (f"{_BACKENDS}db", f"{_BACKENDS}cached_db")
    if in_table and not apps.is_installed("django.contrib.sessions"):
        text = _("Sessions cannot be kept: SESSION_ENGINE = '%s' needs the table of an app that is not installed.")
        hint = _("Add 'django.contrib.sessions' to INSTALLED_APPS, and run python manage.py migrate.")
        found.append(warning(7, text % settings.SESSION_ENGINE, hint))
    if str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict":
        text = _(
            "SESSION_COOKIE_SAMESITE is 'Strict', so who follows a link on another site comes without their session "
            "and is given a new one: who shared the link is forgotten, and who was logged in is logged out."
        )
        hint = _("Set SESSION_COOKIE_SAMESITE to 'Lax', which is Django's default.")
        found.append(warning(17, text, hint))
    return found


def check_volatile_sessions(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W021."""
    alias = settings.SESSION_CACHE_ALIAS
    cache = settings.CACHES.get(alias, {}).get("BACKEND", "")
    if (settings.SESSION_ENGINE.removeprefix(_BACKENDS), cache) not in _VOLATILE:
        return []
    text = _("Sessions are kept in CACHES['%s'], which no two processes share: a token that one saw, another forgot.")
    hint = _("Set SESSION_ENGINE to 'django.contrib.sessions.backends.db', or CACHES['%s'] to a shared cache.")
    return [warning(21, text % alias, hint % alias)]


def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W018."""
    try:
        parameter, cookie = conf.token_names
    except ConfigError:
        return []  # check_settings names the key
    found = []
    taken = (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME, settings.LANGUAGE_COOKIE_NAME, "messages")
    if cookie in taken:
        found.append(_clash("COOKIE_NAME", cookie, _("a cookie of Django's, whose value would be reported as a token")))
    if parameter in ("next", "csrfmiddlewaretoken"):
        found.append(_clash("QUERY_PARAM", parameter, _("a parameter of Django's, whose value would be a token")))
    return found


def _clash(key: str, name: str, what: str) -> CheckMessage:
    values = {"setting": SETTING, "key": key, "name": name, "what": what}
    text = _("%(setting)s['%(key)s'] = '%(name)s' is the name of %(what)s.")
    hint = _("Remove %(setting)s['%(key)s']: MMOLove's own name for it is 'mmref'.")
    return warning(18, text % values, hint % values)


def _place(path: str) -> int | None:
    """Where that middleware, or a subclass of it, stands first."""
    kind = import_string(path)
    return next((place for place, name in enumerate(settings.MIDDLEWARE) if name == path or _is(name, kind)), None)


def _is(name: str, kind: type) -> bool:
    try:
        found = import_string(name)
    except ImportError:  # which Django says itself
        return False
    return isinstance(found, type) and issubclass(found, kind)


def _keeps_cookie() -> bool:
    try:
        return conf.set_cookie
    except ConfigError:
        return False  # check_settings names the key
