"""Milestones of many accounts at once: the same as one by one, in a number of queries that does not grow with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_mmolove_referral import (
    amark_qualified_many,
    attach_referral,
    mark_qualified,
    mark_qualified_many,
    mark_reversed,
)
from django_mmolove_referral.conf import ConfigError
from django_mmolove_referral.delivery import dispatch
from django_mmolove_referral.milestones import BATCH, Qualified, would_qualify
from django_mmolove_referral.models import OutboundEvent, Referral, Reward

from .conftest import Granted, Table
from .factories import EventFactory, ReferralFactory, UserFactory
from .test_interleavings import answered, at_once, elsewhere, finish, overlap, take
from .visitors import OWN_USER_MODEL

pytestmark = pytest.mark.django_db

EU = {"SERVER_ID": "srv_eu", "SECRET": "s"}


def players(number: int, *, state: str = "registered", server: str = "default") -> list[Any]:
    """Accounts with a referral, in bulk."""
    model = get_user_model()
    start = model._default_manager.count()
    names = [f"p{start + one}@example.com" for one in range(number)]
    model._default_manager.bulk_create([model(**{model.USERNAME_FIELD: name}) for name in names], batch_size=500)
    made = list(model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names}))
    registered_at = timezone.now() if state == "registered" else None
    Referral.objects.bulk_create(
        [
            Referral(user=user, server=server, token=f"token-{user.pk}", state=state, registered_at=registered_at)
            for user in made
        ],
        batch_size=50,
    )
    return made


def everybody() -> Any:
    return get_user_model()._default_manager.all()


def written() -> set[Any]:
    return set(OutboundEvent.objects.filter(kind="qualified").values_list("referral__user", flat=True))


# -- the same as one by one


def registered() -> Any:
    return players(1)[0]


def captured() -> Any:
    user = UserFactory.create()
    attach_referral(user, "tok-1")
    return user


def without_registered() -> Any:
    return ReferralFactory.create().user


def qualified() -> Any:
    user = registered()
    mark_qualified(user)
    return user


def accepted() -> Any:
    event = EventFactory.create(kind="qualified", state="accepted", outcome="advanced")
    Referral.objects.filter(pk=event.referral_id).update(state="qualified", registered_at=timezone.now())
    return event.referral.user


def reversed_() -> Any:
    user = registered()
    mark_reversed(user)
    return user


def reversed_after() -> Any:
    user = qualified()
    mark_reversed(user)
    return user


def ended(state: str) -> Callable[[], Any]:
    return lambda: ReferralFactory.create(state=state).user


def with_(**fields: Any) -> Callable[[], Any]:
    return lambda: ReferralFactory.create(**fields).user


KNOWN = {"state": "registered", "registered_at": "2026-01-01T00:00Z"}
WAYS: dict[str, tuple[Callable[[], Any], Qualified]] = {
    "registered": (registered, Qualified(now=1)),
    "captured": (captured, Qualified(now=1)),
    "without registered": (without_registered, Qualified(now=1)),
    "qualified": (qualified, Qualified(before=1)),
    "accepted": (accepted, Qualified(before=1)),
    "reversed": (reversed_, Qualified(ended=1)),
    "reversed after": (reversed_after, Qualified(before=1)),
    "conflict": (ended("conflict"), Qualified(ended=1)),
    "expired": (ended("expired"), Qualified(ended=1)),
    "registered pruned": (with_(**KNOWN, pruned="registered"), Qualified(now=1)),
    "registered pruned unaccepted": (with_(pruned="registered"), Qualified(ended=1)),
    "qualified pruned": (with_(**KNOWN, pruned="qualified registered"), Qualified(before=1)),
    "token blanked": (with_(**KNOWN, token=""), Qualified(ended=1)),
    "unreferred": (UserFactory.create, Qualified(unreferred=1)),
}


def rows() -> list[Any]:
    """The outbox, but for what differs from row to row."""
    return [
        {**row, "body": {**json.loads(bytes(row["body"])), "ts": 0}}
        for row in OutboundEvent.objects.order_by("pk").values(
            *("referral", "server", "kind", "server_event_id", "body", "frozen", "state", "outcome", "reason"),
            *("claim", "attempts", "last_status", "last_error", "response", "settled_at"),
        )
    ]


@pytest.mark.parametrize("way", WAYS)
def test_many_are_qualified_as_one_is(way: str) -> None:
    make, expected = WAYS[way]
    user = make()
    with transaction.atomic():
        mark_qualified(user)
        alone = rows()
        transaction.set_rollback(True)
    before = rows()
    assert would_qualify([user]) == expected
    assert rows() == before, "what it would do, it has not done"
    assert mark_qualified_many([user]) == expected
    assert rows() == alone
    again = mark_qualified_many([user])
    assert again == (Qualified(before=1) if expected.now else expected)
    assert rows() == alone


def test_all_of_them_together() -> None:
    users = [make() for make, _ in WAYS.values()]
    total = sum((expected for _, expected in WAYS.values()), Qualified())
    assert total == Qualified(now=4, before=4, ended=5, unreferred=1)
    assert would_qualify(users) == mark_qualified_many(users) == total
    assert mark_qualified_many(users) == Qualified(before=8, ended=5, unreferred=1)


def test_the_event_is_due_by_the_databases_clock() -> None:
    (user,) = players(1)
    mark_qualified_many([user])
    assert abs(OutboundEvent.objects.get().due_at - timezone.now()) < timedelta(minutes=1)


@pytest.mark.django_db(transaction=True)
def test_from_the_batch_to_the_rewards(
    mint: Callable[..., str], drain: Callable[..., Any], granted: Granted, table: Table
) -> None:
    users = UserFactory.create_batch(5)
    for user in users:
        attach_referral(user, mint())
    assert mark_qualified_many(everybody()) == Qualified(now=5)
    assert set(OutboundEvent.objects.filter(kind="qualified").values_list("state", flat=True)) == {"waiting"}
    drain()
    assert {referral.user for referral in granted} == set(users)
    assert mark_qualified_many(everybody()) == Qualified(before=5)
    drain()
    assert (len(granted), Reward.objects.count()) == (5, 5)


# -- who may be given


def test_users_keys_querysets_and_generators() -> None:
    users = players(8)
    unsaved = AnonymousUser()
    some: list[Any] = [[users[0]], (user.pk for user in users[1:2]), {users[2]}, [str(users[3].pk)]]
    some += [everybody().filter(pk=users[4].pk), everybody().filter(pk=users[5].pk).values_list("pk", flat=True)]
    some += [everybody().order_by("-pk").filter(pk__in=[users[6].pk, users[7].pk])[:1], [unsaved, None]]
    assert [mark_qualified_many(accounts).now for accounts in some] == [1] * 7 + [0]
    assert len(written()) == 7
    assert mark_qualified_many([]) == mark_qualified_many(everybody().none()) == Qualified()


def test_a_queryset_of_other_values_is_a_list_of_keys_of_accounts() -> None:
    """The keys that it yields, not those of the rows that it is over."""
    alice, bob = players(2)
    Referral.objects.filter(user=bob).update(referrer=alice)
    keys = Referral.objects.filter(referrer__isnull=False).values_list("referrer", flat=True)
    assert mark_qualified_many(keys) == Qualified(now=1)
    assert written() == {alice.pk}


def test_a_queryset_over_many_rows_of_an_account_counts_it_once(table: Table) -> None:
    players(3)
    doubled = everybody().filter(mmolove_referrals__isnull=False, pk__isnull=False)
    assert mark_qualified_many(doubled.union(doubled)) == Qualified(now=3)
    assert mark_qualified_many([*doubled, *doubled]) == Qualified(before=3)


@pytest.mark.skipif(OWN_USER_MODEL, reason="about auth.User")
@pytest.mark.parametrize("kind", ["ProxyAccount", "ChildAccount"])
def test_subclasses_of_the_user_model_are_accounts(kind: str) -> None:
    model: Any = apps.get_model("testapp", kind)
    special = model._default_manager.create(username="bob")
    attach_referral(special, "tok-1")
    assert would_qualify([special]) == would_qualify(model._default_manager.all()) == Qualified(now=1)
    assert mark_qualified_many(model._default_manager.filter(pk=special.pk)) == Qualified(now=1)


AS_A_UUID = [] if OWN_USER_MODEL else [True, 10**30]
"""Which an UUID may be made of."""


@pytest.mark.parametrize("wrong", [7.5, 7.0, "1_000", "x", "", b"7", (7,), object(), "7\0", "\udcff", *AS_A_UUID])
def test_what_can_be_no_account_is_named(wrong: Any) -> None:
    (user,) = players(1)
    with pytest.raises(ValueError, match=r"is neither an account nor the .* of one"):
        mark_qualified_many([user, wrong])
    assert written() == set()


def test_what_is_no_list_of_accounts_is_named() -> None:
    referral = ReferralFactory.create()
    wrong: list[tuple[Any, str]] = [
        ("alice", "Give a list of accounts or of their primary keys, not 'alice'."),
        (Referral.objects.all(), "Give a queryset of accounts: of Referral, take the keys of their users."),
        ([referral], "Referral is no account: give its user."),
    ]
    for accounts, message in wrong:
        with pytest.raises(TypeError) as caught:
            mark_qualified_many(accounts)
        assert str(caught.value) == message
    with pytest.raises(TypeError, match="not iterable"):
        mark_qualified_many(referral.user)  # type: ignore[arg-type]


# -- several servers


def test_with_referrals_on_several_servers_one_has_to_be_named(configure: Callable[..., None]) -> None:
    configure(SERVERS={"eu": EU})
    alice, bob = players(2)
    ReferralFactory.create(user=bob, server="eu")
    for verb in (would_qualify, mark_qualified_many):
        with pytest.raises(ValueError, match=f"{bob.pk} has referrals on several servers; .*: 'default', 'eu'") as got:
            verb([alice, bob])
        assert "server=…" in str(got.value)
    assert written() == set(), "decided before anything is written"
    assert mark_qualified_many([alice, bob], server="eu") == Qualified(now=1, unreferred=1)
    assert OutboundEvent.objects.get().server == "eu"
    assert mark_qualified_many([alice, bob], server="default") == Qualified(now=2)
    with pytest.raises(ConfigError, match="There is no server 'atlantis'"):
        mark_qualified_many([], server="atlantis")


def test_the_batches_before_it_are_done(monkeypatch: pytest.MonkeyPatch, configure: Callable[..., None]) -> None:
    configure(SERVERS={"eu": EU})
    monkeypatch.setattr("django_mmolove_referral.milestones.BATCH", 2)
    users = sorted(players(5), key=lambda user: user.pk)
    ReferralFactory.create(user=users[3], server="eu")
    with pytest.raises(ValueError, match="several servers"):
        mark_qualified_many(users)
    assert written() == {users[0].pk, users[1].pk}
    assert mark_qualified_many(users, server="default") == Qualified(now=3, before=2)


def test_a_server_that_left_the_settings_keeps_its_milestones(settings: Any) -> None:
    """The portal's own page goes on; the event leaves when the server is back."""
    alice, bob = players(2, server="gone")
    assert mark_qualified(alice) is not None
    assert mark_qualified_many([bob]) == Qualified(now=1)
    assert {json.loads(bytes(event.body))["server_id"] for event in OutboundEvent.objects.all()} == {""}


# -- queries, transactions, wake-ups


def queries(accounts: Any) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        mark_qualified_many(accounts)
    return [query["sql"] for query in captured.captured_queries]


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Django 6, rows are inserted on SQLite 999 values at a time, whatever it can take."""
    if connection.vendor == "sqlite":
        monkeypatch.setattr(type(connection.features), "max_query_params", 250_000)


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize("state", ["registered", "captured"])
def test_the_number_of_queries_is_the_same_for_every_thousand(state: str) -> None:
    each = {}
    for number in (10, 1_000, 3_000):
        users = players(number, state=state)
        each[number] = [queries([user.pk for user in users]), queries([user.pk for user in users])]
        assert len(written()) == sum(each)
    first, again = (len(sql) for sql in each[10])
    assert (first, again) == ({"sqlite": 7}.get(connection.vendor, 6), 1)
    assert [len(sql) for sql in each[1_000]] == [first, again]
    assert [len(sql) for sql in each[3_000]] == [3 * first, 3 * again]


def test_of_a_queryset_only_the_keys_are_read_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.milestones.BATCH", 10)
    players(25)
    chosen = everybody().filter(is_active=True).order_by("-pk")
    table = f'"{get_user_model()._meta.db_table}"'
    sql = [one.replace("`", '"') for one in queries(chosen)]
    reads = [one for one in sql if f"FROM {table}" in one]
    assert [one for one in reads if "password" in one or "LIMIT" not in one] == []
    assert len(reads) == 3
    assert len(written()) == 25


def test_a_generator_is_read_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.milestones.BATCH", 10)
    users = players(25)
    seen: list[int] = []

    def read() -> Iterator[Any]:
        for user in users:
            seen.append(len(written()))
            yield user

    mark_qualified_many(read())
    assert seen == [0] * 10 + [10] * 10 + [20] * 5


@pytest.mark.django_db(transaction=True)
def test_each_batch_is_a_transaction_with_one_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.milestones.BATCH", 10)
    woken: list[int] = []
    monkeypatch.setattr(dispatch, "wake", lambda: woken.append(len(written())))
    users = players(25)

    def read() -> Iterator[Any]:
        for user in users:
            assert not connection.in_atomic_block
            yield user

    mark_qualified_many(read())
    assert woken == [10, 20, 25]
    mark_qualified_many(users)
    mark_qualified_many(players(3, state="captured"))
    assert woken == [10, 20, 25], "nobody is woken for what is not due"


@pytest.mark.django_db(transaction=True)
def test_within_the_portals_transaction_it_is_part_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []
    monkeypatch.setattr(dispatch, "wake", lambda: woken.append(1))
    users = players(3)
    with transaction.atomic():
        assert mark_qualified_many(users).now == 3
        transaction.set_rollback(True)
    assert (written(), woken) == (set(), [])


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_meets_a_deadlock_is_tried_again() -> None:
    users = players(3)
    met: list[str] = []

    def deadlock(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if "INSERT" in sql and not met:
            met.append(sql)
            raise OperationalError("deadlock detected")
        return execute(sql, *args)

    with connection.execute_wrapper(deadlock):
        assert mark_qualified_many(users) == Qualified(now=3)
    assert len(met) == 1
    assert OutboundEvent.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_the_async_form() -> None:
    users = players(3)
    assert async_to_sync(amark_qualified_many)(everybody()) == Qualified(now=3)
    assert written() == {user.pk for user in users}


# -- beside others


both_orders = pytest.mark.parametrize("turn", [1, -1], ids=["first", "last"])


@pytest.mark.django_db(transaction=True)
@both_orders
def test_beside_mark_qualified_there_is_one_event(turn: int) -> None:
    alice, bob = players(2)
    sides: list[Callable[[], Any]] = [lambda: mark_qualified(bob), lambda: mark_qualified_many([alice, bob])]
    many = overlap(*sides[::turn])[::turn][1]
    assert many == (Qualified(now=1, before=1) if turn == 1 else Qualified(now=2))
    assert sorted(OutboundEvent.objects.values_list("referral__user", flat=True)) == sorted([alice.pk, bob.pk])


@pytest.mark.django_db(transaction=True)
@both_orders
def test_beside_the_acceptance_of_registered_it_does_not_wait_for_good(turn: int, table: Table) -> None:
    bob = UserFactory.create()
    attach_referral(bob, "tok-1")
    (event,) = take()
    sides: list[Callable[[], Any]] = [lambda: finish(answered(event)), lambda: mark_qualified_many([bob])]
    overlap(*sides[::turn])
    assert table.states() == {"registered": "accepted", "qualified": "pending"}


@pytest.mark.django_db(transaction=True)
@both_orders
def test_beside_a_reversal_nothing_qualified_is_sent(turn: int) -> None:
    (bob,) = players(1)
    sides: list[Callable[[], Any]] = [lambda: mark_reversed(bob), lambda: mark_qualified_many([bob])]
    overlap(*sides[::turn])
    assert not OutboundEvent.objects.filter(kind="qualified", state="pending").exists()
    assert OutboundEvent.objects.get(kind="reversed").state == "pending"


@pytest.mark.django_db(transaction=True)
def test_several_batches_at_once_write_each_event_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.milestones.BATCH", 7)
    users = players(40)
    orders = iter([users, users[::-1], users[10:] + users[:10], users[::-1], users])
    done = at_once(lambda: mark_qualified_many(next(orders)))
    assert sum((one.now for one in done), 0) == 40
    assert {one.now + one.before for one in done} == {40}
    assert OutboundEvent.objects.count() == 40


@pytest.mark.django_db(transaction=True)
def test_beside_workers_that_claim_and_settle(table: Table) -> None:
    users = UserFactory.create_batch(30)
    for number, user in enumerate(users):
        attach_referral(user, f"token-{number}")

    def work() -> None:
        while events := take(4):
            finish(*(answered(event) for event in events))

    others: list[Any] = [elsewhere(work), elsewhere(lambda: mark_qualified_many(users)), elsewhere(work)]
    for other in others:
        other.result(60)
    work()
    assert OutboundEvent.objects.filter(state="accepted").count() == 60


def test_a_batch_is_a_thousand() -> None:
    assert BATCH == 1_000
