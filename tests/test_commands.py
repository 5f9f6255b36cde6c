"""The operator's commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from django.utils import timezone

from django_mmolove_referral import attach_referral, mark_qualified, mark_reversed
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


class Told:
    """What ``mmolove_redeliver`` said of these keys, and its exit code."""

    def __init__(self, *arguments: str) -> None:
        out, err = StringIO(), StringIO()
        self.code = 0
        try:
            call_command("mmolove_redeliver", *arguments, stdout=out, stderr=err)
        except CommandError as error:
            self.code = error.returncode
        self.out, self.err = out.getvalue(), err.getvalue()


def test_each_key_that_leads_to_nothing_is_told_why(failed: list[OutboundEvent]) -> None:
    rejected, exhausted, cancelled, accepted = (event.server_event_id for event in failed)
    blanked = attach_referral(create("blanked@example.com"), "token-b").events.get()
    OutboundEvent.objects.filter(pk=blanked.pk).update(state="rejected", body=b"")
    mark_qualified(failed[1].referral.user)
    waiting, due = f"qual-{exhausted[4:]}", attach_referral(create("due@example.com"), "token-d").events.get()
    told = Told(rejected, waiting, due.server_event_id, accepted, cancelled, blanked.server_event_id, "nonsense")
    assert (told.code, told.out) == (3, "1 of 7 events will be sent again.\n")
    said = dict(line.split(": ", 1) for line in told.err.splitlines())
    assert {key.strip("'"): why for key, why in said.items()} == {
        waiting: (
            "it is waiting. It waits for “registered”, which is exhausted. "
            f"Open “registered” ({exhausted}), do what its page says, and redeliver it."
        ),
        due.server_event_id: (
            "it is pending. It is due and leaves with the next delivery run. "
            "If it stays so, nothing delivers: see MMOLOVE_REFERRAL['DISPATCH'] = 'manual'."
        ),
        accepted: "it is accepted; to send it once more give --state accepted --force",
        cancelled: "it is cancelled; to send it after all give --state cancelled",
        blanked.server_event_id: (
            "it is rejected and cannot be sent any more: the account was deleted, the body has been blanked "
            "(TOKEN_RETENTION), the referral has ended, it was cancelled for good, or a worker has it in hand."
        ),
        "nonsense": "there is no such event",
    }
    assert failed[0].pk in OutboundEvent.objects.filter(state="pending").values_list("pk", flat=True)
    assert (
        Told(exhausted, "--status", "404").err
        == f"'{exhausted}': it is exhausted, and does not meet the other filters\n"
    )


def test_a_key_of_an_event_between_two_tries_has_it_sent_at_once(failed: list[OutboundEvent]) -> None:
    """As the admin's “Redeliver now” does: its schedule goes on where it was."""
    event = failed[0]
    later = timezone.now() + timedelta(hours=1)
    OutboundEvent.objects.filter(pk=event.pk).update(state="pending", attempts=3, due_at=later, last_status=503)
    assert run("--state", "rejected") == "0 of 0 events will be sent again.\n", "asked for by nothing but its key"
    told = Told(event.server_event_id, "--dry-run")
    assert (told.code, told.out.splitlines()[-1]) == (0, "1 of 1 events would be sent again.")
    assert OutboundEvent.objects.get(pk=event.pk).due_at == later
    told = Told(event.server_event_id)
    assert (told.code, told.out, told.err) == (0, "1 of 1 events will be sent again.\n", "")
    event.refresh_from_db()
    assert (event.attempts, event.due_at < later) == (3, True)
    told = Told(event.server_event_id, "--dry-run")
    assert (told.code, told.err.partition(":")[0]) == (3, f"'{event.server_event_id}'"), "it is due already"


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


# -- what the commands have in common


def shell(tmp_path: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A command in a process of its own, on a database in ``tmp_path``."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'portal.sqlite3'}",
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "django", *arguments], env=environment, stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["mmolove_stats"],
        ["mmolove_qualify", "bob"],
        ["mmolove_redeliver"],
        ["mmolove_export", "1"],
        ["mmolove_prune", "--days", "90"],
        ["mmolove_deliver", "--once"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_before_migrate_each_command_says_so_in_a_line(arguments: list[str], tmp_path: Path) -> None:
    process = shell(tmp_path, *arguments)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.decode().splitlines()[-1] == (
        "CommandError: Tables are missing or old in the database 'default' (SQLite): not applied yet is 0001_initial. "
        "Run: python manage.py migrate"
    )
    assert b"Traceback" not in err


def test_another_fault_of_the_database_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise DatabaseError("disk full")

    monkeypatch.setattr("django_mmolove_referral.stats.collect", refuse)
    with pytest.raises(DatabaseError, match="disk full"):
        call_command("mmolove_stats")
    monkeypatch.setattr("django_mmolove_referral.management.base.of_migrations", refuse)
    with pytest.raises(DatabaseError, match="disk full"):
        call_command("mmolove_stats")


def test_a_command_whose_reader_has_gone_ends_without_a_word(tmp_path: Path) -> None:
    make_bob = "from tests.portal import create; create('bob@example.com')"
    for arguments in (["migrate", "--verbosity", "0"], ["shell", "--command", make_bob]):
        process = shell(tmp_path, *arguments, stdout=subprocess.DEVNULL)
        assert (process.communicate(timeout=120)[1], process.returncode) == (b"", 0)
    for line in (
        "mmolove_doctor --offline",
        "mmolove_doctor --offline --json",
        "mmolove_stats",
        "mmolove_export 1",
        "mmolove_redeliver --dry-run",
    ):
        reading, writing = os.pipe()
        os.close(reading)
        process = shell(tmp_path, *line.split(), stdout=writing)
        os.close(writing)
        assert (line, process.communicate(timeout=120)[1], process.returncode) == (line, b"", 141)


def test_delivering_imports_what_a_web_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Receivers, for one, that a portal connects beside its views."""
    (tmp_path / "realm_urls.py").write_text("urlpatterns = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ROOT_URLCONF = "realm_urls"
    call_command("mmolove_deliver", "--once", stdout=StringIO())
    assert "realm_urls" in sys.modules
    monkeypatch.delitem(sys.modules, "realm_urls")
