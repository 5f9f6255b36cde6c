"""Referrals that something else has reported: nothing is sent twice, nothing is paid twice, and nothing looks wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from datetime import timezone as tz
from io import StringIO
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.management import call_command
from django.dispatch import Signal
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from django_mmolove_referral import (
    aimport_referral,
    attach_referral,
    import_referral,
    mark_qualified,
    mark_qualified_many,
    mark_registered,
    mark_reversed,
    signals,
    stats,
)
from django_mmolove_referral.client import ReferralClient
from django_mmolove_referral.conf import ConfigError, conf
from django_mmolove_referral.delivery.prune import prune
from django_mmolove_referral.doctor import needs
from django_mmolove_referral.milestones import Qualified
from django_mmolove_referral.models import OutboundEvent, Referral, Reward
from django_mmolove_referral.sandbox.core import Sandbox

from .clock import let_pass
from .conftest import SECRET, SERVER_ID, Granted, Hear, Table
from .factories import UserFactory
from .test_interleavings import at_once, overlap
from .visitors import Browser, referred

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)
BEFORE = datetime.now(tz.utc).replace(microsecond=0) - timedelta(days=100)
LONG_AGO = datetime(2025, 3, 1, 12, tzinfo=tz.utc)
Mint = Callable[..., str]
Drain = Callable[..., Any]


class Kit:
    """What a portal did before: the kits' calls, with ids of its own."""

    def register(self, user: Any, token: str) -> None:
        with self._client() as mmolove:
            result = mmolove.registered(token, referee_identity=str(user.pk), server_event_id=f"reg-{user.pk}")
        assert result.ok, result

    def qualify(self, user: Any, token: str) -> None:
        with self._client() as mmolove:
            result = mmolove.qualified(token, server_event_id=f"kit-level10-{user.pk}")
        assert result.ok, result

    def _client(self) -> ReferralClient:
        return ReferralClient(SERVER_ID, SECRET, endpoint=conf.server("default").credentials().endpoint)


@pytest.fixture
def kit(sandbox: Sandbox) -> Kit:
    return Kit()


def requests_of(sandbox: Sandbox) -> list[str]:
    return [entry.kind for entry in sandbox.events(test=False)]


# -- what is written


def test_a_registered_one() -> None:
    alice, bob = UserFactory.create_batch(2)
    referral = import_referral(bob, "tok-1", registered_at=BEFORE, code=str(alice.pk))
    referral.refresh_from_db()
    assert (referral.user, referral.server, referral.token, referral.state) == (bob, "default", "tok-1", "registered")
    assert (referral.referrer, referral.referrer_code, referral.pruned) == (alice, str(alice.pk), "registered")
    assert (referral.created_at, referral.registered_at, referral.qualified_at) == (BEFORE, BEFORE, None)
    assert not OutboundEvent.objects.exists()
    assert not Reward.objects.exists()


def test_a_qualified_one(granted: Granted, drain: Drain, table: Table) -> None:
    bob = UserFactory.create()
    referral = import_referral(bob, "tok-1", registered_at=BEFORE, qualified_at=BEFORE + DAY)
    referral.refresh_from_db()
    assert (referral.state, referral.pruned) == ("qualified", "qualified registered")
    assert (referral.registered_at, referral.qualified_at) == (BEFORE, BEFORE + DAY)
    reward = table.reward
    assert (reward.referral, reward.state) == (referral, "granted")
    assert {reward.created_at, reward.due_at, reward.granted_at} == {BEFORE + DAY}
    drain()
    assert granted == []


def test_for_another_server(configure: Callable[..., None]) -> None:
    configure(SERVERS={"eu": {"SERVER_ID": "srv_eu", "SECRET": "s"}})
    bob = UserFactory.create()
    one = import_referral(bob, "tok-1", registered_at=BEFORE)
    two = import_referral(bob, "tok-2", registered_at=BEFORE, server="eu")
    assert (one.server, two.server) == ("default", "eu")


def test_nobody_is_told(hear: Hear) -> None:
    told = [hear(signal) for signal in vars(signals).values() if isinstance(signal, Signal)]
    assert len(told) == 9
    import_referral(UserFactory.create(), "tok-1", registered_at=BEFORE, qualified_at=BEFORE)
    assert told == [[]] * 9


def test_the_async_form() -> None:
    referral = async_to_sync(aimport_referral)(UserFactory.create(), "tok-1", registered_at=BEFORE)
    assert referral.state == "registered"


# -- what MMOLove sees


def test_what_was_reported_is_not_reported_again(
    kit: Kit, mint: Mint, sandbox: Sandbox, drain: Drain, granted: Granted
) -> None:
    bob, token = UserFactory.create(), mint()
    kit.register(bob, token)
    kit.qualify(bob, token)
    import_referral(bob, token, registered_at=BEFORE, qualified_at=BEFORE)
    assert (mark_registered(bob), mark_qualified(bob)) == (None, None)
    assert mark_qualified_many([bob]) == Qualified(before=1)
    drain()
    assert requests_of(sandbox) == ["registered", "qualified"]
    assert (granted, OutboundEvent.objects.count()) == ([], 0)
    assert Reward.objects.get().state == "granted"


def test_the_milestone_of_a_registered_one_leaves_at_once_and_is_paid_once(
    kit: Kit, mint: Mint, sandbox: Sandbox, drain: Drain, granted: Granted, table: Table
) -> None:
    bob, token = UserFactory.create(), mint()
    kit.register(bob, token)
    referral = import_referral(bob, token, registered_at=BEFORE)
    assert mark_registered(bob) is None
    event = mark_qualified(bob)
    assert event is not None
    assert event.state == "pending"
    for _ in range(2):
        drain()
        assert mark_qualified(bob) == event
    assert requests_of(sandbox) == ["registered", "qualified"]
    assert granted == [referral]
    assert (table.referral.state, table.states()) == ("qualified", {"qualified": "accepted"})
    assert table.referral.registered_at == BEFORE


def test_a_milestone_that_the_kit_reported_and_nobody_imported_is_accepted_again(
    kit: Kit, mint: Mint, drain: Drain, granted: Granted
) -> None:
    """MMOLove answers as to the first, so the reward is due: that is why ``qualified_at`` has to be imported."""
    bob, token = UserFactory.create(), mint()
    kit.register(bob, token)
    kit.qualify(bob, token)
    import_referral(bob, token, registered_at=BEFORE)
    mark_qualified(bob)
    drain()
    assert [referral.user for referral in granted] == [bob]


@pytest.mark.parametrize("qualified_at", [None, BEFORE])
def test_a_reversal_is_reported(
    qualified_at: datetime | None, kit: Kit, mint: Mint, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    bob, token = UserFactory.create(), mint()
    kit.register(bob, token)
    import_referral(bob, token, registered_at=BEFORE, qualified_at=qualified_at)
    assert mark_reversed(bob) is not None
    drain()
    assert (table.states(), table.referral.state) == ({"reversed": "accepted"}, "reversed")
    assert [reward.state for reward in Reward.objects.all()] == ["granted"] * bool(qualified_at)
    assert mark_qualified(bob) is None


def test_a_reversal_that_follows_an_unanswered_qualified_is_not_taken_for_expired(
    kit: Kit, mint: Mint, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    bob, token = UserFactory.create(), mint()
    kit.register(bob, token)
    import_referral(bob, token, registered_at=BEFORE)
    mark_qualified(bob)
    sandbox.outage()
    drain()
    mark_reversed(bob)
    drain()
    assert table.states() == {"qualified": "pending", "reversed": "waiting"}
    sandbox.clear_faults()
    let_pass(301)
    drain()
    assert table.states() == {"qualified": "accepted", "reversed": "accepted"}


def test_an_account_that_was_not_imported_doubles_nothing_either(
    kit: Kit, mint: Mint, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    """The same token and account by hand: MMOLove knows both."""
    bob, token = UserFactory.create(), mint()
    kit.register(bob, token)
    attach_referral(bob, token)
    drain()
    assert (table.states(), table.referral.state) == ({"registered": "accepted"}, "registered")
    assert len(sandbox.referrals) == 1


def test_a_dry_run_has_a_token_that_mmolove_knows(kit: Kit, mint: Mint, sandbox: Sandbox) -> None:
    bob, token = UserFactory.create(), mint()
    kit.register(bob, token)
    import_referral(bob, token, registered_at=BEFORE)
    out = StringIO()
    with suppress(SystemExit):  # whatever else there is to say of this portal
        call_command("mmolove_doctor", stdout=out)
    assert "MMOLove accepted the test event" in out.getvalue()
    assert sandbox.events(test=True)[-1].token == token


# -- once more


def test_importing_again_changes_nothing() -> None:
    bob = UserFactory.create()
    first = import_referral(bob, "tok-1", registered_at=BEFORE, qualified_at=BEFORE)
    before = Referral.objects.values().get()
    again = import_referral(bob, "tok-2", registered_at=BEFORE + DAY, qualified_at=BEFORE + DAY, code="x")
    assert again == first
    assert import_referral(bob, "tok-1", registered_at=BEFORE) == first
    assert Referral.objects.values().get() == before
    assert Reward.objects.count() == 1


def test_what_the_kit_reported_since_is_learnt_by_importing_again(drain: Drain, granted: Granted, table: Table) -> None:
    """Portals import, look, and import once more when the kit has been switched off."""
    bob = UserFactory.create()
    import_referral(bob, "tok-1", registered_at=BEFORE)
    assert import_referral(bob, "tok-1", registered_at=BEFORE, qualified_at=BEFORE + DAY).state == "qualified"
    assert (table.referral.state, table.referral.pruned) == ("qualified", "qualified registered")
    assert table.reward.state == "granted"
    assert mark_qualified(bob) is None
    drain()
    assert granted == []


@pytest.mark.parametrize("end", ["conflict", "reversed", "expired"])
def test_a_referral_that_has_ended_stays_so(end: str, table: Table) -> None:
    bob = UserFactory.create()
    import_referral(bob, "tok-1", registered_at=BEFORE)
    Referral.objects.update(state=end)
    assert import_referral(bob, "tok-1", registered_at=BEFORE, qualified_at=BEFORE).state == end
    assert not Reward.objects.exists()


def test_a_milestone_that_was_marked_here_is_left_to_take_its_course(
    kit: Kit, mint: Mint, drain: Drain, granted: Granted, table: Table
) -> None:
    bob, token = UserFactory.create(), mint()
    kit.register(bob, token)
    import_referral(bob, token, registered_at=BEFORE)
    mark_qualified(bob)
    import_referral(bob, token, registered_at=BEFORE, qualified_at=BEFORE)
    assert not Reward.objects.exists()
    drain()
    assert [referral.user for referral in granted] == [bob]
    assert table.reward.state == "granted"
    assert import_referral(bob, token, registered_at=BEFORE, qualified_at=BEFORE).state == "qualified"
    assert Reward.objects.count() == 1


def test_an_account_that_signed_up_here_meanwhile(
    kit: Kit, mint: Mint, sandbox: Sandbox, drain: Drain, granted: Granted, table: Table
) -> None:
    """Both saw it, as they do while both are in place; the kit was first with everything."""
    bob, token = UserFactory.create(), mint()
    attach_referral(bob, token)
    kit.register(bob, token)
    kit.qualify(bob, token)
    import_referral(bob, token, registered_at=BEFORE, qualified_at=BEFORE + DAY)
    drain()
    assert (table.states(), table.referral.state) == ({"registered": "accepted"}, "qualified")
    assert mark_qualified(bob) is None
    assert (len(sandbox.referrals), granted) == (1, [])


def test_the_token_comes_with_a_visit_later(kit: Kit, mint: Mint, drain: Drain, sandbox: Sandbox) -> None:
    token = mint()
    bob = UserFactory.create(name="bob@example.com")
    kit.register(bob, token)
    import_referral(bob, token, registered_at=BEFORE)
    browser = Browser()
    browser.visit(token)
    browser.log_in()
    browser.visit(token)
    attach_referral(bob, token)
    drain()
    assert referred() == {"bob@example.com": token}
    assert requests_of(sandbox) == ["registered"]


def test_one_too_old_for_mmolove_to_credit_keeps_no_token(
    kit: Kit, mint: Mint, drain: Drain, sandbox: Sandbox, granted: Granted, configure: Callable[..., None]
) -> None:
    """As one that has been here all the time: see TOKEN_RETENTION."""
    bob, carol = UserFactory.create_batch(2)
    for user, days in ((bob, 271), (carol, 269)):
        token = mint()
        kit.register(user, token)
        import_referral(user, token, registered_at=datetime.now(tz.utc) - days * DAY)
    drain()
    assert mark_qualified(bob) is None
    assert mark_qualified(carol) is not None
    drain()
    assert requests_of(sandbox) == ["registered", "registered", "qualified"]
    assert [referral.user for referral in granted] == [carol]


def test_two_imports_at_once() -> None:
    bob = UserFactory.create()

    def work() -> Referral:
        return import_referral(bob, "tok-1", registered_at=BEFORE, qualified_at=BEFORE)

    assert len({referral.pk for referral in at_once(work)}) == 1
    assert (Referral.objects.count(), Reward.objects.count()) == (1, 1)


@pytest.mark.parametrize("turn", [1, -1])
def test_an_import_beside_a_milestone_pays_once_or_leaves_it(turn: int) -> None:
    bob = UserFactory.create()
    import_referral(bob, "tok-1", registered_at=BEFORE)
    sides: list[Callable[[], Any]] = [
        lambda: import_referral(bob, "tok-1", registered_at=BEFORE, qualified_at=BEFORE),
        lambda: mark_qualified(bob),
    ]
    overlap(*sides[::turn])
    assert (Reward.objects.count(), OutboundEvent.objects.count()) == ((1, 0) if turn == 1 else (0, 1))


# -- what cannot be


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"token": "a b"}, "A referral token is 1 to 1,024 visible ASCII characters; this is none."),
        ({"token": ""}, "A referral token is 1 to 1,024 visible ASCII characters; this is none."),
        ({"code": "a/b"}, "A referrer code is 1 to 255 printable characters without spaces and slashes."),
        ({"registered_at": "2025-03-01"}, "registered_at is a datetime, not '2025-03-01'."),
        ({"registered_at": None}, "registered_at is a datetime, not None."),
        ({"qualified_at": LONG_AGO.date()}, "qualified_at is a datetime, not datetime.date(2025, 3, 1)."),
        (
            {"registered_at": datetime(2025, 3, 1)},  # noqa: DTZ001  # that is what is tested
            "registered_at, 2025-03-01 00:00:00, needs a time zone: django.utils.timezone.make_aware(…) gives it one.",
        ),
        (
            {"registered_at": datetime(2999, 3, 1, tzinfo=tz.utc)},
            "registered_at, 2999-03-01 00:00:00+00:00, has not come yet.",
        ),
        (
            {"registered_at": LONG_AGO, "qualified_at": LONG_AGO - DAY},
            "qualified_at, 2025-02-28 12:00:00+00:00, cannot be before registered_at, 2025-03-01 12:00:00+00:00.",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_named(given: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"token": "tok-1", "registered_at": BEFORE, **given}
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # compared in full below
        import_referral(UserFactory.create(), values.pop("token"), **values)
    assert str(caught.value) == message
    assert not Referral.objects.exists()


def test_a_visitor_and_an_unknown_server_are_refused() -> None:
    with pytest.raises(ValueError, match="Only an account can be referred"):
        import_referral(AnonymousUser(), "tok-1", registered_at=BEFORE)
    with pytest.raises(ConfigError, match="There is no server 'atlantis'"):
        import_referral(UserFactory.create(), "tok-1", registered_at=BEFORE, server="atlantis")


def test_without_time_zones_an_aware_time_is_the_portals_own() -> None:
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Paris"):
        referral = import_referral(UserFactory.create(), "tok-1", registered_at=LONG_AGO)
        referral.refresh_from_db()
        assert referral.registered_at == datetime(2025, 3, 1, 13)  # noqa: DTZ001  # without time zones


# -- the portal's owner


def test_nothing_looks_wrong(
    kit: Kit, mint: Mint, client: Client, drain: Drain, granted: Granted, sandbox: Sandbox
) -> None:
    drain()
    before = [finding.id for finding in needs()]
    model: Any = get_user_model()
    bob, carol = UserFactory.create(), UserFactory.create()
    rows = [
        import_referral(bob, mint(), registered_at=BEFORE, qualified_at=BEFORE + DAY),
        import_referral(carol, mint(), registered_at=timezone.now()),
    ]
    assert [finding.id for finding in needs()] == before
    numbers = stats.collect()
    assert numbers.funnel == stats.Funnel(captured=1, registered=1, qualified=0, rewarded=0), "the old one is no news"
    assert (numbers.events.open, numbers.rewards.due, numbers.rewards.failing) == (0, 0, 0)
    root = model._default_manager.create_superuser(**{model.USERNAME_FIELD: "root@example.com", "password": "pw"})
    client.force_login(root)
    admin = "admin:mmolove_referral"
    pages = [reverse(f"{admin}_{name}_changelist") for name in ("referral", "reward", "outboundevent", "serverhealth")]
    pages += [reverse(f"{admin}_referral_change", args=[row.pk]) for row in rows]
    pages += [
        reverse(f"{admin}_reward_change", args=[Reward.objects.get().pk]),
        reverse("admin:mmolove_referral_overview"),
    ]
    shown = {page: client.get(page, follow=True) for page in pages}
    assert {page.status_code for page in shown.values()} == {200}
    first, second = (shown[reverse(f"{admin}_referral_change", args=[row.pk])].content.decode() for row in rows)
    assert "MMOLove has credited the referrer" in first
    assert "qualify/" not in first, "there is nothing left to mark"
    assert "MMOLove knows the account." in second
    assert "qualify/" in second
    assert "It has been granted" in shown[pages[-2]].content.decode()
    out = StringIO()
    call_command("mmolove_stats", stdout=out)
    call_command("mmolove_redeliver", stdout=out)
    assert "0 of 0 events will be sent again." in out.getvalue()


def test_pruning_leaves_them_alone(drain: Drain) -> None:
    import_referral(UserFactory.create(), "tok-1", registered_at=BEFORE, qualified_at=BEFORE)
    before = Referral.objects.values().get()
    assert prune(1, 1, using="default").events == 0
    assert Referral.objects.values().get() == before


def test_deleting_the_account_forgets_it(table: Table) -> None:
    bob = UserFactory.create()
    import_referral(bob, "tok-1", registered_at=BEFORE, qualified_at=BEFORE)
    bob.delete()
    assert (table.referral.user, table.referral.token, table.reward.state) == (None, "", "granted")
