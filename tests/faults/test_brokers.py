"""A broker that forgets, dies or falls silent. Redis and RabbitMQ of the test's own, real workers, real beat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import redis
from celery import Celery
from django.test import Client

from django_mmolove_referral.delivery import dispatch
from tests.conftest import SERVER_ID
from tests.services.test_celery import dispatching

from . import servers
from .harness import QUEUE, Child, Witness, all_final, audit, counted, populate, size, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

_numbers = count(1)


@pytest.mark.parametrize("broker", [servers.Redis, servers.RabbitMQ], indirect=True)
def test_3_ten_thousand_wake_ups_are_lost(
    broker: servers.Broker, app: Celery, witness: Witness, start_celery: Callable[..., Child]
) -> None:
    wake_ups, number = size(500, 10_000), size(50, 2000)
    populate(witness, number)
    for _ in range(wake_ups):
        app.send_task(dispatch.DELIVER_TASK, ignore_result=True)
    lost = empty(broker, app)
    assert lost == wake_ups
    start_celery()
    start_celery("beat")
    wait_until(all_final, "delivery")
    result = audit(witness)
    counted(f"3, {type(broker).__name__}", wake_ups_lost=lost, events=result.events, duplicates=result.repeated, lost=0)


def empty(broker: servers.Broker, app: Celery) -> int:
    """Forget all that is queued; returns how many messages that was."""
    channel: Any
    if isinstance(broker, servers.Redis):
        with redis.from_url(broker.url) as store:
            queued = int(store.llen(f"{QUEUE}:{QUEUE}"))
            store.flushall()
            return queued
    with app.connection_for_write() as connection, connection.channel() as channel:
        return int(channel.queue_purge(QUEUE))


def _sign_up(witness: Witness) -> float:
    """A visitor's sign-up; returns the seconds that the form took."""
    visitor = Client()
    visitor.get(f"/register/?mmref={witness.mint(SERVER_ID, 'alice')}")
    begun = time.monotonic()
    answer = visitor.post("/register/", {"name": f"visitor{next(_numbers)}", "login": "1"})
    assert answer.status_code == 200
    return time.monotonic() - begun


@pytest.mark.parametrize("way", ["down", "paused"])
def test_4_sign_ups_do_not_notice_the_broker(
    way: str,
    broker: servers.Broker,
    app: Celery,
    witness: Witness,
    start_celery: Callable[..., Child],
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = size(3, 25)
    with dispatching(app, configure, monkeypatch):
        usual = max(_sign_up(witness) for _ in range(5))
        if way == "down":
            broker.stop()
        else:
            broker.pause()
        back = threading.Timer(seconds, broker.start if way == "down" else broker.go_on)
        back.start()
        times = []
        while back.is_alive():
            times.append(_sign_up(witness))
            back.join(0.2)  # at a visitor's pace
        assert max(times) < usual + 1
        start_celery()
        start_celery("beat")
        wait_until(all_final, "delivery")
        audit(witness)
    counted(f"4, {type(broker).__name__}", broker=way, for_s=seconds, sign_ups=len(times),
            slowest_before_s=round(usual, 3), slowest_s=round(max(times), 3), error_pages=0, lost=0)  # fmt: skip
