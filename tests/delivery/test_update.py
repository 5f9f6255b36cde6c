"""One UPDATE for rows that get different values, on this run's own database."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.db.models import F, Value
from django.db.models.functions import Concat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_mmolove_referral.clock import DatabaseNow
from django_mmolove_referral.delivery.update import update
from django_mmolove_referral.models import OutboundEvent
from tests.factories import EventFactory

text = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=16)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc))  # noqa: DTZ001
rows = st.fixed_dictionaries(
    {
        "state": st.sampled_from(OutboundEvent.State.values),
        "last_error": text,
        "claim": st.none() | st.uuids(version=4),
        "due_at": moments,
        "settled_at": st.none() | moments,
        "attempts": st.integers(0, 2**31 - 1),
        "last_status": st.none() | st.integers(0, 999),
        "frozen": st.booleans(),
        "response": st.dictionaries(text, st.none() | st.booleans() | st.integers(-(2**31), 2**31) | text, max_size=3),
    }
)
FIELDS = ("state", "last_error", "claim", "due_at", "settled_at", "attempts", "last_status", "frozen", "response")


@pytest.fixture
def events(db: None) -> list[OutboundEvent]:
    return list(EventFactory.create_batch(4))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(rows, min_size=3, max_size=3))
def test_each_row_gets_its_own_values_and_the_others_keep_theirs(
    events: list[OutboundEvent], values: list[dict[str, Any]]
) -> None:
    changed, bystander = events[:3], OutboundEvent.objects.filter(pk=events[3].pk).values().get()
    for event, row in zip(changed, values, strict=True):
        for name, value in row.items():
            setattr(event, name, value)
    update(OutboundEvent.objects.all(), changed, FIELDS)
    for event, row in zip(changed, values, strict=True):
        assert OutboundEvent.objects.filter(pk=event.pk).values(*FIELDS).get() == row
    assert OutboundEvent.objects.filter(pk=events[3].pk).values().get() == bystander


def test_a_value_may_be_an_expression(events: list[OutboundEvent], django_assert_num_queries: Any) -> None:
    first, second, third, _ = events
    first.due_at, second.due_at = DatabaseNow(), DatabaseNow() + timedelta(hours=1)
    first.last_error, second.last_error = "plain", Concat(F("kind"), Value("!"))
    first.claim = uuid.uuid4()
    with django_assert_num_queries(1):
        update(OutboundEvent.objects.all(), [first, second, third], ("due_at", "last_error", "claim"))
    one, two, three = OutboundEvent.objects.filter(pk__lte=third.pk).order_by("pk")
    assert timedelta(minutes=59) < two.due_at - one.due_at < timedelta(minutes=61)
    assert (one.last_error, two.last_error, three.last_error) == ("plain", "registered!", "")
    assert (one.claim, two.claim, three.due_at) == (first.claim, None, third.due_at)


def test_nothing_to_write_asks_nothing(django_assert_num_queries: Any, db: None) -> None:
    with django_assert_num_queries(0):
        update(OutboundEvent.objects.all(), [], FIELDS)
