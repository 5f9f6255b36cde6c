"""System checks: installation mistakes, each with a stable id and a hint that says what to do.

All are warnings: a portal without MMOLove credentials still starts and runs its tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning  # noqa: A004
from django.core.checks import register as register_check
from django.utils.translation import gettext as _

from .conf import ConfigError, conf
from .delivery.dispatch import SWEEP_TASK, portal_app

MIDDLEWARE = "django_mmolove_referral.middleware.ReferralMiddleware"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
CACHE = "django.middleware.cache.FetchFromCacheMiddleware"


def register() -> None:
    register_check(check_settings)
    register_check(check_middleware)
    register_check(check_sweep)


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    return [
        Warning(problem, hint=_("See the settings table in the README."), id="mmolove_referral.W001")
        for problem in conf.problems()
    ]


def check_middleware(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    order = list(settings.MIDDLEWARE)
    if MIDDLEWARE not in order:
        return [
            Warning(
                _("The referral middleware is not installed: no visit is captured, no sign-up is attributed."),
                hint=_("Add '%(ours)s' to MIDDLEWARE, after '%(other)s'.") % {"ours": MIDDLEWARE, "other": SESSION},
                id="mmolove_referral.W002",
            )
        ]
    found: list[CheckMessage] = []
    place = order.index(MIDDLEWARE)
    if SESSION not in order[:place]:
        found.append(
            Warning(
                _("The referral middleware comes before the sessions: a token is forgotten after one request."),
                hint=_("Move '%(ours)s' below '%(other)s' in MIDDLEWARE.") % {"ours": MIDDLEWARE, "other": SESSION},
                id="mmolove_referral.W003",
            )
        )
    if CACHE in order[:place]:
        found.append(
            Warning(
                _("The referral middleware comes after the page cache: a cached page captures nothing."),
                hint=_("Move '%(ours)s' above '%(other)s' in MIDDLEWARE.") % {"ours": MIDDLEWARE, "other": CACHE},
                id="mmolove_referral.W004",
            )
        )
    return found


def check_sweep(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    try:
        if conf.dispatch != "celery":
            return []
    except ConfigError:
        return []  # check_settings names the key
    schedule = portal_app().conf.beat_schedule or {}
    if any(entry.get("task") == SWEEP_TASK for entry in schedule.values()):
        return []
    return [
        Warning(
            _("Delivery is Celery's, but its beat does not sweep: what no wake-up announced, and every retry, waits."),
            hint=_(
                'Add {"task": \'%s\', "schedule": 30.0} to CELERY_BEAT_SCHEDULE and run beat. If the schedule is in '
                "the database, add it there and silence this check."
            )
            % SWEEP_TASK,
            id="mmolove_referral.W005",
        )
    ]
