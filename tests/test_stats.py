"""The numbers, and what is made of them in the shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from datetime import timezone as tz
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from django_mmolove_referral import stats, window
from django_mmolove_referral.clock import DatabaseNow
from django_mmolove_referral.delivery.rewards import NO_RECEIVER
from django_mmolove_referral.models import DeliveryAttempt, Heartbeat, OutboundEvent, Referral, Reward, ServerHealth

from .conftest import Granted
from .factories import EventFactory, ReferralFactory, RewardFactory, UserFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("debugging")]

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=tz.utc)
Came = Callable[..., Referral]


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    return NOW


@pytest.fixture
def came() -> Came:
    """``came(at, **fields)`` is somebody who signed up by a share link then."""

    def make(at: datetime, **fields: Any) -> Referral:
        referral: Referral = ReferralFactory.create(**fields)
        Referral.objects.filter(pk=referral.pk).update(created_at=at)
        return referral

    return make


def sent(event: OutboundEvent, at: datetime, status: int = 200, error: str = "", ms: int = 50) -> None:
    DeliveryAttempt.objects.create(event=event, started_at=at, duration_ms=ms, signed_at=0, status=status, error=error)


def ago(**passed: float) -> datetime:
    return NOW - timedelta(**passed)


def by_day(found: stats.Stats) -> dict[str, tuple[int, int, int, int]]:
    """The days on which something happened."""
    days = {day.day.isoformat(): (day.captured, day.accepted, day.refused, day.failed) for day in found.days}
    return {day: numbers for day, numbers in days.items() if any(numbers)}


def test_nothing_has_happened(granted: Granted) -> None:
    found = stats.collect()
    assert [found.days[0].day, found.days[-1].day, len(found.days)] == [date(2026, 10, 22), date(2026, 11, 20), 30]
    assert by_day(found) == {}
    assert found.funnel == stats.Funnel(0, 0, 0, 0)
    assert found.events == stats.Events(0, 0, 0, 0)
    assert (found.oldest, found.referrers) == (None, [])
    assert found.latency == stats.Latency(None, None, 0)


def test_the_funnel_is_of_those_who_came_in_the_window(came: Came) -> None:
    came(ago(days=1))
    came(ago(days=2), state="registered", registered_at=NOW)
    for reward in ("due", "granted", None):
        referral = came(ago(days=3), state="qualified", registered_at=NOW, qualified_at=NOW)
        if reward:
            RewardFactory.create(referral=referral, state=reward)
    RewardFactory.create(referral=came(ago(days=40), registered_at=NOW, qualified_at=NOW), state="granted")
    assert stats.collect().funnel == stats.Funnel(captured=5, registered=4, qualified=3, rewarded=1)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"])
def test_days_are_those_of_the_current_time_zone(zone: str, came: Came) -> None:
    """Also where the clocks change, and where the database knows no time zones (MariaDB, unless they are loaded)."""
    here = ZoneInfo(zone)
    midnights = [
        datetime(2026, 10, 25, tzinfo=here),
        datetime(2026, 10, 26, tzinfo=here),
        datetime(2026, 11, 1, tzinfo=here),
    ]
    event = EventFactory.create(referral=came(ago(days=100)))
    for midnight in midnights:
        came(midnight.astimezone(tz.utc))
        came(midnight.astimezone(tz.utc) - timedelta(microseconds=1))
        sent(event, midnight.astimezone(tz.utc))
        sent(event, midnight.astimezone(tz.utc) - timedelta(microseconds=1), 422)
    with timezone.override(here):
        found = stats.collect()
    assert found.time_zone == zone
    assert by_day(found) == {
        "2026-10-24": (1, 0, 1, 0),
        "2026-10-25": (2, 1, 1, 0),
        "2026-10-26": (1, 1, 0, 0),
        "2026-10-31": (1, 0, 1, 0),
        "2026-11-01": (1, 1, 0, 0),
    }


def test_days_without_time_zones(settings: Any, came: Came, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.USE_TZ = False
    monkeypatch.setattr(timezone, "now", lambda: NOW.replace(tzinfo=None))
    came(midnight := datetime(2026, 11, 19))  # noqa: DTZ001  # as such a portal has them
    sent(EventFactory.create(referral=came(midnight - timedelta(days=100))), midnight - timedelta(seconds=1))
    assert by_day(stats.collect()) == {"2026-11-18": (0, 1, 0, 0), "2026-11-19": (1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("status", "error", "numbers"),
    [
        (200, "", (1, 0, 0)),
        (200, "HTTP 200, but an HTML page", (0, 0, 1)),
        (302, "HTTP 302", (0, 1, 0)),
        (401, "HTTP 401: bad_signature", (0, 1, 0)),
        (422, "HTTP 422", (0, 1, 0)),
        (429, "HTTP 429", (0, 0, 1)),
        (503, "HTTP 503", (0, 0, 1)),
        (0, "refused", (0, 0, 1)),
    ],
)
def test_requests_by_what_came_of_them(status: int, error: str, numbers: tuple[int, int, int], came: Came) -> None:
    sent(EventFactory.create(referral=came(ago(days=40))), NOW, status, error)
    assert by_day(stats.collect()) == {"2026-11-20": (0, *numbers)}


def test_only_the_newest_rows_are_looked_at(came: Came, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "WINDOW_ROWS", 3)
    for days in (20, 9, 8, 8, 2):
        came(ago(days=days))
    found = stats.collect()
    assert found.since == ago(days=9)  # the newest that was left out
    assert found.days[0].day == date(2026, 11, 11)
    assert by_day(found) == {"2026-11-12": (2, 0, 0, 0), "2026-11-18": (1, 0, 0, 0)}
    assert found.funnel.captured == 3


def test_old_rows_that_are_left_out_cut_nothing(came: Came, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "WINDOW_ROWS", 2)
    for days in (50, 40, 8, 2):
        came(ago(days=days))
    found = stats.collect()
    assert len(found.days) == 30
    assert found.funnel.captured == 2


def test_events_are_counted_up_to_a_limit(came: Came, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "COUNTED", 2)
    for state, count in {"pending": 4, "waiting": 1, "rejected": 3, "exhausted": 2}.items():
        for _number in range(count):
            EventFactory.create(state=state)
    found = stats.collect()
    assert found.events == stats.Events(pending=3, waiting=1, rejected=3, exhausted=2)
    assert found.events.open == 3  # more than two


def test_the_oldest_open_event(came: Came) -> None:
    EventFactory.create(state="accepted")
    oldest = EventFactory.create(state="waiting")
    EventFactory.create(state="pending")
    found = stats.collect().oldest
    assert found is not None
    assert (found.pk, found.server_event_id, found.created_at) == (oldest.pk, oldest.server_event_id, NOW)


def test_those_are_counted_that_have_been_due_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "COUNTED", 0)
    EventFactory.create(due_at=ago(minutes=20))
    longest = EventFactory.create(due_at=ago(minutes=30))
    found = stats.collect()
    assert found.oldest is not None
    assert found.oldest.pk == longest.pk


@given(st.lists(st.integers(0, 100), min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[int], percent: int) -> None:
    enough = [value for value in values if sum(other <= value for other in values) * 100 >= percent * len(values)]
    assert stats._percentile(sorted(values), percent) == min(enough)


def test_latency_is_that_of_recent_answers(came: Came, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RECENT", 21)
    event = EventFactory.create()
    sent(event, NOW, ms=100_000)  # too long ago
    sent(event, NOW, 0, "timed out", ms=15_000)  # no answer
    for ms in range(1, 21):
        sent(event, NOW, ms=ms * 10)
    assert stats.collect().latency == stats.Latency(median=100, p95=190, answers=20)


def test_top_referrers(came: Came) -> None:
    alice, bob, carol = (UserFactory.create(name=f"{name}@example.com") for name in ("alice", "bob", "carol"))
    for _number in range(3):
        came(NOW, referrer=alice)
    RewardFactory.create(referral=came(NOW, referrer=bob, qualified_at=NOW), state="granted")
    came(ago(days=40), referrer=carol, qualified_at=NOW)
    came(NOW)
    assert stats.collect().referrers == [
        window.Referrer(bob.pk, "bob@example.com", captured=1, qualified=1, rewarded=1),
        window.Referrer(alice.pk, "alice@example.com", captured=3, qualified=0, rewarded=0),
    ]


def test_rewards_that_are_due(granted: Granted) -> None:
    for fields in ({}, {"attempts": 2, "last_error": "ValueError"}, {"last_error": NO_RECEIVER}, {"state": "granted"}):
        RewardFactory.create(**fields)
    assert stats.collect().rewards == stats.Rewards(due=3, failing=1, receiver=True)


def test_those_are_counted_that_failed(granted: Granted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "COUNTED", 1)
    RewardFactory.create(attempts=1, due_at=ago(minutes=-5))
    RewardFactory.create_batch(3, due_at=ago(minutes=5))
    assert stats.collect().rewards == stats.Rewards(due=2, failing=1, receiver=True)


# -- the work is bounded, and the shape is fixed


def test_the_number_of_queries_is_constant(came: Came, django_assert_num_queries: Any) -> None:
    EventFactory.create()
    RewardFactory.create(referral__referrer=UserFactory.create())
    with django_assert_num_queries(16):
        stats.collect()
    for _number in range(5):
        sent(EventFactory.create(referral__referrer=UserFactory.create()), NOW)
        RewardFactory.create(referral__referrer=UserFactory.create())
        EventFactory.create(state="waiting")
    with django_assert_num_queries(16):
        stats.collect()


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("mmolove_stats", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def busy(came: Came, configure: Callable[..., None]) -> OutboundEvent:
    """A bit of everything; the open event."""
    alice = UserFactory.create(name="alice@example.com")
    qualified = came(ago(days=1), referrer=alice, registered_at=NOW, qualified_at=NOW)
    sent(EventFactory.create(referral=qualified, state="accepted"), ago(days=1), ms=80)
    sent(EventFactory.create(referral=came(ago(days=50)), state="rejected"), ago(minutes=20), 422, "HTTP 422", ms=120)
    RewardFactory.create(referral=qualified, attempts=1, last_error="ValueError: no")
    event: OutboundEvent = EventFactory.create(referral=came(ago(hours=1)), due_at=ago(minutes=30))
    ServerHealth.objects.create(
        server="default", since=NOW, last_success_at=ago(days=1), clock_skew=61, clock_host="web-1"
    )
    configure(SERVERS={"eu": {"SERVER_ID": "srv_eu"}})
    return event


def test_json(busy: OutboundEvent, granted: Granted) -> None:
    alice = Referral.objects.exclude(referrer=None).get().referrer_id
    days = [
        {
            "day": (date(2026, 10, 22) + timedelta(days=number)).isoformat(),
            "captured": 0,
            "accepted": 0,
            "refused": 0,
            "failed": 0,
        }
        for number in range(30)
    ]
    days[28] |= {"captured": 1, "accepted": 1}
    days[29] |= {"captured": 1, "refused": 1}
    assert json.loads(run("--json")) == {
        "now": "2026-11-20T12:30:00+00:00",
        "since": "2026-10-22T00:00:00+00:00",
        "time_zone": "UTC",
        "counted_up_to": 10_000,
        "funnel": {"captured": 2, "registered": 1, "qualified": 1, "rewarded": 0},
        "days": days,
        "events": {"pending": 1, "waiting": 0, "rejected": 1, "exhausted": 0, "open": 1},
        "oldest_open": {
            "pk": busy.pk,
            "server_event_id": busy.server_event_id,
            "created_at": "2026-11-20T12:30:00+00:00",
        },
        "latency_ms": {"median": 80, "p95": 120, "answers": 2},
        "rewards": {"due": 1, "failing": 1, "receiver": True},
        "referrers": [{"user": str(alice), "name": "alice@example.com", "captured": 1, "qualified": 1, "rewarded": 0}],
        "servers": [
            {
                "server": "default",
                "state": "open",
                "reason": "",
                "last_success_at": "2026-11-19T12:30:00+00:00",
                "probe_at": None,
                "clock_skew_seconds": 61.0,
                "open": 1,
                "problem": "",
            },
            {
                "server": "eu",
                "state": "open",
                "reason": "",
                "last_success_at": None,
                "probe_at": None,
                "clock_skew_seconds": 0.0,
                "open": 0,
                "problem": "MMOLOVE_REFERRAL['SERVERS']['eu']['SECRET'] is missing. Put the referral secret from the "
                "MMOLove dashboard there, as a string.",
            },
        ],
        "problem": "",
    }


def test_text(busy: OutboundEvent, granted: Granted) -> None:
    # How long it has been due goes by the database's clock.
    OutboundEvent.objects.filter(pk=busy.pk).update(due_at=DatabaseNow() - timedelta(minutes=30))
    assert (
        run()
        == f"""\
Needs attention:
- settings.missing: MMOLOVE_REFERRAL['SERVERS']['eu']['SECRET'] is missing. Put the referral secret from the MMOLove \
dashboard there, as a string. “Settings” in the documentation lists every key and what it may be.
- dispatcher.silent: Nothing has ever delivered here (DISPATCH = 'manual'). Start python manage.py \
mmolove_deliver --loop, or have cron run python manage.py mmolove_deliver --once, or set \
MMOLOVE_REFERRAL['DISPATCH'] to 'thread'. If it runs, look in its log for “Nothing is delivered”: does it have the \
web process's environment?
- rewards.failing: 1 reward could not be granted, because of ValueError: no. Mend the receiver of \
referral_qualified; they are tried again by themselves, or with “Retry reward”.
- backlog.old: 1 event is to be sent, due for 30 minutes. Do what is said of what delivers (dispatcher.…); or \
send them now: python manage.py mmolove_deliver --once
- events.rejected: 1 event was rejected by MMOLove. Open one in the admin (Outbound events, state “rejected”) \
and do what its page says, then choose “Redeliver now”. For all of them: python manage.py mmolove_redeliver \
--state rejected --server default. What nothing can be made of goes from here with “Cancel”.
- clock.skew: The clock of web-1 is 61 s behind MMOLove's. Have that host's clock set by NTP.
Since Oct. 22, 2026, midnight (UTC):
  captured    2, 100 %
  registered  1, 50 %
  qualified   1, 50 %
  rewarded    0, 0 %
  requests    1 accepted, 1 refused, 0 without a usable answer
Now:
  events      1 pending, 0 waiting, 1 rejected, 0 exhausted
  oldest open {busy.server_event_id}, written Nov. 20, 2026, 12:30 p.m.
  rewards     1 due, 1 could not be granted
  answer time median 80 ms, 95 % within 120 ms (last 2)
  server      default: open
  server      eu: MMOLOVE_REFERRAL['SERVERS']['eu']['SECRET'] is missing. Put the referral secret from the MMOLove \
dashboard there, as a string.
Top referrers (captured, qualified, rewarded):
  alice@example.com: 1, 1, 0
"""
    )


def test_text_of_an_empty_portal(granted: Granted) -> None:
    Heartbeat.objects.create(kind="loop", host="web-1", seen_at=DatabaseNow())
    assert (
        run()
        == """\
Nothing needs attention.
Since Oct. 22, 2026, midnight (UTC):
  captured    0
  registered  0
  qualified   0
  rewarded    0
  requests    0 accepted, 0 refused, 0 without a usable answer
Now:
  events      0 pending, 0 waiting, 0 rejected, 0 exhausted
  rewards     0 due, 0 could not be granted
  server      default: open
"""
    )


def test_the_shell_gets_no_control_characters_of_a_players(came: Came, granted: Granted) -> None:
    referral = came(NOW, referrer=UserFactory.create(name="x\x1b[2Jy@example.com"))
    assert "\x1b" not in run()
    assert "x [2Jy@example.com: 1, 0, 0" in run()
    assert json.loads(run("--json"))["referrers"][0]["user"] == str(referral.referrer_id)


def test_broken_settings(settings: Any, granted: Granted) -> None:
    settings.MMOLOVE_REFERRAL = "srv"
    assert json.loads(run("--json"))["problem"].startswith("MMOLOVE_REFERRAL must be a dict")
    assert "- settings.wrong: MMOLOVE_REFERRAL must be a dict" in run()


def test_no_secret_and_no_token(busy: OutboundEvent) -> None:
    told = run() + run("--json")
    assert "test-secret" not in told
    assert "token-" not in told
    assert Reward.objects.count() == 1
