"""Which accounts are referred, and what becomes of a sign-up when something of ours fails.

Runs under both user models: see the last test.
"""

from __future__ import annotations

import contextvars
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in
from django.core import serializers
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Model
from django.db.models.signals import post_save
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_mmolove_referral import attach_referral, receivers, signals
from django_mmolove_referral.conf import SETTING
from django_mmolove_referral.models import OutboundEvent, Referral

from . import portal
from .conftest import Hear
from .factories import UserFactory
from .visitors import OWN_USER_MODEL, Browser, accounts, failing, referred, urls, written

pytestmark = pytest.mark.django_db(transaction=True)

BOB, CAROL = "bob@example.com", "carol@example.com"

only_auth_user = pytest.mark.skipif(OWN_USER_MODEL, reason="about auth.User")


def atomic_requests(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", on)


@pytest.fixture(params=["autocommit", "ATOMIC_REQUESTS", "atomic view"])
def transactions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, settings: Any) -> str:
    """Each way in which a portal's ``/register/`` may commit."""
    mode = str(request.param)
    atomic_requests(monkeypatch, mode == "ATOMIC_REQUESTS")
    if mode == "atomic view":
        settings.ROOT_URLCONF = urls(register=transaction.atomic(portal.register))
    return mode


@pytest.fixture(
    params=[
        pytest.param(
            (asgi, url, atomic), id=f"{'ASGI' if asgi else 'WSGI'} {url} {'ATOMIC_REQUESTS' if atomic else ''}"
        )
        for asgi in (False, True)
        for url, atomic in (("/register/", False), ("/register/", True), ("/aregister/", False))
    ]
)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Browser, str]:
    """A browser and where it signs up: each server interface, sync and async (which excludes ATOMIC_REQUESTS)."""
    asgi, url, atomic = request.param
    atomic_requests(monkeypatch, atomic)
    return Browser(asgi=asgi), url


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we logged as errors."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("mmolove_referral.") and record.levelname == "ERROR"
    ]


# -- who is referred


def test_a_visitor_with_a_token_becomes_a_referred_account(way: tuple[Browser, str]) -> None:
    browser, url = way
    browser.visit("tok-1")
    assert browser.sign_up(url=url).status_code == 200

    referral = Referral.objects.get()
    user = get_user_model()._default_manager.get()
    assert (referral.user, referral.server, referral.token, referral.state) == (user, "default", "tok-1", "captured")
    event = referral.events.get()
    assert (event.kind, event.state, event.server, event.frozen) == ("registered", "pending", "default", False)
    assert event.server_event_id == f"reg-{user.pk}"
    body = json.loads(bytes(event.body))
    assert abs(body.pop("ts") - referral.created_at.timestamp()) < 10
    assert body == {
        "event": "registered",
        "server_id": "srv_test",
        "token": "tok-1",
        "referee_identity": str(user.pk),
        "server_event_id": f"reg-{user.pk}",
    }


def test_logging_in_right_after_the_sign_up_changes_nothing(way: tuple[Browser, str]) -> None:
    browser, url = way
    browser.visit("tok-1")
    before = browser.client.cookies["sessionid"].value
    assert browser.sign_up(url=url, login="1").status_code == 200

    assert browser.client.cookies["sessionid"].value != before
    assert browser.client.session["_auth_user_id"] == str(get_user_model()._default_manager.get().pk)
    assert referred() == {BOB: "tok-1"}
    assert written() == [(BOB, "registered")]
    assert "token" not in browser.record
    browser.post("/signout/")
    browser.log_in()
    assert written() == [(BOB, "registered")]


def test_a_token_in_the_sign_up_request_itself_is_enough(way: tuple[Browser, str]) -> None:
    browser, url = way
    browser.sign_up(url=f"{url}?mmref=tok-1")
    assert referred() == {BOB: "tok-1"}


def test_a_token_in_the_cookie_of_the_sign_up_request_is_enough(way: tuple[Browser, str]) -> None:
    browser, url = way
    browser.client.cookies["mmref"] = "tok-1"
    browser.sign_up(url=url)
    assert referred() == {BOB: "tok-1"}


@only_auth_user
@pytest.mark.parametrize("kind", ["ProxyAccount", "ChildAccount"])
def test_subclasses_of_the_user_model_are_accounts_too(transactions: str, kind: str) -> None:
    browser = Browser()
    browser.visit("tok-1")
    assert browser.sign_up(kind=kind).status_code == 200
    assert apps.get_model("testapp", kind)._default_manager.count() == 1
    assert referred() == {BOB: "tok-1"}
    assert written() == [(BOB, "registered")]


def test_the_latest_of_several_tokens_wins() -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.visit("tok-2")
    browser.sign_up()
    assert referred() == {BOB: "tok-2"}


def test_two_friends_may_share_one_link() -> None:
    for name in (BOB, CAROL):
        browser = Browser()
        browser.visit("tok-1")
        browser.sign_up(name)
    assert referred() == {BOB: "tok-1", CAROL: "tok-1"}
    assert written() == [(BOB, "registered"), (CAROL, "registered")]


def test_one_browser_uses_a_token_once(transactions: str) -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up(BOB)
    browser.sign_up(CAROL)
    browser.visit("tok-1")
    browser.sign_up("dave@example.com")
    assert accounts() == {BOB, CAROL, "dave@example.com"}
    assert referred() == {BOB: "tok-1"}


def test_a_new_token_in_the_same_browser_is_used_again() -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up(BOB)
    browser.visit("tok-2")
    browser.sign_up(CAROL)
    assert referred() == {BOB: "tok-1", CAROL: "tok-2"}


def test_a_second_sign_up_after_a_logout_is_not_referred() -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up(BOB, login="1")
    browser.post("/signout/")
    browser.sign_up(CAROL, login="1")
    assert referred() == {BOB: "tok-1"}


@pytest.mark.parametrize("atomic", [False, True])
def test_of_two_accounts_made_in_one_request_the_first_gets_the_token(
    atomic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_requests(monkeypatch, atomic)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.sign_up(url="/register-twice/").content == b"both"
    assert accounts() == {BOB, f"x{BOB}"}
    assert referred() == {BOB: "tok-1"}


def test_a_token_past_its_age_is_ignored(configure: Callable[..., None], later: Callable[[float], None]) -> None:
    configure(TOKEN_MAX_AGE=60)
    late, in_time = Browser(), Browser()
    late.visit("tok-1")
    later(30)
    in_time.visit("tok-2")
    later(31)
    late.sign_up(BOB)
    in_time.sign_up(CAROL)
    assert referred() == {CAROL: "tok-2"}
    late.log_in(BOB)
    assert referred() == {CAROL: "tok-2"}


def test_a_visitor_without_a_token_is_nobodys_referral(way: tuple[Browser, str]) -> None:
    browser, url = way
    assert browser.sign_up(url=url, login="1").status_code == 200
    assert accounts() == {BOB}
    assert referred() == {}


# -- accounts that no visitor made


def test_accounts_made_outside_a_request_are_not_referred() -> None:
    browser = Browser()
    browser.visit("tok-1")
    portal.create(BOB)
    assert referred() == {}


def test_accounts_from_a_fixture_are_not_referred(settings: Any) -> None:
    user = UserFactory.create(name=BOB)
    fixture = serializers.serialize("json", [user])
    user.delete()

    def load(request: HttpRequest) -> HttpResponse:
        for item in serializers.deserialize("json", fixture):
            item.save()
        return HttpResponse("loaded")

    settings.ROOT_URLCONF = urls(load=load)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.get("/load/").content == b"loaded"
    assert accounts() == {BOB}
    assert referred() == {}
    assert browser.record["token"] == "tok-1"


def test_accounts_made_in_bulk_are_not_referred(settings: Any) -> None:
    def bulk(request: HttpRequest) -> HttpResponse:
        model = get_user_model()
        model._default_manager.bulk_create([model(**{model.USERNAME_FIELD: BOB})])
        return HttpResponse("made")

    settings.ROOT_URLCONF = urls(bulk=bulk)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.get("/bulk/").content == b"made"
    assert accounts() == {BOB}
    assert referred() == {}


def test_saving_an_account_again_is_not_a_sign_up(settings: Any) -> None:
    old = UserFactory.create(name=BOB)

    def touch(request: HttpRequest) -> HttpResponse:
        old.save()
        return HttpResponse("saved")

    settings.ROOT_URLCONF = urls(touch=touch)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.get("/touch/").content == b"saved"
    assert referred() == {}


def test_an_account_that_a_logged_in_member_makes_is_not_referred() -> None:
    UserFactory.create(name=CAROL)
    browser = Browser()
    browser.log_in(CAROL)
    browser.visit("tok-1")
    browser.sign_up(BOB)
    assert accounts() == {BOB, CAROL}
    assert referred() == {}
    assert browser.record["token"] == "tok-1"


@only_auth_user
def test_staff_adding_an_account_in_the_admin_do_not_refer_it() -> None:
    UserFactory.create(name=CAROL, is_staff=True, is_superuser=True, date_joined=timezone.now() - timedelta(days=1))
    browser = Browser()
    browser.visit("tok-1")
    browser.log_in(CAROL)
    answer = browser.post(
        "/admin/auth/user/add/", username="bob", usable_password="true", password1="dragon-9!", password2="dragon-9!"
    )
    assert answer.status_code == 302
    assert accounts() == {"bob", CAROL}
    assert referred() == {}
    assert browser.record["token"] == "tok-1"


@pytest.mark.parametrize("asgi", [False, True])
def test_what_outlives_the_response_is_no_visitor_any_more(settings: Any, asgi: bool) -> None:
    left: list[contextvars.Context] = []

    def start_task(request: HttpRequest) -> HttpResponse:
        left.append(contextvars.copy_context())
        return HttpResponse("started")

    settings.ROOT_URLCONF = urls(task=start_task)
    browser = Browser(asgi=asgi)
    assert browser.get("/task/?mmref=tok-1").content == b"started"
    left[0].run(portal.create, BOB)
    assert accounts() == {BOB}
    assert referred() == {}
    assert browser.record["token"] == "tok-1"
    browser.sign_up(CAROL)
    assert referred() == {CAROL: "tok-1"}


def test_a_login_that_outlives_the_response_is_no_visitor_any_more(settings: Any) -> None:
    left: list[contextvars.Context] = []

    def start_task(request: HttpRequest) -> HttpResponse:
        left.append(contextvars.copy_context())
        return HttpResponse("started")

    settings.ROOT_URLCONF = urls(task=start_task)
    Browser().get("/task/?mmref=tok-1")
    user = UserFactory.create(name=BOB)
    left[0].run(user_logged_in.send, type(user), request=None, user=user)
    assert referred() == {}


def test_a_login_outside_a_request_refers_nobody() -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.client.force_login(UserFactory.create(name=BOB))
    assert referred() == {}


# -- rolled back


def test_a_sign_up_that_is_rolled_back_leaves_nothing_and_keeps_the_token(hear: Hear, transactions: str) -> None:
    captured = hear(signals.referral_captured)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.sign_up(url="/register-then-fail/").content == b"try again"
    assert (accounts(), referred(), written(), captured) == (set(), {}, [], [])

    browser.sign_up()
    assert (accounts(), referred(), written()) == ({BOB}, {BOB: "tok-1"}, [(BOB, "registered")])
    assert [news["referral"].token for news in captured] == ["tok-1"]


def test_a_request_that_crashes_under_atomic_requests_leaves_nothing_and_keeps_the_token(
    hear: Hear, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    def crash(request: HttpRequest) -> HttpResponse:
        portal.register(request)
        raise RuntimeError

    atomic_requests(monkeypatch, on=True)
    settings.ROOT_URLCONF = urls(crash=crash)
    captured = hear(signals.referral_captured)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.sign_up(url="/crash/").status_code == 500
    assert (accounts(), referred(), captured) == (set(), {}, [])
    browser.sign_up()
    assert (accounts(), referred(), len(captured)) == ({BOB}, {BOB: "tok-1"}, 1)


@pytest.mark.parametrize("atomic", [False, True])
def test_a_second_try_within_the_same_request_gets_the_token(
    monkeypatch: pytest.MonkeyPatch, settings: Any, atomic: bool
) -> None:
    def stubborn(request: HttpRequest) -> HttpResponse:
        portal.register_then_fail(request)
        return portal.register(request)

    atomic_requests(monkeypatch, atomic)
    settings.ROOT_URLCONF = urls(stubborn=stubborn)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.sign_up(url="/stubborn/", login="1").status_code == 200
    assert (accounts(), referred(), written()) == ({BOB}, {BOB: "tok-1"}, [(BOB, "registered")])


def test_a_second_try_gets_the_token_though_somebody_elses_referral_took_the_lost_key(settings: Any) -> None:
    def stubborn(request: HttpRequest) -> HttpResponse:
        lost: list[int] = []

        def remember(instance: Referral, **kwargs: Any) -> None:
            lost.append(instance.pk)

        post_save.connect(remember, sender=Referral)
        portal.register_then_fail(request)
        post_save.disconnect(remember, sender=Referral)
        Referral.objects.create(pk=lost[0], server="default", token="tok-2")
        return portal.register(request)

    settings.ROOT_URLCONF = urls(stubborn=stubborn)
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up(url="/stubborn/")
    assert referred()[BOB] == "tok-1"


def test_referral_captured_is_sent_after_the_commit(transactions: str) -> None:
    seen: list[tuple[bool, int]] = []

    def receiver(referral: Referral, **kwargs: Any) -> None:
        seen.append((connection.in_atomic_block, Referral.objects.filter(pk=referral.pk).count()))

    signals.referral_captured.connect(receiver)
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up()
    signals.referral_captured.disconnect(receiver)
    assert seen == [(False, 1)]


def test_a_receiver_of_referral_captured_that_fails_harms_nobody(transactions: str) -> None:
    def receiver(**kwargs: Any) -> None:
        raise RuntimeError

    signals.referral_captured.connect(receiver)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.sign_up(login="1").status_code == 200
    signals.referral_captured.disconnect(receiver)
    assert (accounts(), referred()) == ({BOB}, {BOB: "tok-1"})
    assert "token" not in browser.record


# -- trouble of ours


@contextmanager
def missing(model: type[Model]) -> Iterator[None]:
    """The table is not there: the migrations were forgotten."""
    table = model._meta.db_table
    with connection.schema_editor() as editor:
        editor.alter_db_table(model, table, "gone")
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(model, "gone", table)


def changed(**keys: Any) -> AbstractContextManager[object]:
    """Settings that are wrong for a while."""
    return override_settings(**{SETTING: {**getattr(django_settings, SETTING), **keys}})


def raises(user: Any) -> str:
    raise ZeroDivisionError


LOCKED = OperationalError("database is locked")
TROUBLES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no referral table": lambda: missing(Referral),
    "no event table": lambda: missing(OutboundEvent),
    "referral locked": lambda: failing('INSERT INTO "mmolove_referral_referral"', LOCKED),
    "event locked": lambda: failing('INSERT INTO "mmolove_referral_outboundevent"', LOCKED),
    "integrity": lambda: failing('INSERT INTO "mmolove_referral_referral"', IntegrityError("no such user")),
    "identity raises": lambda: changed(REFEREE_IDENTITY=raises),
    "identity empty": lambda: changed(REFEREE_IDENTITY=lambda user: " "),
    "identity is none": lambda: changed(REFEREE_IDENTITY=lambda user: None),
    "identity unknown": lambda: changed(REFEREE_IDENTITY="discord_id"),
    "server gone": lambda: override_settings(**{SETTING: {"SERVERS": {"eu": {"SERVER_ID": "x", "SECRET": "y"}}}}),
    "wrong age": lambda: changed(TOKEN_MAX_AGE="90 days"),
    "settings malformed": lambda: override_settings(**{SETTING: ["SERVER_ID"]}),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_of_ours_leaves_the_sign_up_whole_and_is_healed_once_at_the_next_login(
    trouble: str, transactions: str, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser()
    browser.visit("tok-1")
    with TROUBLES[trouble]():
        assert browser.sign_up().status_code == 200
    assert accounts() == {BOB}
    assert (referred(), written()) == ({}, [])
    assert errors(caplog)
    assert "tok-1" not in caplog.text

    caplog.clear()
    for _ in range(2):
        assert browser.log_in().status_code == 200
        assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])
        assert "token" not in browser.record
        browser.post("/signout/")
    assert errors(caplog) == []


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_that_lasts_leaves_the_login_whole_too(
    trouble: str, transactions: str, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser()
    browser.visit("tok-1")
    with TROUBLES[trouble]():
        assert browser.sign_up(login="1").status_code == 200
        assert "_auth_user_id" in browser.client.session
    assert errors(caplog)
    assert (accounts(), referred()) == ({BOB}, {})
    assert browser.log_in().status_code == 200
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])


def test_trouble_that_passes_is_healed_by_the_login_in_the_same_request(
    transactions: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    def identity(user: Any) -> str:
        tries.append(user)
        return "" if len(tries) == 1 else str(user.pk)

    browser = Browser()
    browser.visit("tok-1")
    with changed(REFEREE_IDENTITY=identity):
        assert browser.sign_up(login="1").status_code == 200
    assert len(errors(caplog)) == 1
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])
    assert "token" not in browser.record


@only_auth_user
def test_an_account_with_an_older_date_of_joining_is_healed_too(settings: Any) -> None:
    def take_over(request: HttpRequest) -> HttpResponse:
        """A portal that moves its old accounts over at their first login."""
        UserFactory.create(name=BOB, date_joined=timezone.now() - timedelta(days=400))
        return HttpResponse("moved")

    settings.ROOT_URLCONF = urls(move=take_over)
    browser = Browser()
    browser.visit("tok-1")
    with TROUBLES["identity raises"]():
        assert browser.get("/move/").content == b"moved"
    browser.log_in()
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])


def test_an_account_left_without_its_token_does_not_keep_it_from_the_next_one() -> None:
    browser = Browser()
    browser.visit("tok-1")
    with TROUBLES["identity raises"]():
        browser.sign_up(BOB)
    browser.sign_up(CAROL)
    browser.log_in(BOB)
    assert referred() == {CAROL: "tok-1"}


def test_a_newer_token_is_not_owed_to_an_account_that_missed_an_older_one() -> None:
    browser = Browser()
    browser.visit("tok-1")
    with TROUBLES["identity raises"]():
        browser.sign_up(BOB)
    if not OWN_USER_MODEL:
        get_user_model()._default_manager.update(date_joined=timezone.now() - timedelta(days=1))
    browser.visit("tok-2")
    browser.log_in(BOB)
    assert referred() == {}


def test_an_old_account_that_logs_in_with_a_token_is_not_referred(way: tuple[Browser, str]) -> None:
    joined = {} if OWN_USER_MODEL else {"date_joined": timezone.now() - timedelta(days=1)}
    UserFactory.create(name=BOB, **joined)
    browser, _ = way
    browser.visit("tok-1")
    assert browser.log_in().status_code == 200
    assert referred() == {}
    assert browser.record["token"] == "tok-1"


@contextmanager
def crashing() -> Iterator[None]:
    """The process dies between the account's commit and our part."""
    uid = f"mmolove_referral.{get_user_model()._meta.label}"
    post_save.disconnect(sender=get_user_model(), dispatch_uid=uid)
    try:
        yield
    finally:
        receivers.connect()


@only_auth_user
def test_an_account_left_by_a_crash_gets_its_token_at_the_next_login(way: tuple[Browser, str]) -> None:
    browser, url = way
    browser.visit("tok-1")
    with crashing():
        browser.sign_up(url=url)
    assert (accounts(), referred()) == ({BOB}, {})
    for _ in range(2):
        browser.log_in()
        assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])
        browser.post("/signout/")


@pytest.mark.skipif(not OWN_USER_MODEL, reason="auth.User knows when an account was made")
def test_without_a_date_of_joining_a_crash_leaves_the_account_unreferred() -> None:
    browser = Browser()
    browser.visit("tok-1")
    with crashing():
        browser.sign_up()
    assert browser.log_in().status_code == 200
    assert referred() == {}


@only_auth_user
def test_a_date_of_joining_without_a_time_heals_nothing_and_harms_nothing(
    caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    def log_in(request: HttpRequest) -> HttpResponse:
        user = get_user_model()._default_manager.get()
        user.__dict__["date_joined"] = timezone.now().date()
        user_logged_in.send(type(user), request=request, user=user)
        return HttpResponse("in")

    UserFactory.create(name=BOB)
    settings.ROOT_URLCONF = urls(signin=log_in)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.log_in().content == b"in"
    assert (referred(), errors(caplog)) == ({}, [])


def test_an_account_that_has_a_referral_keeps_it_at_the_login(transactions: str) -> None:
    browser = Browser()
    browser.visit("tok-1")
    with TROUBLES["identity raises"]():
        browser.sign_up()
    attach_referral(get_user_model()._default_manager.get(), "tok-2")
    assert browser.log_in().status_code == 200
    assert (referred(), written()) == ({BOB: "tok-2"}, [(BOB, "registered")])
    assert "token" not in browser.record


class Unreadable(dict[str, Any]):
    def get(self, *args: Any) -> Any:
        raise ConnectionError


class BreakSessions:
    """The session store is down."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.session = Unreadable()  # type: ignore[assignment]  # read like a dict, too
        return self.get_response(request)


@pytest.mark.parametrize("asgi", [False, True])
def test_a_session_that_cannot_be_read_leaves_sign_up_and_login_whole(
    asgi: bool, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def register(request: HttpRequest) -> HttpResponse:
        user = portal.create(BOB)
        user_logged_in.send(type(user), request=request, user=user)
        return HttpResponse("made")

    settings.ROOT_URLCONF = urls(register=register)
    settings.MIDDLEWARE = [f"{__name__}.BreakSessions", "django_mmolove_referral.middleware.ReferralMiddleware"]
    assert Browser(asgi=asgi).sign_up().content == b"made"
    assert accounts() == {BOB}
    assert errors(caplog) == [
        "The token of a sign-up could not be read; the sign-up goes on.",
        "The token of a login could not be read; the login goes on.",
    ]


# -- what it costs


def shape(sql: str) -> str:
    """``INSERT auth_user`` of a whole statement."""
    sql = sql.replace("`", '"')
    sql = re.sub(r"^SET STATEMENT [^()]*? FOR ", "", sql)  # MariaDB's limit to one statement's waiting
    table = re.search(r'(?:INTO|FROM|UPDATE) "(\w+)"', sql)
    return f"{sql.split()[0]} {table[1] if table else ''}".strip()


Statements = Callable[[Callable[[], object]], list[str]]


@pytest.fixture
def statements(settings: Any) -> Statements:
    """``statements(act)`` is what ``act`` makes the database do (sessions are elsewhere)."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"

    def run(act: Callable[[], object]) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            act()
        return [shape(query["sql"]) for query in captured.captured_queries]

    return run


USER_TABLE = get_user_model()._meta.db_table
OURS = ["INSERT mmolove_referral_referral", "INSERT mmolove_referral_outboundevent"]
LIMIT = ["SELECT"] if connection.vendor == "postgresql" else []
"""PostgreSQL alone takes a statement of its own to limit the waiting for locks, and one to take that back."""


def test_an_unreferred_sign_up_costs_no_statement_of_ours(
    monkeypatch: pytest.MonkeyPatch, statements: Statements
) -> None:
    browser = Browser()
    assert statements(lambda: browser.sign_up(BOB)) == [f"INSERT {USER_TABLE}"]
    atomic_requests(monkeypatch, on=True)
    assert statements(lambda: browser.sign_up(CAROL)) == ["BEGIN", f"INSERT {USER_TABLE}", "COMMIT"]


def test_a_referred_sign_up_costs_two_inserts_in_a_transaction_of_their_own(statements: Statements) -> None:
    browser = Browser()
    browser.visit("tok-1")
    assert statements(browser.sign_up) == [f"INSERT {USER_TABLE}", "BEGIN", *LIMIT, *OURS, "COMMIT"]


def test_a_referred_sign_up_costs_two_inserts_and_a_savepoint_in_the_portals_transaction(
    monkeypatch: pytest.MonkeyPatch, statements: Statements
) -> None:
    atomic_requests(monkeypatch, on=True)
    browser = Browser()
    browser.visit("tok-1")
    assert statements(browser.sign_up) == [
        "BEGIN",
        f"INSERT {USER_TABLE}",
        "SAVEPOINT",
        *LIMIT,
        *OURS,
        *([f"WITH {USER_TABLE}"] if LIMIT else []),
        "RELEASE",
        "COMMIT",
    ]


@pytest.mark.parametrize("atomic", [False, True])
def test_logging_in_right_after_the_sign_up_costs_no_statement_of_ours(
    atomic: bool, monkeypatch: pytest.MonkeyPatch, statements: Statements
) -> None:
    atomic_requests(monkeypatch, atomic)
    browser = Browser()
    browser.visit("tok-1")
    assert [sql for sql in statements(lambda: browser.sign_up(login="1")) if "mmolove" in sql] == OURS


def test_a_login_without_a_token_costs_no_statement_of_ours(statements: Statements) -> None:
    UserFactory.create(name=BOB)
    assert [sql for sql in statements(lambda: Browser().log_in()) if "mmolove" in sql or sql == "SAVEPOINT"] == []


@pytest.mark.skipif(OWN_USER_MODEL, reason="this is that run")
def test_all_of_this_holds_with_a_user_model_of_the_portals_own() -> None:
    here = Path(__file__).parent
    names = ("test_signup.py", "test_offer.py", "test_join.py", "test_lifecycle.py", "test_privacy.py")
    files = [str(here / name) for name in names]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV"))}
    environment |= {"TEST_USER_MODEL": "email", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    environment.pop("DATABASE_URL", None)  # a test database cannot serve two runs
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=here.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) > 0
