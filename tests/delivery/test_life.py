"""Signs of life: who gives them, how seldom, and that delivery never hangs on them."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_mmolove_referral import mark_qualified, signals, tasks
from django_mmolove_referral.delivery import dispatch, life
from django_mmolove_referral.delivery.drain import Drain
from django_mmolove_referral.delivery.loop import Loop
from django_mmolove_referral.models import Heartbeat, OutboundEvent, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from tests.clock import let_pass

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 30.0


def signs() -> dict[str, str]:
    return dict(Heartbeat.objects.values_list("kind", "host"))


def loop_once(sandbox: Sandbox, sign_up: Callable[..., Any]) -> None:
    """A loop that ends itself with its first event accepted."""
    loop = Loop()

    def stop(**kwargs: Any) -> None:
        loop.stop()

    signals.referral_registered.connect(stop)
    try:
        sign_up()
        loop.run()
    finally:
        signals.referral_registered.disconnect(stop)


def once(sandbox: Sandbox, sign_up: Callable[..., Any]) -> None:
    call_command("mmolove_deliver", "--once", stdout=StringIO())


def deliver(sandbox: Sandbox, sign_up: Callable[..., Any]) -> None:
    tasks.deliver()


def sweep(sandbox: Sandbox, sign_up: Callable[..., Any]) -> None:
    tasks.sweep()


@pytest.mark.parametrize(("work", "kind"), [(loop_once, "loop"), (once, "once"), (deliver, "worker"), (sweep, "beat")])
def test_whoever_delivers_gives_a_sign(
    work: Callable[..., None], kind: str, sandbox: Sandbox, sign_up: Callable[..., Any]
) -> None:
    work(sandbox, sign_up)
    assert signs() == {kind: socket.gethostname()}


def test_the_thread_of_a_web_process_gives_a_sign(
    client: Client, sandbox: Sandbox, sign_up: Callable[..., Any], configure: Callable[..., None]
) -> None:
    given = threading.Event()
    sign_up()
    configure(DISPATCH="thread")

    def noticed(**kwargs: Any) -> None:
        given.set()

    signals.referral_registered.connect(noticed)
    dispatch.thread.forced = True
    try:
        client.get("/page/")
        assert given.wait(PATIENCE)
    finally:
        dispatch.thread.stop(PATIENCE)
        dispatch.thread.forced = False
        signals.referral_registered.disconnect(noticed)
    assert signs() == {"thread": socket.gethostname()}


def writes(queries: CaptureQueriesContext) -> list[str]:
    return [
        query["sql"].split()[0] for query in queries.captured_queries if "mmolove_referral_heartbeat" in query["sql"]
    ]


def test_a_sign_is_one_update_per_interval_and_process(sandbox: Sandbox, configure: Callable[..., None]) -> None:
    tasks.deliver()
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            tasks.deliver()
    assert writes(queries) == []
    configure(SWEEP_INTERVAL=1e-9)
    let_pass(1000)
    (before,) = Heartbeat.objects.values_list("seen_at", flat=True)
    with CaptureQueriesContext(connection) as queries:
        tasks.deliver()
    assert writes(queries) == ["UPDATE"]
    assert Heartbeat.objects.get().seen_at > before


def test_a_long_drain_gives_signs_on_its_way(
    sandbox: Sandbox, sign_up: Callable[..., Any], configure: Callable[..., None]
) -> None:
    """A backlog of an hour must not look like an hour of silence."""
    for _ in range(6):
        sign_up()
    configure(SWEEP_INTERVAL=1e-9, CONCURRENCY=2)
    seen: list[int] = []
    loop = Loop(watch=lambda tally: seen.append(Heartbeat.objects.count()))
    loop._drain.run()
    assert len(seen) > 1
    assert set(seen) == {1}


def test_neither_sign_up_nor_milestone_gives_one(
    client: Client, sandbox: Sandbox, mint: Callable[..., str], configure: Callable[..., None]
) -> None:
    configure(DISPATCH="celery")
    with CaptureQueriesContext(connection) as queries:
        client.get(f"/register/?mmref={mint()}")
        client.post("/register/", {"name": "bob@example.com", "login": "1"})
        client.post("/milestone/")
    assert OutboundEvent.objects.count() == 2
    assert writes(queries) == []


@pytest.fixture
def no_table() -> Iterator[None]:
    with connection.schema_editor() as editor:
        editor.delete_model(Heartbeat)
    yield
    with connection.schema_editor() as editor:
        editor.create_model(Heartbeat)


def test_a_missing_table_stops_nothing_and_is_said_once(
    no_table: None, bob: Any, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(SWEEP_INTERVAL=1e-9)
    for _ in range(3):
        tasks.deliver()
    mark_qualified(bob)
    tasks.sweep()
    assert set(OutboundEvent.objects.values_list("state", flat=True)) == {"accepted"}
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.levelname for record in said if "signs of life" in record.getMessage()] == ["WARNING"]
    assert "manage.py migrate mmolove_referral" in said[0].getMessage()


EU = {"SERVER_ID": "srv_eu", "SECRET": "77b1c03f2a6de948"}


def test_whoever_has_no_credentials_gives_none(
    sandbox: Sandbox, sign_up: Callable[..., Any], configure: Callable[..., None]
) -> None:
    """A worker without the secret would look alive to the doctor in a shell that has it."""
    sign_up()
    configure(SECRET="")
    once(sandbox, sign_up)
    tasks.deliver()
    life.beat(Heartbeat.Kind.LOOP, using="default")
    assert signs() == {}
    life.forget()
    configure(SERVERS={"eu": EU})
    tasks.deliver()
    assert signs() == {"worker": socket.gethostname()}, "to one server it delivers"


def test_two_first_signs_at_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def taken(*args: Any, **kwargs: Any) -> None:
        raise IntegrityError

    monkeypatch.setattr("django.db.models.query.QuerySet.create", taken)
    life.beat(Heartbeat.Kind.LOOP, using="default")
    assert caplog.records == []


def test_a_silent_dispatcher_gives_none(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Drain, seconds: float | None = None) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Drain, "run", fail)
    with pytest.raises(ZeroDivisionError):
        tasks.deliver()
    assert signs() == {}


def test_a_clock_that_was_set_is_noted_by_the_next_process(
    sandbox: Sandbox, sign_up: Callable[..., Any], drain: Callable[..., Any]
) -> None:
    """What an earlier process wrote about its clock must not outlive the fault: advice would blame the clock."""
    ServerHealth.objects.create(server="default", since="2026-01-01T00:00Z", clock_skew=412, clock_host="web1")
    sign_up()
    drain()
    health = ServerHealth.objects.get()
    assert (abs(health.clock_skew) < 5, health.clock_host) == (True, socket.gethostname())
