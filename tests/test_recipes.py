"""The recipes of ``docs/milestones.md`` and ``docs/coming-from-the-kits.md``, as they stand there."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from datetime import timezone as tz
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models.signals import post_save

from django_mmolove_referral import attach_referral, mark_qualified
from django_mmolove_referral.conf import conf
from django_mmolove_referral.models import OutboundEvent, Referral, Reward
from django_mmolove_referral.sandbox.core import Sandbox

from .conftest import SECRET, SERVER_ID, Granted
from .factories import UserFactory
from .gameapp import models as game
from .pages import code
from .test_importing import Kit
from .test_milestones import players, written

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def the_game(monkeypatch: pytest.MonkeyPatch) -> None:
    """``from game.models import …``"""
    package = ModuleType("game")
    monkeypatch.setitem(sys.modules, "game", package)
    monkeypatch.setitem(sys.modules, "game.models", game)


def recipe(block: str, **names: Any) -> dict[str, Any]:
    exec(compile(block, "<recipe>", "exec"), names)
    return names


def character(level: int = 1, **fields: Any) -> game.Character:
    return game.Character.objects.create(owner=players(1)[0], level=level, **fields)


# -- a level


def test_at_the_milestone() -> None:
    (bob,) = players(1)
    recipe(code("milestones.md", "mark_qualified(user)\n"), mark_qualified=mark_qualified, user=bob)
    assert written() == {bob.pk}


@pytest.fixture
def by_signal() -> Iterator[None]:
    receiver = recipe(code("milestones.md", "def level_reached"))["level_reached"]
    yield
    post_save.disconnect(receiver, sender=game.Character)


@pytest.mark.usefixtures("by_signal")
def test_a_level_by_signal() -> None:
    thorin = character(8)
    for level, reached in ((9, False), (11, True), (12, True), (3, True)):
        thorin.level = level
        thorin.save()
        assert written() == ({thorin.owner.pk} if reached else set())
    assert OutboundEvent.objects.count() == 1


def test_a_level_in_the_games_code() -> None:
    level_up = recipe(code("milestones.md", "def level_up"))["level_up"]
    thorin = character(7)
    level_up(thorin)
    assert written() == set()
    with transaction.atomic():
        level_up(thorin, levels=5)
        transaction.set_rollback(True)
    assert written() == set(), "both or neither"
    thorin.refresh_from_db()
    level_up(thorin, levels=5)
    level_up(thorin)
    thorin.refresh_from_db()
    assert (thorin.level, written()) == (14, {thorin.owner.pk})


def test_play_time() -> None:
    session_ended = recipe(code("milestones.md", "def session_ended"))["session_ended"]
    thorin = character()
    other = game.Character.objects.create(owner=thorin.owner)
    stranger = game.Character.objects.create(owner=UserFactory.create(), seconds_played=10**6)
    session_ended(stranger, 60)
    session_ended(thorin, 3_600)
    session_ended(other, 3_599)
    assert written() == set()
    session_ended(thorin, 1)
    assert written() == {thorin.owner.pk}


# -- payments


def test_the_first_purchase_and_its_refund(
    mint: Callable[..., str], drain: Callable[..., Any], granted: Granted, sandbox: Sandbox
) -> None:
    names = recipe(code("milestones.md", "def refunded"))
    bob = UserFactory.create()
    attach_referral(bob, mint())
    drain()
    one, two = (game.Purchase.objects.create(account=bob) for _ in range(2))
    with transaction.atomic():
        names["paid"](one)
        transaction.set_rollback(True)
    assert written() == set(), "both or neither"
    names["paid"](one)
    names["paid"](two)
    drain()
    assert len(granted) == 1
    names["refunded"](one)
    drain()
    assert Referral.objects.get().state == "qualified", "the other purchase stands"
    names["refunded"](two)
    drain()
    assert (Referral.objects.get().state, Reward.objects.get().state) == ("reversed", "granted")
    assert sandbox.events("reversed")[0].accepted
    one.refresh_from_db()
    assert one.refunded_at is not None


def test_a_refund_before_anything_was_sent_pays_nobody(
    mint: Callable[..., str], drain: Callable[..., Any], granted: Granted
) -> None:
    names = recipe(code("milestones.md", "def refunded"))
    bob = UserFactory.create()
    attach_referral(bob, mint())
    purchase = game.Purchase.objects.create(account=bob)
    names["paid"](purchase)
    names["refunded"](purchase)
    drain()
    assert (granted, Reward.objects.count()) == ([], 0)


# -- a nightly batch


def test_a_nightly_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    thorin, dwalin = character(12), character(30)
    character(9)
    game.Character.objects.create(owner=thorin.owner, level=11)
    module = ModuleType("game.tasks")
    module.__dict__.update(recipe(code("milestones.md", "def report_milestones"), __name__="game.tasks"))
    monkeypatch.setitem(sys.modules, "game.tasks", module)
    assert module.report_milestones() == "2 qualified now, 0 before"
    assert written() == {thorin.owner.pk, dwalin.owner.pk}

    app = Celery("portal", set_as_current=False)
    schedule = recipe(code("milestones.md", "CELERY_BEAT_SCHEDULE"), crontab=crontab)["CELERY_BEAT_SCHEDULE"]
    app.conf.beat_schedule = schedule
    (entry,) = app.conf.beat_schedule.values()
    assert (entry["schedule"].hour, entry["schedule"].minute) == ({4}, {15})
    *names, function = entry["task"].split(".")
    assert getattr(sys.modules[".".join(names)], function)() == "0 qualified now, 2 before"


# -- coming from a kit


REGISTERED = int(time.time()) - 100 * 86400


def table(path: Path, *rows: tuple[object, ...]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["account", "token", "registered_at", "qualified_at", "code"])
        out.writerows(rows)
    return str(path)


def test_importing_the_old_table(tmp_path: Path, drain: Callable[..., Any], granted: Granted) -> None:
    import_referrals = recipe(code("coming-from-the-kits.md", "def import_referrals"))["import_referrals"]
    alice, bob, carol, dave = UserFactory.create_batch(4)
    path = table(
        tmp_path / "kit.csv",
        (bob.pk, "tok-1", REGISTERED, "", alice.pk),
        (carol.pk, "tok-2", REGISTERED, REGISTERED + 3600, ""),
        ("7777", "tok-3", REGISTERED, "", ""),
        (dave.pk, "", REGISTERED, "", ""),
        (dave.pk, "tok-4", "", "", ""),
        (dave.pk, "tok-4", "yesterday", "", ""),
    )
    for _ in range(2):
        imported, failed = import_referrals(path)
        assert imported == 2
        assert list(failed) == [4, 5, 6, 7]
        assert failed[4].startswith(("DoesNotExist: ", "ValidationError: "))  # whatever the key is
        assert failed[5] == "ValueError: A referral token is 1 to 1,024 visible ASCII characters; this is none."
        assert failed[6] == "ValueError: registered_at is a datetime, not None."
    found = Referral.objects.order_by("token").values_list("user", "referrer", "state", "registered_at")
    at = datetime.fromtimestamp(REGISTERED, tz=tz.utc)
    assert list(found) == [(bob.pk, alice.pk, "registered", at), (carol.pk, None, "qualified", at)]
    drain()
    assert (granted, OutboundEvent.objects.count()) == ([], 0)


def test_moving_over_while_the_portal_goes_on(
    tmp_path: Path,
    mint: Callable[..., str],
    sandbox: Sandbox,
    drain: Callable[..., Any],
    granted: Granted,
) -> None:
    """The five steps; the kit has paid for whom it qualified."""
    import_referrals = recipe(code("coming-from-the-kits.md", "def import_referrals"))["import_referrals"]
    bob, carol, dave = UserFactory.create_batch(3)
    tokens = {user: mint() for user in (bob, carol, dave)}
    kit = Kit()
    for user in (bob, carol):
        kit.register(user, tokens[user])
    path = table(tmp_path / "1.csv", *((user.pk, tokens[user], REGISTERED, "", "") for user in (bob, carol)))
    assert import_referrals(path) == (2, {})
    attach_referral(dave, tokens[dave])  # signed up since, and seen by both
    kit.register(dave, tokens[dave])
    kit.qualify(carol, tokens[carol])
    drain()
    path = table(
        tmp_path / "2.csv",
        (bob.pk, tokens[bob], REGISTERED, "", ""),
        (carol.pk, tokens[carol], REGISTERED, REGISTERED + 3600, ""),
        (dave.pk, tokens[dave], REGISTERED, "", ""),
    )
    assert import_referrals(path) == (3, {})
    for user in get_user_model()._default_manager.all():
        mark_qualified(user)
    drain()
    assert {referral.user for referral in granted} == {bob, dave}
    assert set(Reward.objects.values_list("referral__user", "state")) == {
        (user.pk, "granted") for user in (bob, carol, dave)
    }
    assert len(sandbox.referrals) == 3
    assert len([entry for entry in sandbox.events("qualified") if entry.accepted]) == 3


def test_a_script_that_stays(mint: Callable[..., str], sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    script = code("coming-from-the-kits.md", "with ReferralClient").replace(
        'ReferralClient("your-server-id", secret)', "ReferralClient(server, secret, endpoint=endpoint)"
    )
    endpoint = conf.server("default").credentials().endpoint
    given = {"server": SERVER_ID, "endpoint": endpoint}
    recipe(script, **given, secret=SECRET, token=mint())
    assert capsys.readouterr().out == ""
    recipe(script, **given, secret="wrong", token=mint())
    assert capsys.readouterr().out.startswith("401 HTTP 401: ")
    assert [entry.accepted for entry in sandbox.events()] == [True, False]
    assert not Referral.objects.exists()
