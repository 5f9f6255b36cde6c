"""What has to hold on every database that the tests run on."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from django_mmolove_referral.clock import DatabaseNow
from django_mmolove_referral.models import ServerHealth

pytestmark = pytest.mark.django_db


def test_no_check_complains_of_our_models() -> None:
    ours = {"mmolove_referral"}
    complaints = [
        message
        for message in run_checks(databases=["default"])
        if getattr(getattr(message.obj, "_meta", None), "app_label", None) in ours
        or getattr(getattr(getattr(message.obj, "model", None), "_meta", None), "app_label", None) in ours
    ]
    assert complaints == []


def test_no_migration_is_missing_or_pending() -> None:
    call_command("makemigrations", "--check", "--dry-run", stdout=StringIO())
    call_command("migrate", "--check", stdout=StringIO())


def test_the_databases_clock_is_kept_in_the_time_zone_of_its_datetimes() -> None:
    before = timezone.now()
    health = ServerHealth.objects.create(server="default", since=DatabaseNow())
    health.refresh_from_db()
    # Both clocks are this machine's here; a wrong time zone would be hours.
    assert abs((health.since - before).total_seconds()) < 300


def test_claims_skip_locked_rows_wherever_that_can_be_had() -> None:
    assert connection.features.has_select_for_update_skip_locked == (connection.vendor != "sqlite")
