"""Celery with a real worker on a real broker. ``TEST_BROKERS`` names the brokers, by a comma between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from django.test import Client

from django_mmolove_referral import attach_referral, tasks
from django_mmolove_referral.delivery import dispatch
from django_mmolove_referral.doctor.broker import of_broker, queue_of_ours
from django_mmolove_referral.models import OutboundEvent
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault
from tests.conftest import Table
from tests.databases import running_url
from tests.portal import create

from .app import make

pytestmark = pytest.mark.django_db(transaction=True)

BROKERS = [broker for broker in os.environ.get("TEST_BROKERS", "").split(",") if broker]
PATIENCE = 60.0


def test_brokers_are_named() -> None:
    assert BROKERS, "Set TEST_BROKERS, e.g. to redis://127.0.0.1:6379/0,amqp://guest:guest@127.0.0.1:5672//"


@pytest.fixture(params=BROKERS, ids=lambda broker: broker.split(":")[0])
def broker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app(broker: str, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The portal's side: its app with a queue of this test's own, and the dispatcher running."""
    app = make(broker, f"mmolove-tests-{uuid.uuid4().hex}")
    with dispatching(app, configure, monkeypatch):
        yield app
    queue = app.conf.task_default_queue
    if broker.startswith("redis"):
        with redis.from_url(broker) as store:
            for key in store.scan_iter(f"{queue}*"):
                store.delete(key)
    else:
        channel: Any
        with app.connection_for_write() as connection, connection.channel() as channel:
            channel.queue_delete(queue)
            channel.exchange_delete(queue)
    app.close()


@contextmanager
def dispatching(app: Celery, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    configure(DISPATCH="celery")
    dispatcher = dispatch.CeleryDispatcher()
    dispatcher.app, dispatcher.forced = app, True
    monkeypatch.setattr(dispatch, "celery", dispatcher)
    yield
    dispatcher.stop(1)


@pytest.fixture
def worker(broker: str, app: Celery, settings: Any) -> Callable[..., Any]:
    """``with worker("-B"):`` is a worker in a process of its own; at the end it has finished what it was at."""

    @contextmanager
    def run(*options: str) -> Iterator[None]:
        environment = {
            **os.environ,
            "PYTHONWARNINGS": "default",  # Celery warns of running as root, for one
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DATABASE_URL": running_url(),
            "TEST_ENDPOINT": settings.MMOLOVE_REFERRAL["ENDPOINT"],
            "TEST_BROKER": broker,
            "TEST_QUEUE": app.conf.task_default_queue,
        }
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=warning"]
        command = [sys.executable, "-m", "celery", "-A", "tests.services.app", "worker", "-c", "2", *quiet, *options]
        process = subprocess.Popen(command, env=environment)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0

    return run


@pytest.fixture
def reported(sandbox: Sandbox) -> threading.Semaphore:
    """Released for each real event that reaches MMOLove."""
    arrived = threading.Semaphore(0)

    def look(fields: Any) -> bool:
        arrived.release()
        return False

    sandbox.script(Fault(when=look), times=None)
    return arrived


def test_a_sign_up_is_reported_by_a_worker(
    client: Client, mint: Callable[..., str], worker: Callable[..., Any], reported: threading.Semaphore, table: Table
) -> None:
    client.get(f"/register/?mmref={mint()}")
    with worker():
        client.post("/register/", {"name": "bob@example.com", "login": "1"})
        assert reported.acquire(timeout=PATIENCE)
        client.post("/milestone/")
        assert reported.acquire(timeout=PATIENCE)
    assert table.states() == {"registered": "accepted", "qualified": "accepted"}
    assert table.reward.state == "due"  # nobody listens to referral_qualified in that process


def test_the_doctor_reaches_the_broker(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.doctor.broker.celery.app", app)
    (found,) = of_broker()
    assert found.id == "celery.reached"
    assert "guest:guest" not in found.seen
    assert queue_of_ours() == app.conf.task_default_queue


def test_beat_sweeps_up_what_no_wake_up_announced(
    configure: Callable[..., None],
    mint: Callable[..., str],
    worker: Callable[..., Any],
    reported: threading.Semaphore,
    table: Table,
    tmp_path: Path,
) -> None:
    configure(DISPATCH="manual")
    attach_referral(create("bob@example.com"), mint())
    with worker("-B", "-s", str(tmp_path / "beat")):
        assert reported.acquire(timeout=PATIENCE)
    assert table.event("registered").state == "accepted"


def test_many_wake_ups_send_nothing_twice(
    app: Celery, mint: Callable[..., str], worker: Callable[..., Any], sandbox: Sandbox, reported: threading.Semaphore
) -> None:
    for number in range(50):
        attach_referral(create(f"player{number}@example.com"), mint())
        app.send_task(dispatch.DELIVER_TASK, ignore_result=True)
    with worker():
        for _ in range(50):
            assert reported.acquire(timeout=PATIENCE)
    assert OutboundEvent.objects.filter(state="accepted", attempts=1).count() == 50
    assert len(sandbox.events(kind="registered")) == 50


def test_a_wake_up_carries_nothing(app: Celery, mint: Callable[..., str]) -> None:
    attach_referral(create("bob@example.com"), mint())
    dispatch.celery.stop(PATIENCE)
    with app.connection_for_read() as connection, connection.SimpleQueue(app.conf.task_default_queue) as queue:
        message = queue.get(timeout=PATIENCE)
        args, kwargs, _embedded = message.payload
        assert (args, kwargs) == ([], {})
        message.ack()


class Silent:
    """A broker that takes connections and says nothing."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        self.port = self._listener.getsockname()[1]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._kept.append(self._listener.accept()[0])
                self.called.set()

    def hang_up(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for kept in self._kept:
            kept.close()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_paused_broker_holds_no_sign_up_up(
    scheme: str,
    client: Client,
    mint: Callable[..., str],
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    table: Table,
) -> None:
    silent = Silent()
    app = make(f"{scheme}://127.0.0.1:{silent.port}/", "unreachable")
    with dispatching(app, configure, monkeypatch):
        client.get(f"/register/?mmref={mint()}")
        assert client.post("/register/", {"name": "bob@example.com"}).status_code == 200
        assert silent.called.wait(PATIENCE)  # the wake-up hangs there, while the visitor has the page
        assert table.event("registered").state == "pending"
        silent.hang_up()
        dispatch.celery.stop(PATIENCE)
    tasks.sweep()
    assert table.event("registered").state == "accepted"


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_dead_broker_costs_one_line_in_the_log(
    scheme: str,
    client: Client,
    mint: Callable[..., str],
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    table: Table,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    app = make(f"{scheme}://127.0.0.1:{port}/", "unreachable")
    with dispatching(app, configure, monkeypatch):
        for number in range(3):
            visitor = Client()
            visitor.get(f"/register/?mmref={mint()}")
            assert visitor.post("/register/", {"name": f"bob{number}@example.com"}).status_code == 200
        dispatch.celery.stop(PATIENCE)
    said = [record for record in caplog.records if "broker" in record.getMessage()]
    assert len(said) == 1
    tasks.sweep()
    assert OutboundEvent.objects.filter(state="accepted").count() == 3
