"""``manage.py mmolove_deliver``: a worker without a broker, or one run for cron."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.urls import get_resolver

from ...conf import ConfigError, conf
from ...delivery.drain import Drain, Tally
from ...delivery.life import beat
from ...delivery.loop import Loop
from ...models import Heartbeat
from ..base import ReferralCommand


class Command(ReferralCommand):
    help = (
        "Deliver what is due to MMOLove and grant due rewards. --once (for cron) ends when nothing is due; --loop is "
        "a worker that goes on until SIGTERM or Ctrl-C, which let what is in flight be settled."
    )

    requires_system_checks = ()  # cron would mail their warnings once a minute

    def run_from_argv(self, argv: list[str]) -> None:
        gc.freeze()  # this process does nothing else: what Django has loaded need not be looked through again and again
        super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        mode = parser.add_mutually_exclusive_group(required=True)
        mode.add_argument("--once", action="store_true", help="end when nothing is due any more")
        mode.add_argument("--loop", action="store_true", help="go on, sleeping until something is due")
        parser.add_argument("--concurrency", type=int, metavar="N", help="connections (default: CONCURRENCY)")
        parser.add_argument("--seconds", type=float, metavar="S", help="end after that many seconds")

    def handle(self, *args: Any, **options: Any) -> None:
        concurrency, seconds = options["concurrency"], options["seconds"]
        if concurrency is not None and concurrency < 1:
            raise CommandError("--concurrency takes a whole number from 1.")
        if seconds is not None and seconds <= 0:
            raise CommandError("--seconds takes a positive number.")
        try:
            servers = list(conf.servers.values())
        except ConfigError as error:
            raise CommandError(str(error)) from error
        if not _logs_are_seen():  # else the log says so, in the same words
            for server in servers:
                try:
                    server.credentials()
                except ConfigError as error:
                    self.stderr.write(self.style.WARNING(f"Nothing is delivered to {server.alias!r}: {error}"))
        if options["loop"]:
            aliases = ", ".join(repr(server.alias) for server in servers if server.usable) or "nobody"
            self.stdout.write(f"Delivering to {aliases}, until SIGTERM or Ctrl-C.")
            self.stdout.flush()  # a journal reads it through a pipe
        # As in a web process: some portals connect their receivers in a module that only their URLs import.
        if getattr(settings, "ROOT_URLCONF", ""):  # a worker's own settings may do without
            get_resolver().url_patterns  # noqa: B018
        watch = self._progress if self.stdout.isatty() else None
        work = self._once if options["once"] else self._loop
        tally = work(concurrency, seconds, watch)
        if watch:
            self.stdout.write("")
        self.stdout.write(_summary(tally))

    def _once(self, concurrency: int | None, seconds: float | None, watch: Any) -> Tally:
        stop = threading.Event()
        drain = Drain(concurrency=concurrency, stop=stop, watch=watch)
        with _on_signal(stop.set):
            tally = drain.run(seconds)
        beat(Heartbeat.Kind.ONCE, using=drain.using)
        return tally

    def _loop(self, concurrency: int | None, seconds: float | None, watch: Any) -> Tally:
        loop = Loop(concurrency=concurrency, watch=watch)
        timer = threading.Timer(seconds, loop.stop) if seconds is not None else None
        with _on_signal(loop.stop):
            if timer:
                timer.daemon = True
                timer.start()
            try:
                loop.run()
            finally:
                if timer:
                    timer.cancel()
        return loop.tally

    def _progress(self, tally: Tally) -> None:
        self.stdout.write(f"\r{_summary(tally)}", ending="")
        self.stdout.flush()


def _summary(tally: Tally) -> str:
    return (
        f"{tally.accepted} accepted, {tally.refused} refused, {tally.postponed} postponed, "
        f"{tally.granted} rewards granted"
    )


def _logs_are_seen() -> bool:
    """Whether what this package logs appears where the command's own words do."""
    logger: logging.Logger | None = logging.getLogger("mmolove_referral.delivery")
    if logger is not None and not logger.hasHandlers():
        return True  # by Python's handler of last resort
    while logger is not None:
        if any(getattr(handler, "stream", None) in (sys.stdout, sys.stderr) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


class _on_signal:  # noqa: N801  # used like a function
    """Calls ``then`` on SIGTERM and SIGINT while the block runs; handlers are put back afterwards."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, then: Any) -> None:
        self._then = then
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._then()
