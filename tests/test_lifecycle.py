"""The verbs: what a portal may say about an account, what it gets back, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

import django_mmolove_referral
from django_mmolove_referral import (
    aattach_referral,
    amark_qualified,
    amark_registered,
    amark_reversed,
    ashare_link,
    attach_referral,
    mark_qualified,
    mark_registered,
    mark_reversed,
    share_link,
    signals,
)
from django_mmolove_referral.conf import ConfigError
from django_mmolove_referral.models import OutboundEvent, Referral, Reward

from .conftest import Granted, Hear, Table
from .factories import EventFactory, ReferralFactory, RewardFactory, UserFactory
from .visitors import OWN_USER_MODEL, Browser, failing

pytestmark = pytest.mark.django_db

VERBS = [mark_registered, mark_qualified, mark_reversed]
EU = {"SERVER_ID": "srv_eu", "SECRET": "s"}


@pytest.fixture
def eu(configure: Callable[..., None]) -> None:
    configure(SERVERS={"eu": EU})


def content(body: bytes | memoryview) -> Any:
    """What an event says; PostgreSQL gives its body as a view."""
    return json.loads(bytes(body))


def registered(**fields: Any) -> Referral:
    """A referral that MMOLove has accepted."""
    referral = ReferralFactory.create(state="registered", registered_at=timezone.now(), **fields)
    EventFactory.create(referral=referral, state="accepted", outcome="advanced", frozen=True)
    return referral


def qualified(**fields: Any) -> OutboundEvent:
    """The ``qualified`` of an accepted referral."""
    return EventFactory.create(referral=registered(), kind="qualified", **fields)


# -- the package


def test_the_package_offers_the_verbs_and_nothing_else() -> None:
    for name in django_mmolove_referral.__all__:
        assert callable(getattr(django_mmolove_referral, name))
    with pytest.raises(AttributeError, match=r"^module 'django_mmolove_referral' has no attribute 'mark_rewarded'$"):
        _ = django_mmolove_referral.mark_rewarded


# -- attach_referral


def test_attaching_writes_the_referral_and_its_registered_event() -> None:
    bob = UserFactory.create()
    before = timezone.now()
    referral = attach_referral(bob, "tok-1")
    event = referral.events.get()
    assert (referral.user, referral.server, referral.token, referral.state) == (bob, "default", "tok-1", "captured")
    assert (event.kind, event.state, event.server, event.server_event_id) == (
        "registered",
        "pending",
        "default",
        f"reg-{bob.pk}",
    )
    assert abs(event.due_at - before) < timedelta(minutes=1)
    body = bytes(event.body)
    assert body == bytes(OutboundEvent.objects.get().body)
    assert json.loads(body) | {"ts": 0} == {
        "event": "registered",
        "server_id": "srv_test",
        "ts": 0,
        "token": "tok-1",
        "referee_identity": str(bob.pk),
        "server_event_id": f"reg-{bob.pk}",
    }
    assert json.loads(body)["ts"] >= int(before.timestamp()) - 1


def test_attaching_again_returns_the_existing_referral() -> None:
    bob = UserFactory.create()
    first = attach_referral(bob, "tok-1")
    assert attach_referral(bob, "tok-2", code="7") == first
    assert (Referral.objects.get().token, OutboundEvent.objects.count()) == ("tok-1", 1)


def test_an_account_may_have_a_referral_on_each_server(eu: None) -> None:
    bob = UserFactory.create()
    first, second = attach_referral(bob, "tok-1"), attach_referral(bob, "tok-2", server="eu")
    assert first != second
    assert content(second.events.get().body)["server_id"] == "srv_eu"
    assert attach_referral(bob, "tok-3", server="eu") == second


def test_whoever_attaches_first_wins_the_race() -> None:
    alice, bob = UserFactory.create_batch(2)
    won: list[Referral] = []

    def other_process(execute: Callable[..., Any], *statement: Any) -> Any:
        """Comes in between our look for a referral and our insert, when we look for the referrer."""
        if get_user_model()._meta.db_table in statement[0] and not won:
            won.append(ReferralFactory.build(user=bob, token="tok-2"))
            won[0].save()
        return execute(*statement)

    with connection.execute_wrapper(other_process):
        referral = attach_referral(bob, "tok-1", code=str(alice.pk))
    assert [referral] == won
    assert (Referral.objects.get().token, OutboundEvent.objects.count()) == ("tok-2", 0)


def test_an_integrity_error_that_is_no_race_is_not_hidden() -> None:
    bob = UserFactory.create()
    with (
        pytest.raises(IntegrityError),
        transaction.atomic(),
        failing('INSERT INTO "mmolove_referral_referral"', IntegrityError("something else")),
    ):
        attach_referral(bob, "tok-1")
    assert not Referral.objects.exists()


@pytest.mark.parametrize("token", ["", "a b", "a" * 1025, "a\x00", "ä", None, 5])
def test_a_token_that_can_be_none_is_a_value_error_that_does_not_show_it(token: Any) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # compared in full below
        attach_referral(UserFactory.create(), token)
    assert str(caught.value) == "A referral token is 1 to 1,024 visible ASCII characters; this is none."
    assert not Referral.objects.exists()


@pytest.mark.parametrize("code", ["a b", "a/b", "a" * 256, "a\x00"])
def test_a_code_that_can_be_none_is_a_value_error(code: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # compared in full below
        attach_referral(UserFactory.create(), "tok-1", code=code)
    assert str(caught.value) == "A referrer code is 1 to 255 printable characters without spaces and slashes."


def test_a_visitor_without_an_account_cannot_be_referred() -> None:
    unsaved = [] if OWN_USER_MODEL else [get_user_model()()]  # a UUID key is there before the account is
    for nobody in (AnonymousUser(), *unsaved):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # compared in full below
            attach_referral(nobody, "tok-1")
        assert str(caught.value) == "Only an account can be referred, and this visitor has none."


def test_an_unknown_server_is_an_error_that_names_the_known(eu: None) -> None:
    bob = UserFactory.create()
    message = "There is no server 'atlantis' in MMOLOVE_REFERRAL['SERVERS']; there is 'default', 'eu'."
    calls: list[Callable[[], object]] = [
        lambda: attach_referral(bob, "tok-1", server="atlantis"),
        lambda: share_link(bob, server="atlantis"),
        *(lambda verb=verb: verb(bob, server="atlantis") for verb in VERBS),
    ]
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize("identity", ["", " \t", None])
def test_an_account_without_an_identity_is_an_error_that_names_the_setting(
    identity: object, configure: Callable[..., None]
) -> None:
    configure(REFEREE_IDENTITY=lambda user: identity)
    with pytest.raises(ImproperlyConfigured) as caught, transaction.atomic():
        attach_referral(UserFactory.create(), "tok-1")
    assert str(caught.value) == (
        "MMOLOVE_REFERRAL['REFEREE_IDENTITY'] must give each account an identity that is not empty."
    )
    assert not Referral.objects.exists()


def test_the_identity_may_be_another_attribute_or_a_callable(configure: Callable[..., None]) -> None:
    bob, carol = UserFactory.create(name="bob@example.com"), UserFactory.create()
    configure(REFEREE_IDENTITY=get_user_model().USERNAME_FIELD)
    assert content(attach_referral(bob, "t").events.get().body)["referee_identity"] == "bob@example.com"
    configure(REFEREE_IDENTITY=lambda user: f" player-{user.pk}\n")
    assert content(attach_referral(carol, "t").events.get().body)["referee_identity"] == f"player-{carol.pk}"


def test_the_keys_come_from_the_account_not_from_its_identity(configure: Callable[..., None]) -> None:
    configure(REFEREE_IDENTITY=lambda user: "renamed")
    bob = UserFactory.create()
    attach_referral(bob, "tok-1")
    mark_qualified(bob)
    mark_reversed(bob)
    keys = OutboundEvent.objects.order_by("pk").values_list("server_event_id", flat=True)
    assert list(keys) == [f"reg-{bob.pk}", f"qual-{bob.pk}", f"rev-{bob.pk}"]


def test_a_lazy_user_is_an_account_like_any_other() -> None:
    bob = UserFactory.create()
    lazy: Any = SimpleLazyObject(lambda: bob)
    referral = attach_referral(lazy, "tok-1")
    assert (referral.user, mark_qualified(lazy)) == (bob, referral.events.get(kind="qualified"))


@pytest.mark.skipif(OWN_USER_MODEL, reason="about auth.User")
@pytest.mark.parametrize("kind", ["ProxyAccount", "ChildAccount"])
def test_a_referral_belongs_to_the_account_whatever_its_class(kind: str) -> None:
    special: Any = apps.get_model("testapp", kind)._default_manager.create(username="bob")
    plain = get_user_model()._default_manager.get()
    referral = attach_referral(special, "tok-1")
    assert attach_referral(plain, "tok-2") == referral
    event = mark_qualified(plain)
    assert event is not None
    assert mark_qualified(special) == event


def test_the_news_of_an_attached_referral_waits_for_the_commit(
    hear: Hear, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    captured = hear(signals.referral_captured)
    with django_capture_on_commit_callbacks(execute=True):
        referral = attach_referral(UserFactory.create(), "tok-1")
        assert captured == []
    assert captured == [{"referral": referral}]
    with django_capture_on_commit_callbacks(execute=True):
        attach_referral(referral.user, "tok-2")
    assert len(captured) == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_was_never_said(hear: Hear) -> None:
    news = [hear(signal) for signal in (signals.referral_captured, signals.referral_reversed)]
    bob = UserFactory.create()
    with transaction.atomic():
        attach_referral(bob, "tok-1")
        mark_qualified(bob)
        mark_reversed(bob)
        transaction.set_rollback(True)
    assert (Referral.objects.count(), OutboundEvent.objects.count()) == (0, 0)
    assert news == [[], []]


# -- accounts without a referral


@pytest.mark.parametrize("verb", VERBS)
def test_an_unreferred_account_costs_one_query_and_gets_none(verb: Any, django_assert_num_queries: Any) -> None:
    bob = UserFactory.create()
    with django_assert_num_queries(1):
        assert verb(bob) is None
    with django_assert_num_queries(1):
        assert verb(bob, server="default") is None


@pytest.mark.parametrize("verb", VERBS)
def test_an_anonymous_visitor_costs_no_query_and_gets_none(verb: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert verb(AnonymousUser()) is None
        assert verb(SimpleLazyObject(AnonymousUser), server="default") is None


def test_the_portals_milestone_view_works_for_everybody() -> None:
    visitor, member = Browser(), Browser()
    UserFactory.create(name="bob@example.com")
    member.log_in()
    for url in ("/milestone/", "/amilestone/"):
        assert visitor.post(url).content == b"none"
        assert member.post(url).content == b"none"
    attach_referral(get_user_model()._default_manager.get(), "tok-1")
    assert member.post("/milestone/").content == b"waiting"
    assert Browser(asgi=True).post("/amilestone/").content == b"none"


# -- several servers


@pytest.mark.parametrize("verb", VERBS)
def test_with_referrals_on_several_servers_one_has_to_be_named(verb: Any, eu: None) -> None:
    bob = UserFactory.create()
    attach_referral(bob, "tok-1")
    second = attach_referral(bob, "tok-2", server="eu")
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # compared in full below
        verb(bob)
    assert str(caught.value) == (
        "This account has referrals on several servers; say which with server=…: 'default', 'eu'."
    )
    assert verb(bob, server="eu").referral == second
    assert OutboundEvent.objects.filter(referral__server="default").count() == 1


def test_the_only_referral_needs_no_name_wherever_it_is(eu: None) -> None:
    bob = UserFactory.create()
    referral = attach_referral(bob, "tok-1", server="eu")
    event = mark_qualified(bob)
    assert event is not None
    assert (event.referral, event.server) == (referral, "eu")
    assert mark_qualified(bob, server="default") is None


# -- mark_registered


def test_registered_may_be_written_later(configure: Callable[..., None]) -> None:
    configure(AUTO_REGISTER=False)
    bob = UserFactory.create()
    referral = attach_referral(bob, "tok-1")
    assert not OutboundEvent.objects.exists()
    event = mark_registered(bob)
    assert event is not None
    assert (event.referral, event.kind, event.state) == (referral, "registered", "pending")
    assert content(event.body)["token"] == "tok-1"
    assert mark_registered(bob) == event
    assert OutboundEvent.objects.count() == 1


def test_registered_is_written_once_with_the_sign_up() -> None:
    bob = UserFactory.create()
    referral = attach_referral(bob, "tok-1")
    assert mark_registered(bob) == referral.events.get()
    assert OutboundEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_sign_up_without_auto_register_waits_for_the_confirmation(configure: Callable[..., None]) -> None:
    configure(AUTO_REGISTER=False)
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up()
    bob = get_user_model()._default_manager.get()
    assert not OutboundEvent.objects.exists()
    event = mark_registered(bob)
    assert event is not None
    assert event.server_event_id == f"reg-{bob.pk}"


@pytest.mark.django_db(transaction=True)
def test_a_milestone_before_the_confirmation_leaves_after_it(
    configure: Callable[..., None],
    mint: Callable[..., str],
    drain: Callable[..., Any],
    granted: Granted,
    table: Table,
) -> None:
    configure(AUTO_REGISTER=False)
    bob = UserFactory.create()
    referral = attach_referral(bob, mint())
    mark_qualified(bob)
    drain()
    assert table.states() == {"qualified": "waiting"}
    mark_registered(bob)
    drain()
    assert table.states() == {"qualified": "accepted", "registered": "accepted"}
    assert granted == [referral]


# -- mark_qualified


def test_qualified_waits_for_registered() -> None:
    bob = UserFactory.create()
    attach_referral(bob, "tok-1")
    event = mark_qualified(bob)
    assert event is not None
    assert (event.kind, event.state, event.server_event_id) == ("qualified", "waiting", f"qual-{bob.pk}")
    assert "referee_identity" not in content(event.body)


def test_qualified_is_pending_once_registered_was_accepted() -> None:
    referral = registered()
    event = mark_qualified(referral.user)
    assert event is not None
    assert event.state == "pending"


def test_however_often_it_is_said_there_is_one_qualified() -> None:
    bob = UserFactory.create()
    attach_referral(bob, "tok-1")
    assert len({mark_qualified(bob) for _ in range(3)}) == 1
    assert OutboundEvent.objects.filter(kind="qualified").count() == 1


@pytest.mark.parametrize("state", ["conflict", "reversed", "expired"])
def test_a_referral_that_has_ended_gets_no_new_events(state: str) -> None:
    referral = ReferralFactory.create(state=state)
    assert [verb(referral.user) for verb in VERBS] == [None, None, None]
    assert not OutboundEvent.objects.exists()


@pytest.mark.parametrize("state", ["conflict", "reversed", "expired"])
def test_a_referral_that_has_ended_still_shows_its_events(state: str) -> None:
    event = qualified(state="accepted")
    Referral.objects.update(state=state)
    assert mark_qualified(event.referral.user) == event


# -- mark_reversed


def test_reversing_before_anything_was_sent_cancels_qualified_and_follows_registered() -> None:
    bob = UserFactory.create()
    referral = attach_referral(bob, "tok-1")
    mark_qualified(bob)
    event = mark_reversed(bob)
    assert event is not None
    assert (event.kind, event.state, event.server_event_id) == ("reversed", "waiting", f"rev-{bob.pk}")
    states = {event.kind: (event.state, event.reason) for event in referral.events.all()}
    assert states == {
        "registered": ("pending", ""),
        "qualified": ("cancelled", "reversed"),
        "reversed": ("waiting", ""),
    }
    referral.refresh_from_db()
    assert referral.state == "reversed"
    assert referral.closed_at is not None


@pytest.mark.parametrize("fields", [{"frozen": True}, {"claim": uuid4()}], ids=["attempted", "claimed"])
@pytest.mark.parametrize("state", ["pending"])
def test_a_qualified_that_may_have_been_sent_is_followed_by_reversed(fields: dict[str, Any], state: str) -> None:
    event = qualified(state=state, **fields)
    reversal = mark_reversed(event.referral.user)
    event.refresh_from_db()
    assert event.state == "pending"
    assert reversal is not None
    assert reversal.state == "waiting"


@pytest.mark.parametrize("state", ["accepted", "rejected", "exhausted", "cancelled"])
def test_after_a_settled_qualified_reversed_leaves_at_once(state: str) -> None:
    event = qualified(state=state, frozen=True)
    reversal = mark_reversed(event.referral.user)
    event.refresh_from_db()
    assert event.state == state
    assert reversal is not None
    assert reversal.state == "pending"


def test_reversing_a_registered_referral_reports_it_at_once() -> None:
    reversal = mark_reversed(registered().user)
    assert reversal is not None
    assert reversal.state == "pending"


@pytest.mark.parametrize(
    ("before", "after"), [("due", "cancelled"), ("granted", "granted"), ("cancelled", "cancelled")]
)
def test_reversing_cancels_a_due_reward_and_keeps_a_granted_one(before: str, after: str) -> None:
    event = qualified(state="accepted", frozen=True)
    reward = RewardFactory.create(referral=event.referral, state=before)
    mark_reversed(event.referral.user)
    reward.refresh_from_db()
    assert reward.state == after


def test_reversing_twice_is_reversing_once(hear: Hear, django_capture_on_commit_callbacks: Callable[..., Any]) -> None:
    reversals = hear(signals.referral_reversed)
    referral = registered()
    with django_capture_on_commit_callbacks(execute=True):
        first = mark_reversed(referral.user)
        assert mark_reversed(referral.user) == first
        assert reversals == []
    assert [news | {"referral": news["referral"].pk} for news in reversals] == [
        {"referral": referral.pk, "event": first, "response": {}}
    ]


def test_nothing_qualifies_after_a_reversal() -> None:
    referral = registered()
    mark_reversed(referral.user)
    assert mark_qualified(referral.user) is None
    assert {event.kind for event in referral.events.all()} == {"registered", "reversed"}


@pytest.mark.django_db(transaction=True)
def test_a_reversed_referral_pays_nobody(
    mint: Callable[..., str], drain: Callable[..., Any], granted: Granted, table: Table
) -> None:
    bob = UserFactory.create()
    attach_referral(bob, mint())
    mark_qualified(bob)
    mark_reversed(bob)
    drain()
    assert table.states() == {"registered": "accepted", "qualified": "cancelled", "reversed": "accepted"}
    assert granted == []
    assert not Reward.objects.exists()


# -- async


@pytest.mark.django_db(transaction=True)
def test_every_verb_has_an_async_form(configure: Callable[..., None]) -> None:
    configure(AUTO_REGISTER=False)
    bob = UserFactory.create()

    async def journey() -> tuple[Any, ...]:
        return (
            await aattach_referral(bob, "tok-1", code="nobody"),
            await amark_registered(bob),
            await amark_qualified(bob, server="default"),
            await amark_reversed(bob),
            await ashare_link(bob),
        )

    referral, *events, link = async_to_sync(journey)()
    assert (referral.token, referral.referrer_code) == ("tok-1", "nobody")
    assert [event.kind for event in events] == ["registered", "qualified", "reversed"]
    assert link == share_link(bob)


# -- deleting accounts


def delete_instance(user: Any) -> None:
    user.delete()


def delete_by_query(user: Any) -> None:
    get_user_model()._default_manager.filter(pk=user.pk).delete()


@pytest.mark.parametrize("delete", [delete_instance, delete_by_query])
def test_deleting_an_account_cancels_what_is_open_and_blanks_what_names_it(delete: Callable[[Any], None]) -> None:
    bob = UserFactory.create()
    referral = attach_referral(bob, "tok-1")
    mark_qualified(bob)
    delete(bob)
    referral.refresh_from_db()
    assert (referral.user, referral.token) == (None, "")
    rows = [(e.kind, e.state, e.reason, bytes(e.body)) for e in referral.events.order_by("pk")]
    assert rows == [("registered", "cancelled", "deleted", b""), ("qualified", "cancelled", "deleted", b"")]
    assert all(event.settled_at is not None for event in referral.events.all())


def test_deleting_an_account_keeps_the_record_of_what_was_settled() -> None:
    event = qualified(state="accepted", outcome="advanced")
    get_user_model()._default_manager.get().delete()
    event.refresh_from_db()
    assert (event.state, event.outcome, event.reason, bytes(event.body)) == ("accepted", "advanced", "", b"")


def test_deleting_an_account_touches_no_other() -> None:
    bob, carol = UserFactory.create_batch(2)
    attach_referral(bob, "tok-1")
    other = attach_referral(carol, "tok-1")
    bob.delete()
    other.refresh_from_db()
    assert (other.user, other.token, other.events.get().state) == (carol, "tok-1", "pending")


def test_deleting_the_referrer_keeps_the_referral() -> None:
    alice, bob = UserFactory.create_batch(2)
    referral = attach_referral(bob, "tok-1", code=str(alice.pk))
    alice.delete()
    referral.refresh_from_db()
    assert (referral.referrer, referral.token, referral.events.get().state) == (None, "tok-1", "pending")


def test_deleting_an_unreferred_account_costs_one_query_of_ours() -> None:
    bob = UserFactory.create()
    with CaptureQueriesContext(connection) as captured:
        bob.delete()
    ours = [query["sql"] for query in captured.captured_queries if "mmolove" in query["sql"].split("WHERE")[0]]
    assert [sql.split()[0] for sql in ours].count("SELECT") == 1


@pytest.mark.skipif(OWN_USER_MODEL, reason="about auth.User")
@pytest.mark.parametrize("kind", ["ProxyAccount", "ChildAccount"])
def test_deleting_a_subclass_of_the_user_model_is_deleting_the_account(kind: str) -> None:
    special: Any = apps.get_model("testapp", kind)._default_manager.create(username="bob")
    referral = attach_referral(special, "tok-1")
    special.delete()
    referral.refresh_from_db()
    assert (referral.user, referral.token, referral.events.get().state) == (None, "", "cancelled")


def test_trouble_of_ours_keeps_no_account_from_being_deleted(caplog: pytest.LogCaptureFixture) -> None:
    bob = UserFactory.create()
    referral = attach_referral(bob, "tok-1")
    with failing('UPDATE "mmolove_referral_outboundevent"', IntegrityError("trouble")):
        bob.delete()
    assert not get_user_model()._default_manager.exists()
    assert caplog.messages == ["The referrals of a deleted account could not be closed; the deletion goes on."]
    referral.refresh_from_db()
    assert referral.user is None
