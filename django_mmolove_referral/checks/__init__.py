"""System checks: installation mistakes, each with a stable id and a hint that says what to do (``docs/checks.md``).

All are warnings: a portal without MMOLove credentials still starts and runs its tests. None asks the database. What
only matters once there are credentials is not said before; what only matters in production is said by
``manage.py check --deploy``.
"""

from __future__ import annotations

from django.core.checks import Tags
from django.core.checks import register as register_check

from .accounts import check_accounts
from .capture import CACHE, MIDDLEWARE, SESSION, check_middleware, check_names, check_sessions, check_volatile_sessions
from .delivery import check_celery, check_receiver, check_sqlite, check_sweep, no_receiver
from .pages import check_sandbox, check_share_links, no_join_page, no_share_url
from .servers import check_placeholders, check_same_servers, check_settings, check_this_machine, check_verify

__all__ = [
    "CACHE",
    "MIDDLEWARE",
    "SESSION",
    "TAG",
    "check_accounts",
    "check_celery",
    "check_middleware",
    "check_names",
    "check_placeholders",
    "check_receiver",
    "check_same_servers",
    "check_sandbox",
    "check_sessions",
    "check_settings",
    "check_share_links",
    "check_sqlite",
    "check_sweep",
    "check_this_machine",
    "check_verify",
    "check_volatile_sessions",
    "no_join_page",
    "no_receiver",
    "no_share_url",
    "register",
]

#: ``manage.py check --tag mmolove_referral`` runs these alone.
TAG = "mmolove_referral"

ALWAYS = (
    check_settings,
    check_placeholders,
    check_same_servers,
    check_middleware,
    check_sessions,
    check_names,
    check_accounts,
    check_share_links,
    check_receiver,
    check_celery,
    check_sweep,
)
IN_PRODUCTION = (check_verify, check_volatile_sessions, check_sqlite, check_sandbox, check_this_machine)


def register() -> None:
    for check in ALWAYS:
        register_check(check, TAG)
    for check in IN_PRODUCTION:
        register_check(check, TAG, Tags.security, deploy=True)
