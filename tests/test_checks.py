"""The system checks, compared whole."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from django.core.checks import CheckMessage, Warning, run_checks  # noqa: A004

from django_mmolove_referral.checks import CACHE, MIDDLEWARE, SESSION

pytestmark = pytest.mark.django_db  # Django's own checks ask the database

FULL = {"SERVER_ID": "srv_1", "SECRET": "s3cr3t"}
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"

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


def wrong_setting(problem: str) -> Warning:
    return Warning(problem, hint="See the settings table in the README.", id="mmolove_referral.W001")


def ours() -> list[CheckMessage]:
    ids = {f"mmolove_referral.W00{n}" for n in range(1, 6)}
    return [message for message in run_checks() if message.id in ids]


def test_a_portal_that_is_set_up_well_hears_nothing(settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = FULL
    assert ours() == []


def test_a_portal_without_credentials_starts_with_a_warning(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMOLOVE_SERVER_ID", raising=False)
    settings.MMOLOVE_REFERRAL = {}
    assert ours() == [
        wrong_setting(
            "MMOLOVE_REFERRAL['SERVER_ID'] must be the server's id from the MMOLove dashboard, "
            "or set the environment variable MMOLOVE_SERVER_ID."
        )
    ]


def test_each_wrong_setting_is_a_warning_of_its_own(settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = {**FULL, "DISPATCH": "post", "SHARE_URL": "http://[oops", "QUERY_PARM": "x"}
    dispatch, unknown, share_url = ours()
    assert dispatch == wrong_setting(
        "MMOLOVE_REFERRAL['DISPATCH'] must be one of 'thread', 'celery', 'manual', not 'post'."
    )
    assert unknown.msg.startswith("MMOLOVE_REFERRAL has no setting 'QUERY_PARM'; there are AUTO_REGISTER, ")
    assert unknown == wrong_setting(unknown.msg)
    assert share_url == wrong_setting(
        "MMOLOVE_REFERRAL['SHARE_URL'] must be a URL such as \"https://mmolove.com/r/your-server\"."
    )


def test_a_setting_that_is_no_dict_is_one_warning(settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = "srv_1"
    assert ours() == [wrong_setting("MMOLOVE_REFERRAL must be a dict, not str.")]


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ([], [NOT_INSTALLED]),
        ([SESSION, CACHE], [NOT_INSTALLED]),
        ([SESSION, MIDDLEWARE], []),
        ((SESSION, MIDDLEWARE), []),
        ([UPDATE, SESSION, MIDDLEWARE, CACHE], []),
        ([MIDDLEWARE, SESSION], [BEFORE_SESSIONS]),
        ([MIDDLEWARE], [BEFORE_SESSIONS]),
        ([MIDDLEWARE, SESSION, CACHE], [BEFORE_SESSIONS]),
        ([SESSION, CACHE, MIDDLEWARE], [AFTER_CACHE]),
        ([CACHE, MIDDLEWARE, SESSION], [BEFORE_SESSIONS, AFTER_CACHE]),
    ],
)
def test_the_place_of_the_middleware_is_checked(order: Any, found: list[Warning], settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = FULL
    settings.MIDDLEWARE = order
    assert ours() == found


NO_SWEEP = Warning(
    "Delivery is Celery's, but its beat does not sweep: what no wake-up announced, and every retry, waits.",
    hint=(
        'Add {"task": \'mmolove_referral.sweep\', "schedule": 30.0} to CELERY_BEAT_SCHEDULE and run beat. If the '
        "schedule is in the database, add it there and silence this check."
    ),
    id="mmolove_referral.W005",
)


@pytest.mark.parametrize(
    ("schedule", "warnings"),
    [
        ({}, [NO_SWEEP]),
        ({"other": {"task": "portal.tasks.clean", "schedule": 60}}, [NO_SWEEP]),
        ({"mmolove": {"task": "mmolove_referral.sweep", "schedule": 30.0}}, []),
    ],
)
def test_celery_needs_the_sweep(schedule: dict[str, Any], warnings: list[Warning], settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = {**FULL, "DISPATCH": "celery"}
    app = Celery("portal", broker="memory://")
    app.conf.beat_schedule = schedule
    assert ours() == warnings
    app.close()
