"""The operator's commands."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_mmolove_referral import attach_referral, mark_reversed
from django_mmolove_referral.models import OutboundEvent

from .portal import create

pytestmark = pytest.mark.django_db


@pytest.fixture
def failed() -> list[OutboundEvent]:
    """Four events that ended: rejected with 400, exhausted with 503, cancelled by an operator, accepted."""
    ends: list[dict[str, Any]] = [
        {"state": "rejected", "last_status": 400, "last_error": "HTTP 400: no"},
        {"state": "exhausted", "last_status": 503},
        {"state": "cancelled", "reason": "operator"},
        {"state": "accepted", "last_status": 200},
    ]
    for number, end in enumerate(ends):
        referral = attach_referral(create(f"player{number}@example.com"), f"token-{number}")
        OutboundEvent.objects.filter(referral=referral).update(attempts=7, **end)
    return list(OutboundEvent.objects.order_by("pk"))


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("mmolove_redeliver", *arguments, stdout=out)
    return out.getvalue()


def pending() -> list[int]:
    return [
        number
        for number, event in enumerate(OutboundEvent.objects.order_by("pk"))
        if (event.state, event.attempts) == ("pending", 0)
    ]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ([], [0, 1]),
        (["--state", "rejected"], [0]),
        (["--state", "cancelled", "--state", "exhausted"], [1, 2]),
        (["--status", "503"], [1]),
        (["--status", "503", "--status", "400"], [0, 1]),
        (["--kind", "registered"], [0, 1]),
        (["--kind", "qualified"], []),
        (["--server", "default"], [0, 1]),
        (["--since", "2020-01-01"], [0, 1]),
        (["--since", "2100-01-01T10:00"], []),
        (["--until", "2100-01-01T10:00+02:00"], [0, 1]),
        (["--until", "2020-01-01"], []),
        (["--state", "accepted", "--force"], [3]),
    ],
    ids=str,
)
def test_redeliver_takes_what_meets_every_filter(
    arguments: list[str], sent: list[int], failed: list[OutboundEvent]
) -> None:
    assert run(*arguments) == f"{len(sent)} of {len(sent)} events will be sent again.\n"
    assert pending() == sent


def test_redeliver_by_key(failed: list[OutboundEvent]) -> None:
    run(failed[1].server_event_id)
    assert pending() == [1]


def test_a_dry_run_only_says_which(failed: list[OutboundEvent]) -> None:
    said = run("--dry-run")
    assert f"registered {failed[0].server_event_id} (rejected): HTTP 400: no" in said
    assert "2 events would be sent again." in said
    assert pending() == []


def test_what_cannot_be_sent_is_counted_and_explained(failed: list[OutboundEvent]) -> None:
    mark_reversed(failed[0].referral.user)
    said = run()
    assert "1 of 2 events will be sent again." in said
    assert "The others cannot be" in said


def test_progress_on_a_terminal(failed: list[OutboundEvent]) -> None:
    out = StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    call_command("mmolove_redeliver", stdout=out)
    assert "\r1 of 2\r2 of 2\n" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--state", "accepted"], "--force"),
        (["--since", "yesterday"], "--since takes a time such as"),
        (["--until", "2026-13-41"], "--until takes a time such as"),
        (["--server", "atlantis"], "There is no server 'atlantis'"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments: list[str], message: str, failed: list[OutboundEvent]) -> None:
    with pytest.raises(CommandError, match=message):
        run(*arguments)


def test_there_is_no_state_that_cannot_be_sent_again(failed: list[OutboundEvent], capsys: Callable[..., Any]) -> None:
    with pytest.raises(CommandError, match="invalid choice"):
        run("--state", "waiting")
