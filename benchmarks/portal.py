"""The portal that is measured: Django, a database of the benchmark's own (``DATABASE_URL``; PostgreSQL by default), and
as many referred accounts as are asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import django
from django.conf import settings

from tests.databases import from_url

from .sink import SECRET, SERVER_ID

DEFAULT_DATABASE = "postgres://postgres@127.0.0.1:5432/mmolove_benchmarks"


def setup(aliases: Sequence[str] = ("default",), **keys: Any) -> None:
    """Make this process the portal, with so many databases; ``keys`` are added to ``MMOLOVE_REFERRAL``."""
    url = os.environ.get("DATABASE_URL") or DEFAULT_DATABASE
    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        DATABASES={alias: _named(from_url(url), alias) for alias in aliases},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django_mmolove_referral",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django_mmolove_referral.middleware.ReferralMiddleware",
        ],
        MMOLOVE_REFERRAL={"SERVER_ID": SERVER_ID, "SECRET": SECRET, "DISPATCH": "manual", **keys},
    )
    django.setup()


def _named(database: dict[str, Any], alias: str) -> dict[str, Any]:
    return database if alias == "default" else {**database, "NAME": f"{database['NAME']}_{alias}"}


@contextmanager
def database(alias: str = "default") -> Iterator[str]:
    """A migrated database that goes afterwards; its URL, for processes of their own."""
    from django.db import connections

    from tests.databases import running_url

    connection = connections[alias]
    configured = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        yield running_url() if alias == "default" else ""
    finally:
        connection.creation.destroy_test_db(configured, verbosity=0)


_numbers = count(1)


def populate(number: int, using: str = "default") -> None:
    """That many referred accounts, each with its ``registered`` due now."""
    from django.contrib.auth.models import User
    from django.utils import timezone

    from django_mmolove_referral.models import OutboundEvent, Referral

    for start in range(0, number, 5000):
        names = [f"player{next(_numbers)}" for _ in range(min(5000, number - start))]
        users = User.objects.using(using).bulk_create(
            [User(username=name, password="!") for name in names], batch_size=1000
        )
        referrals = Referral.objects.using(using).bulk_create(
            [Referral(user=user, server="default", token=f"token-of-{user.username}-{'x' * 40}") for user in users],
            batch_size=1000,
        )
        now = timezone.now()
        OutboundEvent.objects.using(using).bulk_create(
            [
                OutboundEvent(
                    referral=referral,
                    server="default",
                    kind="registered",
                    server_event_id=f"reg-{referral.user_id}",
                    body=body(referral.token, referral.user_id),
                    due_at=now,
                )
                for referral in referrals
            ],
            batch_size=1000,
        )


def body(token: str, user_id: Any) -> bytes:
    from django_mmolove_referral import protocol

    return protocol.encode(
        protocol.Kind.REGISTERED,
        token=token,
        server_id=SERVER_ID,
        server_event_id=f"reg-{user_id}",
        ts=int(time.time()),
        referee_identity=str(user_id),
    )


def unsend(using: str = "default") -> None:
    """Everything is due again, as if nothing had been sent; the tables are as fresh as after a vacuum."""
    from django.utils import timezone

    from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, ServerHealth

    DeliveryAttempt.objects.using(using)._raw_delete(using)
    ServerHealth.objects.using(using).delete()
    Referral.objects.using(using).update(state="captured", registered_at=None, referral_id="")
    OutboundEvent.objects.using(using).update(
        state="pending", outcome="", due_at=timezone.now(), claim=None, attempts=0, frozen=False,
        last_status=None, response={}, attempted_at=None, settled_at=None,
    )  # fmt: skip
    vacuum(using, "(FULL, ANALYZE)")


def vacuum(using: str, how: str = "(ANALYZE)") -> None:
    """No lap pays for the rows that the one before it left dead."""
    from django.db import connections

    connection = connections[using]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            tables = ("referral", "outboundevent", "deliveryattempt", "reward", "serverhealth")
            cursor.execute(f"VACUUM {how} {', '.join(f'mmolove_referral_{table}' for table in tables)}")
        elif connection.vendor == "mysql":
            cursor.execute("ANALYZE TABLE mmolove_referral_outboundevent")
