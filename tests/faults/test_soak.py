"""Everything at once, for a while: visitors, all dispatchers, a MMOLove that fails one time in five, and nothing that
stays up. At the end nothing is open, and nobody was told the same thing over and over."""

from __future__ import annotations

import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.db import connection, connections

from django_mmolove_referral.sandbox.faults import Fault, Fields
from tests.services.test_celery import dispatching

from . import servers
from .harness import DEADLINE, Child, Clock, Nursery, Witness, audit, counted, rewards_done, size, wait_until
from .run import Here
from .test_brokers import empty
from .visitors import SignUps

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS, BETWEEN = size(20, 600), size(2, 8)
"""How long it goes on, and the time between two disturbances."""
A_SECOND = 3
"""Visitors."""
SHARE = 0.2
QUICK: dict[str, Any] = {
    "CONCURRENCY": 4,
    "DISPATCH": "thread",
    "PROBE_INTERVAL": (0.5, 2),
    "RETRY_SCHEDULE": [0.2, 0.5, *[1] * 20],
}

LASTING = [
    *(Fault(status=status, body=b"<html>no</html>") for status in (408, 425, 500, 502, 503, 504)),
    *(Fault(status=status, body=body) for status in (200, 201) for body in (b"", b"<html>welcome</html>")),
    Fault(status=204),
    *(Fault(status=200, body=body) for body in (b"\xff\x00" * 99, b'{"ok": tr', b'{"ok":false}', b"[" * 900)),
    Fault(status=200, body=b"x" * 70_000),
    Fault(status=429, headers={"Retry-After": "1"}),
    Fault(status=503, headers={"Retry-After": "junk"}),
    Fault(status=502, processed=True),
    Fault(drop=True),
    Fault(drop=True, processed=True),
    Fault(truncate=True),
    Fault(delay=DEADLINE * 1.5),
    Fault(drip=0.2),
]  # fmt: skip
ONCE = [
    Fault(status=401, body={"error": "bad_signature"}),
    Fault(status=403, body=b"<html>a firewall's page</html>"),
    Fault(status=404, body={"error": "unknown server"}),
    *(Fault(status=status, headers={"Location": "http://127.0.0.1:9/"}) for status in (301, 302, 303, 307, 308)),
]
"""What is the event's own end if it comes again after a dry run has passed (as 400 and 422 are at once)."""


class Dice:
    """One request in five meets one of the faults."""

    def __init__(self, witness: Witness) -> None:
        self._faults = [*LASTING, *ONCE]
        self._rolled: Fault | None = None
        self._met: set[object] = set()
        self.hits = 0
        for fault in reversed(self._faults):  # the one scripted last is asked first
            witness.script(replace(fault, when=partial(self._is, fault)), times=None)

    def _is(self, fault: Fault, fields: Fields) -> bool:
        if fault is self._faults[0]:
            self._roll(fields)
        return fault is self._rolled

    def _roll(self, fields: Fields) -> None:
        self._rolled = random.choice(self._faults) if random.random() < SHARE else None
        if self._rolled in ONCE and not fields.get("test"):
            key = fields.get("server_event_id")
            self._rolled = None if key in self._met else self._rolled
            self._met.add(key)
        self.hits += self._rolled is not None


class Portal:
    """All that runs, and what may be done to it."""

    def __init__(self, nursery: Nursery, start_celery: Callable[..., Child], broker: servers.Broker, app: Celery,
                 clock: Clock) -> None:  # fmt: skip
        self._broker, self._app, self._clock = broker, app, clock
        start_celery("beat", settings=QUICK)
        self._starts: dict[str, Callable[[], Child]] = {
            "loop": lambda: nursery.start("loop", settings=QUICK, clock=clock.order()),
            "web": lambda: nursery.start("web", settings=QUICK),
            "celery": lambda: start_celery(settings=QUICK),
        }
        self._running = {name: start() for name, start in self._starts.items()}
        self.done: Counter[str] = Counter()

    def disturbances(self) -> list[Callable[[], None]]:
        acts = [partial(self._kill, name) for name in self._starts] + [
            partial(self._stop, name) for name in self._starts
        ]
        acts += [partial(self._set_clock, ahead) for ahead in (600.0, -86_400.0, 0.0)]
        more = [self._restart_broker, self._empty_broker]
        if Here.database:
            more += [partial(self._restart_database, how) for how in (signal.SIGTERM, signal.SIGKILL)]
        return [*acts, *more]

    def _kill(self, name: str) -> None:
        self._running[name].kill()
        self._running[name] = self._starts[name]()
        self.done[f"{name} killed"] += 1

    def _stop(self, name: str) -> None:
        self._running[name].stop(starting=True)
        self._running[name] = self._starts[name]()
        self.done[f"{name} restarted"] += 1

    def _set_clock(self, ahead: float) -> None:
        self._clock.set(ahead)
        self.done["clock set"] += 1

    def _restart_broker(self) -> None:
        self._broker.restart()
        self.done["broker restarted"] += 1

    def _empty_broker(self) -> None:
        empty(self._broker, self._app)
        self.done["broker emptied"] += 1

    def _restart_database(self, how: signal.Signals) -> None:
        connections.close_all()
        assert Here.database
        Here.database.restart(how)
        self.done[f"database {'restarted' if how is signal.SIGTERM else 'killed'}"] += 1

    def close(self) -> None:
        for child in self._running.values():
            child.stop(starting=True)


@pytest.mark.parametrize("broker", [servers.Redis], indirect=True)
def test_23_a_soak(
    broker: servers.Broker,
    app: Celery,
    witness: Witness,
    nursery: Nursery,
    start_celery: Callable[..., Child],
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)  # shared by all threads' connections
    dice, portal = Dice(witness), Portal(nursery, start_celery, broker, app, Clock(tmp_path))
    visitors, acts = SignUps(witness), portal.disturbances()
    random.shuffle(acts)
    begun = time.monotonic()
    with dispatching(app, configure, monkeypatch):
        for act in cycle(acts):
            if time.monotonic() - begun > SECONDS:
                break
            visitors.more(A_SECOND * BETWEEN)
            time.sleep(BETWEEN)
            act()
        visitors.end()
    connections.close_all()
    witness.clear_faults()
    wait_until(rewards_done, "all events final, all rewards granted", 300)
    portal.close()
    result = audit(witness)
    assert result.rewards == visitors.done
    assert result.events == 2 * visitors.done
    said = _told([*nursery.said(), *(f"0 {one.levelname} {one.name} {one.getMessage()}" for one in caplog.records)])
    disturbed = sum(portal.done.values())
    counted(
        "23",
        seconds=SECONDS,
        visitors=visitors.done,
        events=result.events,
        requests=len(witness.requests),
        met_a_fault=dice.hits,
        **{name.replace(" ", "_"): times for name, times in sorted(portal.done.items())},
        visitors_came_again=visitors.came_again,
        requests_repeated=result.repeated,
        rewards=result.rewards,
        lost=0,
        log_lines=sum(said.values()),
    )
    for template, times in said.most_common():
        counted("23, log", times=times, line=template)
        assert times <= result.events / 10 + 3 * disturbed, f"said {times} times: {template}"


def _told(lines: list[str]) -> Counter[str]:
    """How often each of the package's warnings was given, whatever the names and numbers in it."""
    found = (re.match(r"\d+ (?:WARNING|ERROR|CRITICAL) mmolove_referral\S* (.*)", line) for line in lines)
    messages = [match[1] for match in found if match]
    of_events = Counter(message for message in messages if re.search(r"\b(?:reg|qual)-\d|\bEvent \d", message))
    assert set(of_events.values()) <= {1}, f"more than once about the same event: {of_events.most_common(3)}"
    return Counter(re.sub(r"\d+", "#", message.partition(": ")[0]) for message in messages)
