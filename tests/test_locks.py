"""A referred sign-up while somebody holds a lock on what it writes: the page comes while the lock is still held."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse

from django_mmolove_referral import attach_referral, locks
from django_mmolove_referral.models import OutboundEvent, Referral

from . import portal
from .factories import UserFactory
from .test_interleavings import elsewhere
from .visitors import Browser, accounts, referred, urls, written

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite", reason="one lock for all writing, which the portal waits for, too"
    ),
]

BOB = "bob@example.com"
PATIENCE = 20.0
"""Seconds: less than what the databases wait by themselves (for ever; 50 s for a row, a day for a table)."""

Holding = Callable[[], AbstractContextManager[None]]


@contextmanager
def meanwhile(*steps: Callable[[], object]) -> Iterator[None]:
    """Another connection has taken the steps, in a transaction that stays open for so long."""
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            for step in steps:
                step()
            taken.set()
            assert release.wait(PATIENCE * 3)

    holder = elsewhere(hold)
    try:
        assert taken.wait(PATIENCE)
        yield
    finally:
        release.set()
        holder.result(PATIENCE)


def execute(sql: str) -> Callable[[], None]:
    def step() -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    return step


def table(model: type[Any]) -> str:
    return str(connection.ops.quote_name(model._meta.db_table))


@contextmanager
def locked(model: type[Any]) -> Iterator[None]:
    """As by a tool that rewrites the table."""
    if connection.vendor == "postgresql":
        lock = f"LOCK TABLE {table(model)} IN ACCESS EXCLUSIVE MODE"
    else:
        # With WRITE on the referrals, which point at accounts, MariaDB lets the portal's own INSERT of an account wait.
        lock = f"LOCK TABLES {table(model)} {'READ' if model is Referral else 'WRITE'}"
    with meanwhile(execute(lock)):
        yield


@contextmanager
def altered(model: type[Any]) -> Iterator[None]:
    """Somebody reads it in a long transaction, an ALTER TABLE waits for that one, and all others behind the ALTER."""

    def read() -> None:
        list(model.objects.all()[:1])

    def waiting() -> bool:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                source, waits = "pg_locks", "mode = 'AccessExclusiveLock' AND NOT granted"
            else:
                source, waits = "information_schema.processlist", "state = 'Waiting for table metadata lock'"
            cursor.execute(f"SELECT count(*) FROM {source} WHERE {waits}")
            return bool(cursor.fetchone()[0])

    alter = (
        f"ALTER TABLE {table(model)} ADD COLUMN spare integer"
        if connection.vendor == "postgresql"
        else f"ALTER TABLE {table(model)} COMMENT 'being changed'"
    )
    with meanwhile(read):
        altering = elsewhere(execute(alter))
        while not waiting():
            assert not altering.done(), altering.result()
        yield
    altering.result(PATIENCE)
    if connection.vendor == "postgresql":
        execute(f"ALTER TABLE {table(model)} DROP COLUMN spare")()


@contextmanager
def referrer_held() -> Iterator[None]:
    """The portal itself is at the referrer's account, in a long transaction."""
    users = get_user_model()._default_manager
    with meanwhile(lambda: list(users.select_for_update().filter(**{get_user_model().USERNAME_FIELD: "alice"}))):
        yield


HOLDING: dict[str, Holding] = {
    "referrals locked": lambda: locked(Referral),
    "events locked": lambda: locked(OutboundEvent),
    **({"referrals altered": lambda: altered(Referral)} if connection.vendor == "postgresql" else {}),
    "events altered": lambda: altered(OutboundEvent),
    "referrer held": referrer_held,
}


@pytest.fixture(params=HOLDING)
def holding(request: pytest.FixtureRequest) -> Holding:
    return HOLDING[request.param]


@pytest.fixture(params=[False, True], ids=["autocommit", "ATOMIC_REQUESTS"])
def atomic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", request.param)
    # For the threads, whose connections are made from these.
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", request.param)


@pytest.fixture
def browser(settings: Any) -> Browser:
    """Come by alice's link. Sessions are elsewhere."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    alice = UserFactory.create(name="alice")
    browser = Browser()
    browser.get(f"/join/{alice.pk}/")
    browser.visit("tok-1")
    return browser


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("login", [{}, {"login": "1"}], ids=["", "and login"])
def test_a_sign_up_does_not_wait_for_a_lock(
    login: dict[str, str], holding: Holding, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    with holding():
        assert elsewhere(lambda: browser.sign_up(**login)).result(PATIENCE).status_code == 200
    assert accounts() == {"alice", BOB}
    assert (referred(), written()) == ({}, [])
    # Once a request, though it was a sign-up and a login.
    said = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert said == ["A referral could not be attached; it will be at the account's next login."]
    browser.log_in()
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])
    assert Referral.objects.get().referrer == get_user_model()._default_manager.get_by_natural_key("alice")


@pytest.mark.usefixtures("atomic")
def test_a_login_that_has_something_to_attach_does_not_wait_either(holding: Holding, browser: Browser) -> None:
    with holding():
        elsewhere(browser.sign_up).result(PATIENCE)
        assert elsewhere(browser.log_in).result(PATIENCE).status_code == 200
    assert referred() == {}
    browser.log_in()
    assert referred() == {BOB: "tok-1"}


# -- the portal's own limit


SHOW, SET, OWN = {
    "postgresql": ("SELECT current_setting('lock_timeout')", "SET {scope} lock_timeout = '7s'", ("7s",)),
    "mysql": (
        "SELECT @@lock_wait_timeout, @@innodb_lock_wait_timeout",
        "SET SESSION lock_wait_timeout = 70, SESSION innodb_lock_wait_timeout = 7",
        (70, 7),
    ),
    "sqlite": ("", "", ()),
}[connection.vendor]


def asked() -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(SHOW)
        return tuple(cursor.fetchone())


@pytest.fixture(params=["its own", *(["MySQL's"] if connection.vendor == "mysql" else [])])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """MariaDB understands what MySQL does, too."""
    if request.param == "MySQL's":
        monkeypatch.setattr(locks, "_mariadb", locks._mysql)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("scope", "portals"),
    [("SESSION", False), ("SESSION", True), ("LOCAL", True)],
    ids=["autocommit", "transaction", "set in the transaction"],
)
@pytest.mark.parametrize("fails", [False, True])
def test_the_portals_own_limit_is_as_before(
    fails: bool, scope: str, portals: bool, browser: Browser, settings: Any
) -> None:
    seen = []

    def register(request: HttpRequest) -> HttpResponse:
        execute(SET.format(scope=scope))()
        portal.create(BOB)
        seen.append(asked())
        return HttpResponse()

    settings.ROOT_URLCONF = urls(register=transaction.atomic(register) if portals else register)
    with locked(OutboundEvent) if fails else nullcontext():
        assert elsewhere(browser.sign_up).result(PATIENCE).status_code == 200
    assert seen == [OWN]
    assert referred() == ({} if fails else {BOB: "tok-1"})


def test_whoever_waits_longer_is_told_so_by_the_database(browser: Browser) -> None:
    """A verb waits as the portal says."""

    def attach() -> None:
        if connection.vendor == "postgresql":
            execute("SET lock_timeout = '50ms'")()
        else:
            execute("SET SESSION lock_wait_timeout = 1")()
        attach_referral(UserFactory.create(), "tok-1")

    with locked(OutboundEvent), pytest.raises(OperationalError):
        elsewhere(attach).result(PATIENCE)
