"""Who delivers and who rewards, compared whole."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from celery import Celery
from django.core.checks import CheckMessage, Warning  # noqa: A004
from django.db import connections

from django_mmolove_referral import signals
from django_mmolove_referral.delivery import dispatch
from tests.conftest import Granted

from .conftest import Ours

NO_SWEEP = Warning(
    "Delivery is Celery's, but its beat does not sweep: what no wake-up announced, and every retry, waits.",
    hint=(
        'Add {"task": \'mmolove_referral.sweep\', "schedule": 30.0} to CELERY_BEAT_SCHEDULE and run beat. If the '
        "schedule is in the database, add it there and silence this check."
    ),
    id="mmolove_referral.W005",
)
NO_RECEIVER = Warning(
    "No receiver is connected to django_mmolove_referral.signals.referral_qualified: connect one in ready().",
    hint=(
        "Connect a receiver to django_mmolove_referral.signals.referral_qualified in your AppConfig.ready(), as "
        "“Signals” in the documentation shows, and restart what delivers: what is due is granted by its next run."
    ),
    id="mmolove_referral.W014",
)
NO_APP = Warning(
    "Delivery is Celery's, but this process has no Celery app: its wake-ups go to nobody's broker.",
    hint="Import your Celery app in the project's __init__.py: from .celery import app as celery_app.",
    id="mmolove_referral.W015",
)
NO_WORKER_HINT = (
    "Where no worker runs, set MMOLOVE_REFERRAL['DISPATCH'] to 'thread', or to 'manual' (as in tests); else give "
    "Celery a broker."
)
EAGER = Warning(
    "Delivery is Celery's, but CELERY_TASK_ALWAYS_EAGER is on: no worker hears of a wake-up.",
    hint=NO_WORKER_HINT,
    id="mmolove_referral.W016",
)
IN_MEMORY = Warning(
    "Delivery is Celery's, but its broker is this process's memory: no worker hears of a wake-up.",
    hint=NO_WORKER_HINT,
    id="mmolove_referral.W016",
)
READERS_FIRST = Warning(
    "DATABASES['default'] is an SQLite whose transactions begin as readers: those that are to write at the same time "
    'fail with "database is locked", sign-ups among them.',
    hint=(
        "Set its OPTIONS to {'transaction_mode': 'IMMEDIATE', 'timeout': 20, 'init_command': 'PRAGMA "
        "journal_mode=WAL;'}."
    ),
    id="mmolove_referral.W023",
)
SWEEP = {"mmolove": {"task": "mmolove_referral.sweep", "schedule": 30.0}}


def test_rewards_need_a_receiver(granted: Granted, ours: Ours) -> None:
    assert ours() == []
    signals.referral_qualified.disconnect(granted.receive)
    assert ours() == [NO_RECEIVER]


@pytest.mark.parametrize(
    ("schedule", "warnings"),
    [
        ({}, [NO_SWEEP]),
        ({"other": {"task": "portal.tasks.clean", "schedule": 60}}, [NO_SWEEP]),
        (SWEEP, []),
    ],
)
def test_celery_needs_the_sweep(
    schedule: dict[str, Any], warnings: list[Warning], celery_app: Celery, ours: Ours
) -> None:
    celery_app.conf.beat_schedule = schedule
    assert ours() == warnings


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ({"broker_url": "redis://127.0.0.1:6379/0"}, []),
        ({"broker_url": ["amqp://one//", "amqp://two//"]}, []),
        ({"broker_url": "memory://"}, [IN_MEMORY]),
        ({"broker_url": "redis://127.0.0.1:6379/0", "broker_write_url": "memory://"}, [IN_MEMORY]),
        ({"task_always_eager": True}, [EAGER]),
    ],
)
def test_wake_ups_need_a_broker_and_a_worker(
    options: dict[str, Any], warnings: list[Warning], celery_app: Celery, ours: Ours
) -> None:
    celery_app.conf.update(options, beat_schedule=SWEEP)
    assert ours() == warnings


def test_a_process_needs_the_projects_app(celery_app: Celery, monkeypatch: pytest.MonkeyPatch, ours: Ours) -> None:
    """What Celery makes up where a project imports none."""
    monkeypatch.setattr(dispatch.celery, "app", Celery("default", set_as_current=False))
    assert ours() == [NO_APP]


def test_the_app_is_the_one_that_django_started_with(celery_app: Celery, ours: Ours) -> None:
    """``runserver`` checks in a thread, where Celery's current app may be another one."""
    celery_app.conf.beat_schedule = SWEEP
    found: list[list[CheckMessage]] = []
    thread = threading.Thread(target=lambda: found.append(ours()))
    thread.start()
    thread.join()
    assert found == [[]]


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ({}, [READERS_FIRST]),
        ({"transaction_mode": "DEFERRED", "timeout": 20}, [READERS_FIRST]),
        ({"transaction_mode": None}, [READERS_FIRST]),
        ({"transaction_mode": "IMMEDIATE"}, []),
        ({"transaction_mode": "exclusive"}, []),
    ],
)
def test_sqlite_without_patience_is_no_matter_for_production(
    options: dict[str, Any], warnings: list[Warning], monkeypatch: pytest.MonkeyPatch, ours: Ours
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    assert ours() == []
    assert ours(deploy=True) == (warnings if connections["default"].vendor == "sqlite" else [])
