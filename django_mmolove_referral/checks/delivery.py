"""Who delivers and who rewards: Celery, the receiver of the reward, and the database under both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage
from django.db import connections, router
from django.utils.translation import gettext as _

from ..conf import ConfigError, conf
from ..delivery.dispatch import SWEEP_TASK, celery
from ..delivery.rewards import NO_RECEIVER
from ..models import OutboundEvent, Referral
from ..signals import referral_qualified
from .message import configured_servers, warning


def check_receiver(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W014."""
    return [] if referral_qualified.has_listeners(Referral) or not configured_servers() else [no_receiver()]


def no_receiver() -> CheckMessage:
    hint = _(
        "Connect a receiver to django_mmolove_referral.signals.referral_qualified in your AppConfig.ready(), as "
        "“Signals” in the documentation shows, and restart what delivers: what is due is granted by its next run."
    )
    return warning(14, _(NO_RECEIVER), hint)


def check_celery(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W015 and W016."""
    if not _by_celery():
        return []
    if not _has_app():
        return [
            warning(
                15,
                _("Delivery is Celery's, but this process has no Celery app: its wake-ups go to nobody's broker."),
                _("Import your Celery app in the project's __init__.py: from .celery import app as celery_app."),
            )
        ]
    settings = celery.known_app().conf
    if settings.task_always_eager:
        text = _("Delivery is Celery's, but CELERY_TASK_ALWAYS_EAGER is on: no worker hears of a wake-up.")
    elif str(settings.broker_write_url or "").startswith("memory:"):
        text = _("Delivery is Celery's, but its broker is this process's memory: no worker hears of a wake-up.")
    else:
        return []
    hint = _(
        "Where no worker runs, set MMOLOVE_REFERRAL['DISPATCH'] to 'thread', or to 'manual' (as in tests); else give "
        "Celery a broker."
    )
    return [warning(16, text, hint)]


def check_sweep(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W005."""
    if not _by_celery() or not _has_app():
        return []
    schedule = celery.known_app().conf.beat_schedule or {}
    if any(entry.get("task") == SWEEP_TASK for entry in schedule.values()):
        return []
    return [
        warning(
            5,
            _("Delivery is Celery's, but its beat does not sweep: what no wake-up announced, and every retry, waits."),
            _(
                'Add {"task": \'%s\', "schedule": 30.0} to CELERY_BEAT_SCHEDULE and run beat. If the schedule is in '
                "the database, add it there and silence this check."
            )
            % SWEEP_TASK,
        )
    ]


def check_sqlite(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W023. Whether the file is in WAL mode only the file knows; the mode of transactions is what decides."""
    connection = connections[router.db_for_write(OutboundEvent)]
    mode = connection.settings_dict["OPTIONS"].get("transaction_mode")
    if connection.vendor != "sqlite" or str(mode).upper() in ("IMMEDIATE", "EXCLUSIVE"):
        return []
    text = _(
        "DATABASES['%s'] is an SQLite whose transactions begin as readers: those that are to write at the same time "
        'fail with "database is locked", sign-ups among them.'
    )
    hint = _(
        "Set its OPTIONS to {'transaction_mode': 'IMMEDIATE', 'timeout': 20, 'init_command': 'PRAGMA "
        "journal_mode=WAL;'}."
    )
    return [warning(23, text % connection.alias, hint)]


def _by_celery() -> bool:
    try:
        return conf.dispatch == "celery" and bool(configured_servers())
    except ConfigError:
        return False  # check_settings names the key


def _has_app() -> bool:
    """Celery makes one of that name where the project made none."""
    return celery.known_app().main != "default"
