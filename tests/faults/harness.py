"""What the fault tests share: children to be killed, a MMOLove that remembers every byte, and the audit at the end."""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import connection
from django.utils import timezone

from django_mmolove_referral import protocol
from django_mmolove_referral.models import OutboundEvent, Referral, Reward
from django_mmolove_referral.protocol import Kind
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.response import Response
from tests.conftest import SERVER_ID
from tests.databases import running_url

from .ledger import paid

FULL = os.environ.get("FAULTS", "short") == "full"
PATIENCE = 60.0 if not FULL else 600.0
QUEUE = "faults"
DEADLINE, LEASE, SWEEP = 1.0, 5.5, 0.5
"""Seconds: as short as the settings allow, so that what comes after a lease comes soon."""
A_BUSY_MACHINE = 3.0
"""Seconds for the requests themselves, and for a process to get its turn, where several run on two cores."""


def size(short: int, full: int) -> int:
    return full if FULL else short


def wait_until(happened: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """For what only the database or the kernel can tell; what MMOLove sees is waited for by ``Witness.wait``."""
    until = time.monotonic() + patience
    while not (found := happened()):
        assert time.monotonic() < until, f"{what} did not happen within {patience:g} s"
        time.sleep(0.02)
    return found


# -- MMOLove


@dataclass(frozen=True)
class Request:
    """One request as it arrived, and what was decided."""

    body: bytes = field(repr=False)
    fields: dict[str, Any]
    #: The signature's ``t`` and MMOLove's clock.
    signed: int
    at: float
    status: int
    answer: dict[str, Any]

    @property
    def test(self) -> bool:
        return self.fields.get("test") is True

    @property
    def key(self) -> str:
        return str(self.fields["server_event_id"])


class Witness(Sandbox):
    """A sandbox that keeps every request."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.requests: list[Request] = []
        self._arrived = threading.Condition()

    def ingest(self, body: bytes, signature: str = "", **options: Any) -> Response:
        response = super().ingest(body, signature, **options)
        fields = json.loads(body)
        answer = protocol.parse_object(response.body) or {}
        signed = int(signature.partition(",")[0].removeprefix("t=") or 0)
        with self._arrived:
            self.requests.append(Request(body, fields, signed, self.clock(), response.status, answer))
            self._arrived.notify_all()
        return response

    def real(self) -> list[Request]:
        return [request for request in list(self.requests) if not request.test]

    def dry_runs(self) -> list[Request]:
        return [request for request in list(self.requests) if request.test]

    def wait(self, number: int, patience: float = PATIENCE, *, test: bool | None = False) -> None:
        """Until ``number`` requests have arrived, (not) dry runs."""

        def enough() -> bool:
            return sum(test in (None, request.test) for request in self.requests) >= number

        with self._arrived:
            assert self._arrived.wait_for(enough, patience), f"{len(self.requests)} requests, {number} expected"


class Clock:
    """How far some children's clocks are ahead, to be changed while they run."""

    def __init__(self, directory: Path) -> None:
        self.shared = directory / "clock"
        self.shared.write_bytes(struct.pack("d", 0.0))
        self.ahead = 0.0

    def set(self, ahead: float) -> None:
        self.ahead = ahead
        with self.shared.open("r+b") as file:  # in place, as the children have it mapped
            file.write(struct.pack("d", ahead))

    def order(self, offset: float = 0.0) -> dict[str, Any]:
        return {"offset": offset, "shared": str(self.shared)}


# -- processes


class Child:
    """A process of the nursery's."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid, self._nursery = pid, nursery
        self._end = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, patience: float = PATIENCE) -> int:
        """How it ended: an exit code, or the negative of the signal."""
        ended, _, _ = select.select([self._end], [], [], patience)
        assert ended, f"process {self.pid} has not ended within {patience:g} s"
        os.close(self._end)
        self._nursery.children.remove(self)
        return os.waitstatus_to_exitcode(self._nursery.ask({"reap": self.pid}))

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self, *, starting: bool = False) -> None:
        """As an operator does: what is in flight is settled. One that is still ``starting`` may just end."""
        self.send(signal.SIGTERM)
        code = self.wait()
        assert code == 0 or (starting and code == -signal.SIGTERM), f"process {self.pid} ended with {code}"

    def await_stopped(self) -> None:
        """Until it stands still (SIGSTOP)."""
        state = Path(f"/proc/{self.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", f"process {self.pid} standing still")


class Nursery:
    """Starts children; see ``nursery.py``."""

    def __init__(self, endpoint: str, log: Path) -> None:
        self.log = log
        self.children: list[Child] = []
        environment = {
            **os.environ,
            "PYTHONWARNINGS": "default",  # Celery warns of running as root, for one
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DATABASE_URL": running_url(),
            "TEST_ENDPOINT": endpoint,
            "TEST_REFERRAL_SETTINGS": json.dumps({"DEADLINE": DEADLINE, "LEASE": LEASE, "SWEEP_INTERVAL": SWEEP}),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, job: str, **order: Any) -> Child:
        """``start("loop")`` is a worker; ``settings``, ``hooks``, ``clock``, … say how it differs."""
        child = Child(self, self.ask({"job": job, "log": str(self.log), **order}))
        self.children.append(child)
        return child

    def said(self) -> list[str]:
        """What the children have logged: warnings and worse."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def close(self) -> None:
        for child in list(self.children):
            child.kill()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()


# -- accounts


_numbers = count(1)


def populate(witness: Sandbox, number: int) -> list[Referral]:
    """That many referred accounts with their ``registered``, as the sign-up writes them, in few statements."""
    model, password = get_user_model(), make_password("pw")
    users = [model(**{model.USERNAME_FIELD: f"many{next(_numbers)}"}, password=password) for _ in range(number)]
    users = model._default_manager.bulk_create(users, batch_size=500)
    referrals = Referral.objects.bulk_create(
        [Referral(user=user, server="default", token=witness.mint(SERVER_ID, "alice")) for user in users],
        batch_size=500,
    )
    write(referrals, Kind.REGISTERED)
    return referrals


def write(referrals: Iterable[Referral], kind: Kind, state: str = "pending") -> None:
    """The events of ``kind``, as the verb writes them."""
    prefix = {Kind.REGISTERED: "reg", Kind.QUALIFIED: "qual"}[kind]
    OutboundEvent.objects.bulk_create(
        [
            OutboundEvent(
                referral=referral,
                server="default",
                kind=kind.value,
                server_event_id=f"{prefix}-{referral.user_id}",
                state=state,
                due_at=timezone.now(),
                body=protocol.encode(
                    kind,
                    token=referral.token,
                    server_id=SERVER_ID,
                    server_event_id=f"{prefix}-{referral.user_id}",
                    ts=int(time.time()),
                    referee_identity=str(referral.user_id) if kind is Kind.REGISTERED else "",
                ),
            )
            for referral in referrals
        ],
        batch_size=500,
    )


# -- the audit


@dataclass(frozen=True)
class Audit:
    """What is left, and what it took."""

    events: int
    requests: int
    #: Requests more than one for an event.
    repeated: int
    rewards: int


def open_events() -> int:
    return OutboundEvent.objects.filter(state__in=("pending", "waiting")).count()


def all_final() -> bool:
    return not open_events()


def rewards_done() -> bool:
    return all_final() and not Reward.objects.filter(state=Reward.State.DUE).exists()


def audit(witness: Witness, *, states: Iterable[str] = ("accepted",), paying: bool = True) -> Audit:
    """Nothing lost, one body and one id per event, one grant per reward; raises ``AssertionError`` if not."""
    events = {event.server_event_id: event for event in OutboundEvent.objects.all()}
    assert len(events) == OutboundEvent.objects.count()
    strange = Counter(event.state for event in events.values() if event.state not in states)
    assert not strange, f"events in other states than {states}: {strange}"

    seen: Counter[str] = Counter()
    for request in witness.real():
        if (
            request.fields["server_id"] == SERVER_ID
        ):  # under a wrong one nothing counts, and the body follows the setting
            assert request.body == bytes(events[request.key].body), f"another body for {request.key}"
        seen[request.key] += 1
    accepted = {request.key for request in witness.real() if request.answer.get("ok") is True}
    unsent = {key for key, event in events.items() if event.state == "accepted"} - accepted
    assert not unsent, f"accepted here, unknown there: {sorted(unsent)[:5]}"

    _audit_rewards(paying=paying)
    requests = sum(seen.values())
    return Audit(len(events), requests, requests - len(seen), sum(paid().values()))


def _audit_rewards(*, paying: bool) -> None:
    ledger = paid()
    assert set(ledger.values()) <= {1}, f"paid more than once: {[pk for pk, times in ledger.items() if times > 1]}"
    granted = set(Reward.objects.filter(state=Reward.State.GRANTED).values_list("referral_id", flat=True))
    assert granted == set(ledger), "what is marked as granted is what was paid"
    qualified = OutboundEvent.objects.filter(kind="qualified", state="accepted").exclude(outcome="ignored")
    due = set(qualified.values_list("referral_id", flat=True))
    if paying:
        assert granted == due, "each accepted qualified was paid for"


COUNTED: list[str] = []


def counted(item: str, **numbers: object) -> None:
    """A line for the report at the end of the run."""
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items())
    COUNTED.append(f"{item} [{connection.vendor}]: {told}")
