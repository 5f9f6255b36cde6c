"""docs/security.md says what is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission

from django_mmolove_referral import attach_referral
from django_mmolove_referral.conf import conf
from django_mmolove_referral.models import OutboundEvent, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox

from .clock import let_pass
from .conftest import SERVER_ID, Table
from .pages import DOCS, ROOT, code
from .portal import create

PAGE = (DOCS / "security.md").read_text("utf-8")


@pytest.mark.django_db(transaction=True)
def test_a_secret_is_rotated_as_on_the_page(
    sandbox: Sandbox,
    mint: Callable[..., str],
    drain: Callable[..., Any],
    configure: Callable[..., None],
    tmp_path: Path,
    table: Table,
) -> None:
    """With the page's own callable, and no process restarted."""
    file = tmp_path / "mmolove"
    file.write_text("test-secret\n")
    namespace: dict[str, Any] = {}
    exec(code("security.md", "def mmolove_secret").replace("/run/secrets/mmolove", str(file)), namespace)
    configure(**namespace["MMOLOVE_REFERRAL"])
    attach_referral(create("early@example.com"), mint())
    drain()
    assert table.states() == {"registered": "accepted"}
    sandbox.rotate_secret(SERVER_ID, "another-secret")
    for number in range(3):
        attach_referral(create(f"player{number}@example.com"), mint())
    drain()
    assert (table.health.state, "401" in table.health.reason) == (ServerHealth.State.PAUSED, True)
    assert OutboundEvent.objects.filter(state="pending", attempts=0).count() == 3
    file.write_text("another-secret\n")
    let_pass(conf.probe_interval[1] + 1)
    drain()
    assert set(OutboundEvent.objects.values_list("state", flat=True)) == {"accepted"}


def test_a_callable_that_fails_shows_its_type_alone(configure: Callable[..., None]) -> None:
    namespace: dict[str, Any] = {}
    exec(code("security.md", "def mmolove_secret").replace("/run/secrets", "/no/such/s3cret"), namespace)
    configure(**namespace["MMOLOVE_REFERRAL"])
    with pytest.raises(Exception, match="is a callable that raised FileNotFoundError") as caught:
        conf.server("default").credentials()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.django_db
def test_the_permissions_of_the_page() -> None:
    there = Permission.objects.filter(content_type__app_label="mmolove_referral").values_list("codename", flat=True)
    named = re.findall(r"^\| `mmolove_referral\.(\w+)` \|", PAGE, re.MULTILINE)
    models = {"referral", "outboundevent", "deliveryattempt", "reward", "serverhealth"}
    assert sorted(there) == sorted([*named, *(f"view_{model}" for model in models)])


def test_the_dependencies_of_the_page() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8").partition("\ndependencies = [")[2].partition("\n]")[0]
    assert re.findall(r'^  "([a-z]+)>=[\d.]+"', project, re.MULTILINE) == ["celery", "django", "requests"]
    assert project.strip().count("\n") == 2
    assert "Django, requests and Celery" in PAGE


def test_the_numbers_of_the_page() -> None:
    assert f"{conf.response_limit // 1024} KiB are read at most (`RESPONSE_LIMIT`)" in PAGE
    assert conf.probe_interval[1] == 300
    assert "the next dry run, five minutes at most" in PAGE
