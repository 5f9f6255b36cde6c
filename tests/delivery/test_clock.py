"""A clock that is off costs a process one refused request, however many it has in flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from django_mmolove_referral.delivery import send
from django_mmolove_referral.delivery.send import Clock
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent
from django_mmolove_referral.sandbox.core import Sandbox

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_wrong_clock_has_one_request_refused_and_not_a_whole_batch(
    sandbox: Sandbox, sign_up: Callable[..., Any], drain: Callable[..., Any]
) -> None:
    real = sandbox.clock
    sandbox.clock = lambda: real() + 86_400
    for _ in range(20):
        sign_up()
    drain(concurrency=8)
    assert DeliveryAttempt.objects.filter(status=401).count() == 1
    assert OutboundEvent.objects.filter(state="accepted").count() == 20


def test_a_clock_that_is_set_in_a_running_process_has_nothing_refused(
    sandbox: Sandbox, sign_up: Callable[..., Any], drain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sandbox.clock = time.time
    sign_up()
    drain()
    for ahead in (600.0, -600.0, 86_400.0, 0.0):
        monkeypatch.setattr(time, "time", lambda ahead=ahead: real() + ahead)
        for _ in range(5):
            sign_up()
        drain(concurrency=4)
    assert not DeliveryAttempt.objects.filter(status=401).exists()
    assert not OutboundEvent.objects.exclude(state="accepted").exists()


def test_what_was_learnt_before_the_clock_was_set_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    clock.learn(600.0, send._clock_setting())
    assert clock.offset == 600.0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    assert abs(clock.offset) < 1
