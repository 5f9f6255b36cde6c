"""The engine: claim, send, settle, grant, until nothing is due. Everything else only wakes it.

The database is used by the calling thread alone; the pools' threads do nothing but HTTP. They find their next event
claimed already, so that they need not wait for the database, nor the database for each of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

from django.db import router, transaction

from ..conf import Server, conf
from ..logs import trouble
from ..models import OutboundEvent, ServerHealth
from ..protocol import Credentials
from . import health, rewards
from .claim import Claimed, Subject, claim, probe_subject, release
from .lane import Lane, lane, transport
from .pool import Pool, collect
from .retry import retrying
from .send import Probe, Probed, Ruling, Sent
from .settle import settle
from .sweep import sweep

logger = logging.getLogger("mmolove_referral.delivery")

GRANTING = 1.0
"""Seconds that granting may take at a time while events are in flight: a slow receiver must not outlast a lease."""


@dataclass
class Tally:
    """What a drain has done so far, in events and rewards."""

    accepted: int = 0
    refused: int = 0
    postponed: int = 0
    granted: int = 0


@dataclass(frozen=True)
class Done:
    """A finished job of a pool: a ``Claimed`` if it was not begun, ``None`` if it broke off."""

    server: str
    result: Sent | Probed | Claimed | None


class Drain:
    """One worker. Any number of them may run at once, in any number of processes.

    ``stop``: once set, nothing new is claimed; what is in flight is settled. ``watch`` is called with the tally
    after each batch.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        stop: threading.Event | None = None,
        watch: Callable[[Tally], None] | None = None,
    ) -> None:
        self.using = router.db_for_write(OutboundEvent)
        self.tally = Tally()
        self._concurrency = concurrency
        self._stop = stop or threading.Event()
        self._watch = watch or (lambda tally: None)
        self._until: float | None = None

    def run(self, seconds: float | None = None) -> Tally:
        """Work until nothing is due, ``stop`` is set or ``seconds`` are over. Returns the tally.

        Raises ``RuntimeError`` inside a transaction: HTTP would hold its locks.
        """
        retrying(self._refuse_a_transaction)
        self._until = None if seconds is None else time.monotonic() + seconds
        swept: float | None = None
        self._done: SimpleQueue[Done | BaseException] = SimpleQueue()
        # Threads of its own for each server, so that a slow one holds up no other.
        threads = self._concurrency or conf.concurrency
        share = max(1, threads // max(1, len(conf.servers)))
        self._pools = {alias: Pool(share, self._done) for alias in conf.servers}
        self._transport = transport(max(threads, len(conf.servers)))
        try:
            while True:
                going = self._going
                if going and (swept is None or time.monotonic() - swept > conf.sweep_interval):
                    swept = time.monotonic()
                    sweep(using=self.using)
                if going and not self._in_flight:
                    self._feed()
                if self._in_flight:
                    self._digest(collect(self._done, self._busy))
                    granted = self._grant(GRANTING)
                else:
                    granted = self._grant(None) if going else 0
                    if not granted:
                        return self.tally
                self._watch(self.tally)
        finally:
            self._until = 0.0  # if it broke off: what has been claimed ahead is not begun
            for pool in self._pools.values():
                pool.close()

    @property
    def _going(self) -> bool:
        return not self._stop.is_set() and (self._until is None or time.monotonic() < self._until)

    @property
    def _in_flight(self) -> int:
        return sum(pool.in_flight for pool in self._pools.values())

    def _busy(self) -> bool:
        return not any(pool.idle_soon for pool in self._pools.values() if pool.in_flight)

    def _refuse_a_transaction(self) -> None:
        with transaction.atomic(using=self.using, durable=True):
            pass

    # -- feeding

    def _feed(self) -> None:
        for alias, pool in self._pools.items():
            own, server = lane(alias), conf.server(alias)
            if own.halted and pool.in_flight:
                continue  # what comes back says whether the server pauses
            own.halted = False
            # The first request of a process finds out whether its clock is right, before a whole batch is refused.
            room = pool.room if own.channel.clock.compared else 1 - pool.in_flight
            credentials = own.credentials(server) if room > 0 else None
            if credentials is None:
                continue
            if health.state_of(server.alias, using=self.using) == ServerHealth.State.OPEN:
                events = self._claim(server, credentials, room)
                subject = probe_subject(server.alias, using=self.using) if events else None
                for event in events:
                    self._submit(credentials, event, subject)
            else:
                self._probe_if_due(server, credentials)

    def _claim(self, server: Server, credentials: Credentials, limit: int) -> list[Claimed]:
        return retrying(lambda: claim(server.alias, credentials.server_id, limit, using=self.using))

    def _submit(
        self, credentials: Credentials, event: Claimed, subject: Subject | None, *, canary: bool = False
    ) -> None:
        own, connections, remember = lane(event.server), self._transport, conf.probe_interval[0]

        def carry() -> Sent | Claimed:
            if not canary and not self._may_begin(event, own):
                return event
            sent = own.channel.carry(connections, credentials, event, subject, remember, canary=canary)
            own.hear(sent)
            return sent

        self._start(event.server, carry)

    def _may_begin(self, event: Claimed, own: Lane) -> bool:
        return self._going and not own.halted and time.monotonic() < event.begin_by

    def _start(self, server: str, work: Callable[[], Sent | Probed | Claimed]) -> None:
        def job() -> Done:
            try:
                return Done(server, work())
            except Exception as error:  # noqa: BLE001  # a fault of ours must not end the pool
                text = "A request to server %r broke off; its event is sent after the lease."
                trouble(logger, f"request to {server}", error, text, server, server=server)
                return Done(server, None)

        self._pools[server].submit(job)

    def _probe_if_due(self, server: Server, credentials: Credentials) -> None:
        subject = probe_subject(server.alias, using=self.using)
        if subject is not None and health.take_probe(server.alias, using=self.using):
            connections, channel = self._transport, lane(server.alias).channel
            self._start(server.alias, lambda: channel.probe(connections, credentials, subject))

    # -- digesting

    def _digest(self, finished: Sequence[Done]) -> None:
        sent: list[Sent] = []
        for server in dict.fromkeys(done.server for done in finished):
            results = [done.result for done in finished if done.server == server]
            self._pools[server].in_flight -= len(results)
            sent += self._judge(server, [result for result in results if isinstance(result, Sent)])
            for result in results:
                if isinstance(result, Probed):
                    self._after_probe(server, result)
        if self._going:
            self._feed()  # before settling, so that the threads have something to do meanwhile
        if sent:
            settle(sent, using=self.using)
        unsent = [done.result for done in finished if isinstance(done.result, Claimed)]
        if unsent:
            release(unsent, using=self.using)
        for result in sent:
            if result.canary and result.ruling is not Ruling.SERVER_FAULT:
                health.reopen(result.event.server, using=self.using)
        self._count(sent)

    def _judge(self, server: str, sent: list[Sent]) -> list[Sent]:
        """Pause the server if these results say so; then its faults are the server's, not the events'."""
        if not sent:
            return []
        own = lane(server)
        own.note(
            (attempt for result in sent for attempt in result.attempts),
            success=any(result.ruling is Ruling.ACCEPTED for result in sent),
            using=self.using,
        )
        faults = [result for result in sent if result.ruling in (Ruling.FAULT, Ruling.SERVER_FAULT)]
        if not faults:
            return sent
        wait = max((result.last.answer.retry_after or 0 for result in faults), default=0) or None
        reason = next((result.reason for result in faults if result.reason), faults[-1].last.answer.error)
        blamed = any(result.ruling is Ruling.SERVER_FAULT for result in faults)
        if any(result.canary for result in faults):
            health.probe_failed(server, reason, using=self.using, wait=wait)
        elif blamed or wait is not None or own.streak >= conf.pause_after:
            own.streak = 0
            health.pause(server, reason, using=self.using, wait=wait)
        elif health.state_of(server, using=self.using) == ServerHealth.State.OPEN:
            return sent
        return [
            replace(result, ruling=Ruling.SERVER_FAULT) if result.ruling is Ruling.FAULT else result for result in sent
        ]

    def _after_probe(self, server: str, probed: Probed) -> None:
        if probed.result is Probe.FAILED:
            wait = probed.attempt.answer.retry_after
            health.probe_failed(server, probed.reason, using=self.using, wait=wait)
            return
        if not health.half_open(server, using=self.using):
            return
        canary = self._claim(conf.server(server), probed.credentials, 1)
        if not canary:
            health.reopen(server, using=self.using)
        for event in canary:
            subject = probe_subject(server, using=self.using)
            self._submit(probed.credentials, event, subject, canary=True)

    def _grant(self, seconds: float | None) -> int:
        granted = rewards.grant_due(using=self.using, seconds=seconds)
        self.tally.granted += granted
        return granted

    def _count(self, sent: Iterable[Sent]) -> None:
        rulings = Counter(result.ruling for result in sent)
        self.tally.accepted += rulings[Ruling.ACCEPTED]
        self.tally.refused += rulings[Ruling.REFUSED]
        self.tally.postponed += rulings[Ruling.FAULT] + rulings[Ruling.SERVER_FAULT] + rulings[Ruling.UNDECIDED]
