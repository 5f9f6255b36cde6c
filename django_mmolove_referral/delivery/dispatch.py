"""Who drains after a commit: a thread of this process, Celery, or somebody else (``DISPATCH``).

Waking is best effort and never waits: losing a wake-up loses no event, as every drain looks at the table, not at the
message, and a sweep looks anyway.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING, Protocol

from django.core import mail
from django.core.signals import request_started

from ..conf import ConfigError, conf
from ..logs import over, trouble

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("mmolove_referral.delivery")

DELIVER_TASK = "mmolove_referral.deliver"
SWEEP_TASK = "mmolove_referral.sweep"
PRUNE_TASK = "mmolove_referral.prune"
LAST_WAKE_UP = 1.0
"""Seconds that a process which ends leaves a wake-up to reach the broker."""


class _Work(Protocol):
    """What a dispatcher's thread runs."""

    def wake(self) -> None: ...

    def stop(self) -> None: ...

    def run(self) -> None: ...


class Dispatcher:
    """A daemon thread, started by its first wake-up. Inert in test runs unless ``forced``."""

    def __init__(self) -> None:
        self.forced = False
        self.reset()

    def wake(self) -> None:
        if self._running is None and (self.forced or not _testing()):
            self._start()
        if self._running is not None:
            self._running[0].wake()

    def stop(self, patience: float | None = None) -> None:
        """End the thread when it has done what it is at; wait for that, ``patience`` seconds at most."""
        if self._running is not None:
            work, thread = self._running
            work.stop()
            thread.join(patience)
        self.reset()

    def reset(self) -> None:
        """Forget the thread: in a forked child it does not run."""
        self._starting = threading.Lock()
        self._running: tuple[_Work, threading.Thread] | None = None

    @property
    def running(self) -> bool:
        return self._running is not None

    def _start(self) -> None:
        with self._starting:
            if self._running is None:
                work = self._work()
                thread = threading.Thread(target=work.run, name="mmolove-dispatch", daemon=True)
                self._running = work, thread
                thread.start()

    def _work(self) -> _Work:
        raise NotImplementedError


class ThreadDispatcher(Dispatcher):
    """Drains in this process."""

    def _work(self) -> _Work:
        # These need the models, which this module's importers may not have yet.
        from ..models import Heartbeat
        from .loop import Loop

        return Loop(Heartbeat.Kind.THREAD)


class CeleryDispatcher(Dispatcher):
    """Sends a wake-up task to the portal's Celery app.

    From a thread of its own: a broker that is dead, paused or unreachable blocks for seconds, and must not block the
    commit. Wake-ups that come meanwhile are one.
    """

    app: Celery | None = None

    def _work(self) -> _Work:
        return _Waker(self.known_app())

    def known_app(self) -> Celery:
        """The app that was current when Django started, which one that is current in this thread need not be."""
        return self.app or portal_app()


class _Waker:
    def __init__(self, app: Celery) -> None:
        self._app = app
        self._signal = threading.Event()
        self._due = self._stopped = False

    def wake(self) -> None:
        self._due = True
        self._signal.set()

    def stop(self) -> None:
        self._stopped = True
        self._signal.set()

    def run(self) -> None:
        while not self._stopped:
            self._signal.wait()
            self._signal.clear()
            if self._due:
                self._due = False
                self._send()

    def _send(self) -> None:
        try:
            self._app.send_task(DELIVER_TASK, ignore_result=True, retry=False)
        except Exception as error:  # noqa: BLE001  # whatever a transport of Celery's raises
            text = "The broker takes no wake-ups, so events wait for the sweep: %s"
            trouble(logger, "broker", error, text, error, trace=False)
        else:
            over(logger, "broker", "The broker takes wake-ups again.")


def portal_app() -> Celery:
    """The portal's Celery app. In any thread but the main one Celery's current app may be another, empty one."""
    from celery.app import app_or_default

    return app_or_default()


thread = ThreadDispatcher()
celery = CeleryDispatcher()


def connect() -> None:
    """Start with the first request; start afresh in a forked child."""
    request_started.connect(_on_request, dispatch_uid="mmolove_referral.dispatch")
    try:
        if conf.dispatch == "celery":
            celery.app = portal_app()
    except ConfigError:
        pass  # the system checks name the key


def wake() -> None:
    """Something may be due. Never raises, never waits."""
    try:
        if conf.dispatch == "thread":
            thread.wake()
        elif conf.dispatch == "celery":
            celery.wake()
    except Exception as error:  # noqa: BLE001  # a commit must not fail for it
        trouble(logger, "wake", error, "Nobody could be woken to deliver; the next sweep does it: %s", error)
    else:
        over(logger, "wake", "Wake-ups work again.")


def _on_request(**kwargs: object) -> None:
    """A restarted portal has a backlog before it has a sign-up."""
    try:
        if conf.dispatch == "thread" and not thread.running:
            thread.wake()
    except ConfigError:
        pass  # the system checks name the key


def _testing() -> bool:
    """Whether Django's test environment is set up: then nothing runs beside the tests' own transactions."""
    return hasattr(mail, "outbox")


def _after_fork() -> None:
    thread.reset()
    celery.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(celery.stop, LAST_WAKE_UP)
