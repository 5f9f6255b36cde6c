"""Everything that wakes the drain: the thread, the loop, the commands, Celery."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import count
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from django.core.management import CommandError, call_command
from django.core.signals import request_started
from django.db import OperationalError, connection, connections, transaction
from django.test import Client

from django_mmolove_referral import mark_qualified, signals, tasks
from django_mmolove_referral.delivery import dispatch
from django_mmolove_referral.delivery.drain import Drain
from django_mmolove_referral.delivery.loop import Loop
from django_mmolove_referral.delivery.retry import retrying
from django_mmolove_referral.models import OutboundEvent
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault
from tests.clock import let_pass
from tests.conftest import Granted, Table
from tests.databases import running_url

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 30.0


@pytest.fixture
def thread(configure: Callable[..., None]) -> Iterator[dispatch.ThreadDispatcher]:
    """The thread dispatcher, running though this is a test."""
    configure(DISPATCH="thread")
    dispatch.thread.forced = True
    yield dispatch.thread
    dispatch.thread.stop()
    dispatch.thread.forced = False


@pytest.fixture
def heard() -> Iterator[Callable[[Any], threading.Event]]:
    """``heard(signal)`` is an event that the next sending of ``signal`` sets."""
    connected: list[tuple[Any, Any]] = []

    def listen(news: Any) -> threading.Event:
        happened = threading.Event()

        def receiver(**kwargs: Any) -> None:
            happened.set()

        news.connect(receiver, weak=False)
        connected.append((news, receiver))
        return happened

    yield listen
    for news, receiver in connected:
        news.disconnect(receiver)


def test_a_sign_up_is_reported_by_the_web_process_itself(
    client: Client,
    sandbox: Sandbox,
    mint: Callable[..., str],
    granted: Granted,
    table: Table,
    heard: Callable[[Any], threading.Event],
    thread: dispatch.ThreadDispatcher,
) -> None:
    registered, qualified = heard(signals.referral_registered), heard(signals.referral_qualified)
    client.get(f"/register/?mmref={mint()}")
    client.post("/register/", {"name": "bob@example.com", "login": "1"})
    assert registered.wait(PATIENCE)
    client.post("/milestone/")
    assert qualified.wait(PATIENCE)
    thread.stop()
    assert table.states() == {"registered": "accepted", "qualified": "accepted"}
    assert (table.reward.state, len(granted)) == ("granted", 1)


def test_a_restarted_portal_delivers_its_backlog_at_the_first_request(
    bob: Any, client: Client, heard: Callable[[Any], threading.Event], thread: dispatch.ThreadDispatcher
) -> None:
    registered = heard(signals.referral_registered)
    request_started.send(sender=None)
    assert registered.wait(PATIENCE)


def test_the_thread_is_inert_in_test_runs(bob: Any, configure: Callable[..., None]) -> None:
    configure(DISPATCH="thread")
    dispatch.wake()
    request_started.send(sender=None)
    assert not dispatch.thread.running


def test_wrong_settings_do_not_break_a_request(configure: Callable[..., None]) -> None:
    configure(DISPATCH="pigeon")
    request_started.send(sender=None)
    dispatch.wake()


def test_a_child_process_has_a_thread_of_its_own(bob: Any, thread: dispatch.ThreadDispatcher) -> None:
    thread.wake()
    pid = os.fork()
    if pid == 0:
        os._exit(dispatch.thread.running)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_loop_survives_a_database_that_comes_and_goes(
    bob: Any, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    configure(SWEEP_INTERVAL=0.01)
    run, calls = Drain.run, iter(range(5))
    done = threading.Event()

    def flaky(self: Drain, seconds: float | None = None) -> Any:
        if next(calls, None) is not None:
            raise OperationalError("the database is starting up")
        tally = run(self, seconds)
        done.set()
        return tally

    monkeypatch.setattr(Drain, "run", flaky)
    loop = Loop()
    runner = threading.Thread(target=loop.run)
    runner.start()
    assert done.wait(PATIENCE)
    loop.stop()
    runner.join(PATIENCE)
    assert OutboundEvent.objects.get().state == "accepted"
    said = [(record.levelname, record.getMessage()) for record in caplog.records if "Delivery" in record.getMessage()]
    assert said == [
        ("ERROR", "Delivery stopped and is tried again in a while: the database is starting up"),
        ("INFO", "Delivery works again."),
    ]


def test_draining_inside_a_transaction_is_refused(bob: Any) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        Drain().run()


def test_no_transaction_is_open_while_a_request_is_out(bob: Any, sandbox: Sandbox, table: Table) -> None:
    open_transactions: list[bool] = []
    drains = connections[connection.alias]  # the drain's own, as it runs in this thread; MMOLove answers in another

    def look(fields: Any) -> bool:
        open_transactions.append(drains.in_atomic_block)
        return False

    sandbox.script(Fault(when=look))
    Drain().run()
    assert open_transactions == [False]


def test_one_bad_row_does_not_hold_the_others_back(
    sandbox: Sandbox,
    sign_up: Callable[..., Any],
    drain: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from django_mmolove_referral.delivery import settle

    users = [sign_up() for _ in range(5)]
    bad, apply = str(users[2].pk), settle._Batch._apply

    def fail(self: Any, result: Any, event: OutboundEvent, *args: Any) -> None:
        if event.server_event_id == f"reg-{bad}":
            raise ValueError("a row that cannot be written")
        apply(self, result, event, *args)

    monkeypatch.setattr(settle._Batch, "_apply", fail)
    drain()
    assert OutboundEvent.objects.filter(state="accepted").count() == 4
    left = OutboundEvent.objects.get(state="pending")
    assert left.claim is not None  # sent again, with the same body, after its lease
    assert "could not be settled" in caplog.text


def test_a_job_that_breaks_off_leaves_its_event_to_the_lease(
    bob: Any, drain: Callable[..., Any], table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("django_mmolove_referral.delivery.send.exchange", _explode)
    drain()
    assert table.event("registered").state == "pending"
    assert table.event("registered").claim is not None
    assert "broke off" in caplog.text


def test_deadlocks_and_locks_are_tried_again() -> None:
    failures = iter([OperationalError("deadlock detected"), OperationalError("database is locked")])

    def work() -> str:
        for failure in failures:
            raise failure
        return "done"

    assert retrying(work) == "done"
    with pytest.raises(OperationalError):
        retrying(_always_locked)


def test_statements_that_fail_now_and_then_do_not_break_a_drain_off(
    sandbox: Sandbox, sign_up: Callable[..., Any], table: Table
) -> None:
    for _ in range(10):
        mark_qualified(sign_up())
    statements = count(1)

    def execute(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if next(statements) % 37 == 0:
            raise OperationalError("deadlock detected")
        return run(sql, params, many, context)

    with connection.execute_wrapper(execute):
        Drain(concurrency=4).run()
    if OutboundEvent.objects.filter(state="pending").exists():
        # Without SKIP LOCKED the claim is a statement by itself: if the next one fails, its events wait for the lease.
        assert not connection.features.has_select_for_update_skip_locked
        let_pass(121)
        Drain(concurrency=4).run()
    assert OutboundEvent.objects.filter(state="accepted").count() == 20
    assert len(sandbox.events(test=False)) == 20, "and nothing was sent twice"


def test_what_fails_in_somebodys_transaction_is_theirs() -> None:
    tries: list[None] = []

    def work() -> None:
        tries.append(None)
        _always_locked()

    with transaction.atomic(), pytest.raises(OperationalError):
        retrying(work)
    assert len(tries) == 1


def test_deliver_once_reports_what_it_did(bob: Any) -> None:
    mark_qualified(bob)
    out = StringIO()
    call_command("mmolove_deliver", "--once", stdout=out)
    assert "2 accepted, 0 refused, 0 postponed, 0 rewards granted" in out.getvalue()


def test_deliver_shows_its_progress_on_a_terminal(bob: Any) -> None:
    out = StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    call_command("mmolove_deliver", "--once", stdout=out)
    assert "\r1 accepted" in out.getvalue()


def test_deliver_loop_ends_after_its_seconds(bob: Any) -> None:
    out = StringIO()
    call_command("mmolove_deliver", "--loop", "--seconds", "0.5", "--concurrency", "2", stdout=out)
    assert "1 accepted" in out.getvalue()


@pytest.mark.parametrize("arguments", [["--concurrency", "0"], ["--seconds", "-1"]])
def test_deliver_names_a_bad_argument(arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=arguments[0]):
        call_command("mmolove_deliver", "--once", *arguments)


def test_deliver_names_a_missing_or_wrong_setting(bob: Any, settings: Any, configure: Callable[..., None]) -> None:
    configure(SECRET="")
    err = StringIO()
    call_command("mmolove_deliver", "--once", stdout=StringIO(), stderr=err)
    assert "['SECRET']" in err.getvalue()
    settings.MMOLOVE_REFERRAL = "srv_test"
    with pytest.raises(CommandError, match="MMOLOVE_REFERRAL must be a dict"):
        call_command("mmolove_deliver", "--once")


def test_deliver_says_once_that_nothing_is_delivered(
    bob: Any, configure: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the log, where that is seen in the same place; else by itself."""
    configure(SECRET="")
    words = (
        "Nothing is delivered to 'default': MMOLOVE_REFERRAL['SECRET'] is missing. Put the referral secret from the "
        "MMOLove dashboard there, as a string, or into the environment variable MMOLOVE_REFERRAL_SECRET."
    )
    err = StringIO()
    call_command("mmolove_deliver", "--once", stdout=StringIO(), stderr=err)
    assert err.getvalue() == f"{words}\n"
    assert [record.getMessage() for record in caplog.records] == [words]
    process = _manage("mmolove_deliver", "--once", endpoint="", TEST_REFERRAL_SETTINGS='{"SECRET": ""}')
    _out, said = process.communicate(timeout=PATIENCE)
    assert (said, process.returncode) == (f"{words}\n", 0), "without LOGGING Python shows it"
    console = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("mmolove_referral")
    logger.addHandler(console)
    try:
        err = StringIO()
        call_command("mmolove_deliver", "--once", stdout=StringIO(), stderr=err)
    finally:
        logger.removeHandler(console)
    assert err.getvalue() == ""


def test_a_loop_says_at_once_that_it_runs(bob: Any, sandbox: Sandbox, settings: Any) -> None:
    """Through a pipe, as a journal reads it."""
    process = _manage("mmolove_deliver", "--loop", endpoint=settings.MMOLOVE_REFERRAL["ENDPOINT"])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "Delivering to 'default', until SIGTERM or Ctrl-C.\n"
        process.terminate()
        process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("mode", ["--once", "--loop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_in_flight_be_settled_and_claims_nothing_new(
    mode: str, number: signal.Signals, sandbox: Sandbox, sign_up: Callable[..., Any], settings: Any, table: Table
) -> None:
    sign_up()
    sign_up()
    arrived, release = threading.Event(), threading.Event()

    def hold(fields: Any) -> bool:
        arrived.set()
        return not release.wait(PATIENCE)

    sandbox.script(Fault(when=hold), times=None)
    process = _manage("mmolove_deliver", mode, "--concurrency", "1", endpoint=settings.MMOLOVE_REFERRAL["ENDPOINT"])
    try:
        assert arrived.wait(PATIENCE), process.communicate(timeout=5)
        process.send_signal(number)
        # Python handles the signal between two bytecodes; the answer may only come after that.
        process.send_signal(signal.SIGCONT)
        release.set()
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        release.set()
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert "1 accepted" in out
    first, second = OutboundEvent.objects.order_by("pk")
    assert first.state == "accepted"
    assert (second.state, second.claim, second.attempts) == ("pending", None, 0)


@pytest.fixture
def celery_app(configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """A portal's Celery app with a broker in memory, and the dispatcher running though this is a test."""
    # A worker makes its app the current one and the default one; a closed one must not stay either for other tests.
    for name in ("default_app", "_tls.current_app"):
        monkeypatch.setattr(f"celery._state.{name}", None)
    setup_logging.connect(_keep_logging)
    app = Celery("portal", broker="memory://", include=["django_mmolove_referral.tasks"])
    configure(DISPATCH="celery")
    monkeypatch.setattr(dispatch, "celery", dispatch.CeleryDispatcher())
    dispatch.connect()
    dispatch.celery.forced = True
    yield app
    dispatch.celery.stop()
    app.close()
    setup_logging.disconnect(_keep_logging)


def test_celery_wakes_a_worker_with_the_commit(
    bob: Any, table: Table, heard: Callable[[Any], threading.Event], celery_app: Celery
) -> None:
    registered = heard(signals.referral_registered)
    with start_worker(celery_app, perform_ping_check=False, pool="solo"):
        # From a thread of its own, as most web servers run requests.
        request = threading.Thread(target=dispatch.wake)
        request.start()
        request.join()
        assert registered.wait(PATIENCE)


def test_the_sweep_delivers_what_nobody_announced(bob: Any, table: Table) -> None:
    tasks.sweep()
    assert table.event("registered").state == "accepted"


def test_celery_is_inert_in_test_runs(configure: Callable[..., None]) -> None:
    configure(DISPATCH="celery")
    dispatch.wake()
    assert not dispatch.celery.running


def test_a_broker_that_is_gone_is_said_once_and_again_when_it_is_back(
    celery_app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    asked = threading.Semaphore(0)
    answers = iter([ConnectionError("connection refused")] * 3 + [None])

    def send_task(*args: Any, **kwargs: Any) -> None:
        answer = next(answers)
        asked.release()
        if answer:
            raise answer

    monkeypatch.setattr(celery_app, "send_task", send_task)
    for _ in range(4):
        dispatch.wake()
        assert asked.acquire(timeout=PATIENCE)
    dispatch.celery.stop()
    said = [record.getMessage() for record in caplog.records if "broker" in record.getMessage()]
    assert said == [
        "The broker takes no wake-ups, so events wait for the sweep: connection refused",
        "The broker takes wake-ups again.",
    ]


def test_a_broker_that_hangs_holds_no_commit_up(celery_app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, release = threading.Event(), threading.Event()

    def send_task(*args: Any, **kwargs: Any) -> None:
        hanging.set()
        release.wait(PATIENCE)

    monkeypatch.setattr(celery_app, "send_task", send_task)
    dispatch.wake()
    assert hanging.wait(PATIENCE)
    for _ in range(100):
        dispatch.wake()  # returns although the broker has not answered
    assert not release.is_set()
    release.set()


def _manage(*arguments: str, endpoint: str, **more: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": running_url(),
        "TEST_ENDPOINT": endpoint,
        **more,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "django", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _keep_logging(**kwargs: Any) -> None:
    """That somebody listens keeps Celery's worker from setting up logging of its own in the test process."""


def _explode(*args: Any, **kwargs: Any) -> None:
    raise ZeroDivisionError


def _always_locked() -> None:
    raise OperationalError("database is locked")
