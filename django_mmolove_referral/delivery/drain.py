"""The engine: claim, send, settle, grant, until nothing is due. Everything else only wakes it.

The database is used by the calling thread alone; the pool's threads do nothing but HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from django.db import router, transaction

from ..conf import Server, conf
from ..logs import trouble
from ..models import OutboundEvent, ServerHealth
from ..protocol import Credentials
from . import health, rewards
from .claim import Claimed, Subject, claim, probe_subject
from .lane import lane, transport
from .pool import Pool
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
    """A finished job of the pool; ``None`` if it broke off."""

    server: str
    result: Sent | Probed | None


DrainPool = Pool[Done]


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
        self._in_flight: Counter[str] = Counter()

    def run(self, seconds: float | None = None) -> Tally:
        """Work until nothing is due, ``stop`` is set or ``seconds`` are over. Returns the tally.

        Raises ``RuntimeError`` inside a transaction: HTTP would hold its locks.
        """
        retrying(self._refuse_a_transaction)
        until = None if seconds is None else time.monotonic() + seconds
        swept: float | None = None
        self._in_flight.clear()  # a run that broke off may have left some
        pool: DrainPool = Pool(self._concurrency or conf.concurrency)
        try:
            while True:
                going = not self._stop.is_set() and (until is None or time.monotonic() < until)
                if going and (swept is None or time.monotonic() - swept > conf.sweep_interval):
                    swept = time.monotonic()
                    sweep(using=self.using)
                if going:
                    self._feed(pool)
                if pool.in_flight:
                    self._digest(pool, pool.results())
                    granted = self._grant(GRANTING)
                else:
                    granted = self._grant(None) if going else 0
                    if not granted:
                        return self.tally
                self._watch(self.tally)
        finally:
            pool.close()

    def _refuse_a_transaction(self) -> None:
        with transaction.atomic(using=self.using, durable=True):
            pass

    # -- feeding

    def _feed(self, pool: DrainPool) -> None:
        share = max(1, pool.size // max(1, len(conf.servers)))
        for server in conf.servers.values():
            own = lane(server.alias)
            # The first request of a process finds out whether its clock is right, before a whole batch is refused.
            room = min(pool.free, (share if own.channel.clock.compared else 1) - self._in_flight[server.alias])
            credentials = own.credentials(server) if room > 0 else None
            if credentials is None:
                continue
            if health.state_of(server.alias, using=self.using) == ServerHealth.State.OPEN:
                events = self._claim(server, credentials, room)
                subject = probe_subject(server.alias, using=self.using) if events else None
                for event in events:
                    self._submit(pool, credentials, event, subject)
            else:
                self._probe_if_due(pool, server, credentials)

    def _claim(self, server: Server, credentials: Credentials, limit: int) -> list[Claimed]:
        return retrying(lambda: claim(server.alias, credentials.server_id, limit, using=self.using))

    def _submit(
        self,
        pool: DrainPool,
        credentials: Credentials,
        event: Claimed,
        subject: Subject | None,
        *,
        canary: bool = False,
    ) -> None:
        connections, channel, remember = transport(pool.size), lane(event.server).channel, conf.probe_interval[0]
        self._start(
            pool,
            event.server,
            lambda: channel.carry(connections, credentials, event, subject, remember, canary=canary),
        )

    def _start(self, pool: DrainPool, server: str, work: Callable[[], Sent | Probed]) -> None:
        def job() -> Done:
            try:
                return Done(server, work())
            except Exception as error:  # noqa: BLE001  # a fault of ours must not end the pool
                text = "A request to server %r broke off; its event is sent after the lease."
                trouble(logger, f"request to {server}", error, text, server, server=server)
                return Done(server, None)

        self._in_flight[server] += 1
        pool.submit(job)

    def _probe_if_due(self, pool: DrainPool, server: Server, credentials: Credentials) -> None:
        subject = probe_subject(server.alias, using=self.using)
        if subject is not None and health.take_probe(server.alias, using=self.using):
            connections, channel = transport(pool.size), lane(server.alias).channel
            self._start(pool, server.alias, lambda: channel.probe(connections, credentials, subject))

    # -- digesting

    def _digest(self, pool: DrainPool, finished: Sequence[Done]) -> None:
        self._in_flight.subtract(done.server for done in finished)
        sent: list[Sent] = []
        for server in dict.fromkeys(done.server for done in finished):
            results = [done.result for done in finished if done.server == server]
            sent += self._judge(server, [result for result in results if isinstance(result, Sent)])
            for result in results:
                if isinstance(result, Probed):
                    self._after_probe(pool, server, result)
        if sent:
            settle(sent, using=self.using)
        for result in sent:
            if result.canary and result.ruling is not Ruling.SERVER_FAULT:
                health.reopen(result.event.server, using=self.using)
        self._count(sent)

    def _judge(self, server: str, sent: list[Sent]) -> list[Sent]:
        """Pause the server if these results say so; then its faults are the server's, not the events'."""
        if not sent:
            return []
        own = lane(server)
        for result in sent:
            if result.ruling in (Ruling.ACCEPTED, Ruling.REFUSED):
                own.streak = 0
            elif result.ruling is Ruling.FAULT:
                own.streak += 1
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

    def _after_probe(self, pool: DrainPool, server: str, probed: Probed) -> None:
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
            self._submit(pool, probed.credentials, event, subject, canary=True)

    def _grant(self, seconds: float | None) -> int:
        granted = rewards.grant_due(using=self.using, seconds=seconds)
        self.tally.granted += granted
        return granted

    def _count(self, sent: Iterable[Sent]) -> None:
        rulings = Counter(result.ruling for result in sent)
        self.tally.accepted += rulings[Ruling.ACCEPTED]
        self.tally.refused += rulings[Ruling.REFUSED]
        self.tally.postponed += rulings[Ruling.FAULT] + rulings[Ruling.SERVER_FAULT] + rulings[Ruling.UNDECIDED]
