"""What the app holds about one account: handed out, erased, and written down in docs/privacy.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.views.debug import ExceptionReporter

from django_mmolove_referral import attach_referral, mark_qualified, mark_reversed, privacy, protocol
from django_mmolove_referral.capture import SESSION_KEY
from django_mmolove_referral.conf import conf
from django_mmolove_referral.delivery import retention
from django_mmolove_referral.delivery.blank import ANSWERED, forget
from django_mmolove_referral.delivery.rewards import grant_due
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward
from django_mmolove_referral.protocol import Kind
from django_mmolove_referral.record import Record
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault

from .clock import let_pass
from .conftest import Granted, Table
from .factories import EventFactory, ReferralFactory, RewardFactory
from .pages import DOCS, code
from .portal import create
from .test_interleavings import overlap, take
from .visitors import OWN_USER_MODEL

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "bobs-token-0123456789"
IDENTITY = "Bob-of-the-North"
DAY = 86_400
CODE = "alice-of-the-south"


@pytest.fixture
def named(configure: Callable[..., None]) -> None:
    """Accounts go by names, in what MMOLove is sent and in share links."""
    configure(REFEREE_IDENTITY=lambda user: IDENTITY, RESOLVE_REFERRER=None)


@pytest.fixture
def alice() -> Any:
    return create("alice@example.com")


@pytest.fixture
def bob(alice: Any, named: None, sandbox: Sandbox, drain: Callable[..., Any]) -> Any:
    """Referred by Alice; MMOLove refuses him, and repeats everything in its own words."""
    user = create("bob@example.com")
    referral = attach_referral(user, TOKEN)
    Referral.objects.update(referrer=alice, referrer_code=CODE)
    words = {"error": f"{IDENTITY} with {TOKEN} is busy", "who": IDENTITY}
    sandbox.script(Fault(status=503, body=words))
    drain()
    OutboundEvent.objects.update(last_error=f"HTTP 503: {IDENTITY}")
    RewardFactory.create(referral=referral, last_error=f"KeyError: {IDENTITY} has no purse", attempts=1)
    mark_qualified(user)
    return user


def stored() -> str:
    """All columns of all rows, as text."""
    rows: list[dict[str, Any]] = [
        {**row, "body": bytes(row.get("body", b"")).decode()}
        for model in apps.get_app_config("mmolove_referral").get_models()
        for row in model._default_manager.values()
    ]
    return json.dumps(rows, default=str, ensure_ascii=False)


# -- deletion


def by_instance(user: Any, client: Client) -> None:
    user.delete()


def by_query(user: Any, client: Client) -> None:
    get_user_model()._default_manager.filter(pk=user.pk).delete()


def by_page(user: Any, client: Client) -> None:
    meta = user._meta
    url = reverse(f"admin:{meta.app_label}_{meta.model_name}_delete", args=[user.pk])
    assert client.post(url, {"post": "yes"}).status_code == 302


def by_action(user: Any, client: Client) -> None:
    meta = user._meta
    data = {"action": "delete_selected", "_selected_action": [user.pk], "post": "yes"}
    assert client.post(reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist"), data).status_code == 302


def by_hand(user: Any, client: Client) -> None:
    """The account's own data is the portal's business."""
    privacy.erase(user)
    get_user_model()._base_manager.filter(pk=user.pk).update(**{user.USERNAME_FIELD: "gone@example.com"})


IN_THE_ADMIN = [] if OWN_USER_MODEL else [by_page, by_action]  # where that one is not registered
ways = pytest.mark.parametrize("way", [by_instance, by_query, by_hand, *IN_THE_ADMIN])


@pytest.fixture
def owner(client: Client) -> Client:
    model = get_user_model()
    extra = {} if model.USERNAME_FIELD == "email" else {"email": "owner@example.com"}
    name = {model.USERNAME_FIELD: "owner@example.com"}
    client.force_login(model._default_manager.create_superuser(**name, password="pw", **extra))
    return client


@ways
def test_nothing_personal_is_left_of_an_account(
    way: Callable[..., None], bob: Any, owner: Client, table: Table
) -> None:
    before = stored()
    assert (TOKEN in before, IDENTITY in before) == (True, True)
    key = bob.pk
    way(bob, owner)
    left = stored()
    for word in (TOKEN, TOKEN[:4], IDENTITY, "Bob", "bob@"):
        assert word not in left
    referral, event = table.referral, table.event("registered")
    assert table.states() == {"registered": "cancelled", "qualified": "cancelled"}
    assert (referral.user_id, referral.token) == (key if way is by_hand else None, "")
    assert (bytes(event.body), event.last_error, event.server_event_id) == (b"", "HTTP 503", f"reg-{key}")
    assert (table.reward.state, table.reward.last_error) == ("due", "KeyError")
    assert [(row.status, row.error, row.answer) for row in DeliveryAttempt.objects.all()] == [(503, "HTTP 503", "")]


@ways
def test_nothing_personal_is_left_of_a_referrer(
    way: Callable[..., None], bob: Any, owner: Client, table: Table
) -> None:
    alice = table.referral.referrer
    assert alice is not None
    assert CODE in stored()
    way(alice, owner)
    assert CODE not in stored()
    referral = table.referral
    assert (referral.referrer_id, referral.referrer_code) == (alice.pk if way is by_hand else None, "")
    assert (referral.token, referral.user) == (TOKEN, bob), "Bob's own is not touched"
    assert table.event("registered").open


def test_a_reward_whose_referrer_is_gone_is_granted_to_nobody(bob: Any, granted: Granted, table: Table) -> None:
    """The receiver is told once, with no referrer, as for any whom nobody knows."""
    EventFactory.create(referral=ReferralFactory.create())  # another one's, which has nothing to do with it
    OutboundEvent.objects.filter(referral__user=bob).update(state="accepted")
    Reward.objects.update(due_at=timezone.now(), attempts=0)
    referrer = Referral.objects.get(user=bob).referrer
    assert referrer is not None
    referrer.delete()
    let_pass(1)
    assert grant_due(using="default") == 1
    (referral,) = granted
    assert (referral.referrer, referral.referrer_code) == (None, "")


def test_a_deletion_that_is_rolled_back_blanks_nothing(bob: Any, table: Table) -> None:
    before = stored()
    for account in get_user_model()._default_manager.all():
        with transaction.atomic():
            account.delete()
            assert stored() != before, "Alice's name is in it, or Bob's"
            transaction.set_rollback(True)
        assert stored() == before
    with transaction.atomic():
        privacy.erase(bob)
        transaction.set_rollback(True)
    assert stored() == before


def test_an_account_is_deleted_while_a_worker_sends_its_event(bob: Any, table: Table) -> None:
    OutboundEvent.objects.filter(kind="registered").update(claim=None, due_at="2026-01-01T00:00Z")
    (event,) = take()
    bob.delete()
    row = table.event("registered")
    assert (row.state, row.claim, row.frozen, bytes(row.body)) == ("cancelled", None, True, b"")
    assert take() == []
    assert event.token == TOKEN, "what is on its way cannot be called back"


def test_the_database_keeps_sql_from_deleting_an_account_past_the_app(bob: Any) -> None:
    meta, model = bob._meta, get_user_model()
    name, column = (connection.ops.quote_name(text) for text in (meta.db_table, meta.pk.column))

    def by_sql() -> None:
        key = meta.pk.get_db_prep_value(bob.pk, connection)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {name} WHERE {column} = %s", [key])
            connection.check_constraints()

    def raw() -> None:
        with transaction.atomic():
            model._base_manager.filter(pk=bob.pk)._raw_delete("default")
            connection.check_constraints()

    for way in (by_sql, raw):
        with pytest.raises(IntegrityError):
            way()
    privacy.erase(bob)
    assert TOKEN not in stored()


@pytest.mark.skipif(OWN_USER_MODEL, reason="about auth.User")
@pytest.mark.parametrize("kind", ["ProxyAccount", "ChildAccount"])
@pytest.mark.parametrize("erase", [lambda user: user.delete(), privacy.erase], ids=["deleted", "erased"])
def test_subclasses_of_the_user_model(kind: str, erase: Callable[[Any], object], table: Table) -> None:
    manager: Any = apps.get_model("testapp", kind)._default_manager
    special, friend = manager.create(username="bob"), manager.create(username="friend")
    attach_referral(special, TOKEN)
    referral = attach_referral(friend, "friends-token", code=str(special.pk))
    assert len(privacy.export(special)["invited"]) == 1
    erase(special)
    referral.refresh_from_db()
    assert TOKEN not in stored()
    assert (referral.referrer_code, referral.token) == ("", "friends-token")


def test_a_referrer_of_many_is_locked_in_everybodys_order(alice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.delivery.blank.LOCKED_AT_ONCE", 4)
    for number in range(10):
        ReferralFactory.create(user=create(f"p{number}@example.com"), referrer=alice, referrer_code=CODE)
    attach_referral(alice, TOKEN)
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        assert forget(alice, using="default") == 1
    sql = [query["sql"].replace("`", '"') for query in queries.captured_queries]
    locks = [line for line in sql if "FOR UPDATE" in line and 'FROM "mmolove_referral_referral"' in line]
    if connection.features.has_select_for_update:
        assert len(locks) == 4  # 11 in fours, and her own once more, with its events
        assert all('ORDER BY "mmolove_referral_referral"."id" ASC' in line for line in locks)
    assert CODE not in stored()
    assert len(sql) < 30


def test_two_erase_the_same_account_at_once(bob: Any) -> None:
    assert overlap(lambda: privacy.erase(bob), lambda: privacy.erase(bob)) == (1, 1)
    assert TOKEN not in stored()


def test_an_erased_account_is_reported_no_more(
    bob: Any, sandbox: Sandbox, drain: Callable[..., Any], table: Table
) -> None:
    privacy.erase(bob)
    before = len(sandbox.log)
    assert mark_qualified(bob) == table.event("qualified")
    assert attach_referral(bob, "another-token") == table.referral
    drain()
    assert (len(sandbox.log), table.referral.token) == (before, "")
    event = mark_reversed(bob)
    assert event is not None
    assert (event.state, event.reason, table.reward.state) == ("cancelled", "blanked", "cancelled")


def test_an_account_that_nobody_referred_is_erased_in_a_query(
    alice: Any, django_assert_num_queries: Callable[..., Any]
) -> None:
    with transaction.atomic(), django_assert_num_queries(3):  # the savepoint's two
        assert privacy.erase(alice) == 0


@pytest.mark.parametrize("verb", [privacy.erase, privacy.export])
def test_whoever_has_no_account_has_no_data(verb: Callable[[Any], object], alice: Any) -> None:
    alice.delete()
    for nobody in (AnonymousUser(), alice):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # compared in full below
            verb(nobody)
        assert str(caught.value) == "Only an account has data here, and this is none, or one that has been deleted."


# -- export


def export(*arguments: str) -> Any:
    out = StringIO()
    call_command("mmolove_export", *arguments, stdout=out)
    return json.loads(out.getvalue())


@pytest.fixture
def through(
    named: None, alice: Any, sandbox: Sandbox, mint: Callable[..., str], drain: Callable[..., Any], granted: Granted
) -> Any:
    """An account that came by Alice's link, and for which she has been rewarded."""
    user = create("quentin@example.com")
    attach_referral(user, mint(), code=str(alice.pk))
    mark_qualified(user)
    drain()
    assert len(granted) == 1
    return user


def test_who_was_referred_gets_all_of_their_own(through: Any, alice: Any, table: Table) -> None:
    found = privacy.export(through)
    assert found["account"] == {"model": through._meta.label_lower, "primary_key": str(through.pk)}
    (referral,) = found["referrals"]
    row = table.referral
    assert (referral["token"], referral["blanked"], referral["state"]) == (row.token, False, "qualified")
    assert referral["referral_id_at_mmolove"] == row.referral_id
    assert row.qualified_at is not None
    assert referral["qualified_at"] == row.qualified_at.isoformat()
    registered, qualified = referral["events"]
    assert registered["sent_to_mmolove"]["referee_identity"] == IDENTITY
    assert registered["sent_to_mmolove"]["token"] == row.token
    assert [event["kind"] for event in referral["events"]] == ["registered", "qualified"]
    assert qualified["answer"]["state"] == "qualified"
    (attempt,) = qualified["attempts"]
    assert (attempt["status"], attempt["error"], attempt["late"]) == (200, None, False)
    assert json.loads(attempt["answer"])["ok"] is True
    assert found["invited"] == []
    whole = json.dumps(found)
    assert "alice" not in whole
    assert "referrer" not in whole


def test_a_referrer_gets_their_part_and_nothing_of_the_others(through: Any, alice: Any, table: Table) -> None:
    found = privacy.export(alice)
    assert found["referrals"] == []
    (one,) = found["invited"]
    reward = one.pop("reward")
    assert one == {
        "referral": table.referral.pk,
        "server": "default",
        "code": str(alice.pk),
        "attached_at": table.referral.created_at.isoformat(),
    }
    assert table.reward.granted_at is not None
    assert (reward["state"], reward["granted_at"]) == ("granted", table.reward.granted_at.isoformat())
    whole = json.dumps({**found, "invited": [reward]})
    for theirs in (table.referral.token, table.referral.referral_id, "quentin", IDENTITY):
        assert theirs not in whole
    assert f'"{through.pk}"' not in whole


#: What an export leaves out, and why.
LEFT_OUT = {
    "Referral.user": "the account itself, which the file is about",
    "Referral.referrer": "another person's",
    "Referral.referrer_code": "another person's; the referrer's own export has it",
    "OutboundEvent.id": "a number of ours",
    "OutboundEvent.referral": "the entry that it stands in",
    "OutboundEvent.server": "its referral's",
    "OutboundEvent.frozen": "how it is delivered",
    "OutboundEvent.due_at": "how it is delivered",
    "OutboundEvent.claim": "how it is delivered",
    "DeliveryAttempt.id": "a number of ours",
    "DeliveryAttempt.event": "the entry that it stands in",
    "Reward.id": "a number of ours",
    "Reward.referral": "the entry that it stands in",
    "Reward.last_error": "in the words of the portal's receiver, who may name others",
}
CALLED = {
    "Referral.id": "referral",
    "Referral.referral_id": "referral_id_at_mmolove",
    "Referral.created_at": "attached_at",
    "Referral.pruned": "pruned_events",
    "OutboundEvent.server_event_id": "idempotency_key",
    "OutboundEvent.body": "sent_to_mmolove",
    "OutboundEvent.response": "answer",
    "OutboundEvent.attempted_at": "last_attempt_at",
    "Reward.attempts": "failed_attempts",
}


def test_an_export_has_every_column_or_a_reason(through: Any, alice: Any) -> None:
    (referral,), (invited,) = privacy.export(through)["referrals"], privacy.export(alice)["invited"]
    event = referral["events"][0]
    entries = {
        Referral: referral,
        OutboundEvent: event,
        DeliveryAttempt: event["attempts"][0],
        Reward: invited["reward"],
    }
    for model, entry in entries.items():
        for field in model._meta.concrete_fields:
            name = f"{model.__name__}.{field.name}"
            assert (CALLED.get(name, field.name) in entry) != (name in LEFT_OUT), name


def test_a_blanked_referral_is_exported_as_such(through: Any) -> None:
    privacy.erase(through)
    (referral,) = export(str(through.pk))["referrals"]
    assert (referral["token"], referral["blanked"]) == (None, True)
    assert [event["sent_to_mmolove"] for event in referral["events"]] == [None, None]


def test_the_command_writes_what_the_function_gives(through: Any, alice: Any) -> None:
    name = alice.USERNAME_FIELD
    for user in (through, alice):
        by_key, by_name = export(str(user.pk)), export(user.get_username(), "--by", name)
        given = privacy.export(user)
        for found in (by_key, by_name, given):
            found.pop("exported_at")
        assert by_key == by_name == json.loads(json.dumps(given))


def test_no_export_holds_a_secret(through: Any, alice: Any, configure: Callable[..., None]) -> None:
    for secret in ("test-secret", lambda: "test-secret"):
        configure(SECRET=secret)
        assert "test-secret" not in json.dumps([export(str(user.pk)) for user in (through, alice)])


@pytest.mark.parametrize("at", ["_event", "_attempt", "_iso", "invited"])
def test_an_export_that_fails_shows_no_token_in_its_report(
    at: str, through: Any, table: Table, monkeypatch: pytest.MonkeyPatch, rf: RequestFactory, settings: Any
) -> None:
    def explode(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(privacy, at, explode)
    for work in (
        lambda: privacy.export(through),
        lambda: call_command("mmolove_export", str(through.pk), stdout=StringIO()),
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            work()
        for settings.DEBUG in (True, False):
            reporter = ExceptionReporter(rf.get("/my-data/"), caught.type, caught.value, caught.tb)
            report = reporter.get_traceback_html() + reporter.get_traceback_text()
            assert "explode" in report
            assert table.referral.token not in report


def test_an_account_is_found_by_what_it_logs_in_with(alice: Any) -> None:
    """Whatever the user model calls that."""
    out = StringIO()
    call_command("mmolove_export", alice.get_username(), "--by", "username", stdout=out)
    assert json.loads(out.getvalue())["account"] == privacy.export(alice)["account"]


def test_a_referrer_of_many_is_written_one_by_one(alice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "CHUNK", 10)
    for number in range(35):
        ReferralFactory.create(user=create(f"p{number}@example.com"), referrer=alice)
    written: list[int] = []
    real = privacy.invited

    def watched(user: Any) -> Iterator[dict[str, Any]]:
        for one in real(user):
            written.append(out.getvalue().count('"referral"'))
            yield one

    monkeypatch.setattr(privacy, "invited", watched)
    out = StringIO()
    with CaptureQueriesContext(connection) as queries:
        call_command("mmolove_export", str(alice.pk), stdout=out)
    assert written == list(range(35))
    assert len(json.loads(out.getvalue())["invited"]) == 35
    assert len(queries) == 2 + 1 + 4  # the account, its referrals; the keys, and four chunks


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["999999"], "There is no account with pk = '999999'. Give the account's primary key, or another field"),
        (["nobody@example.com", "--by", "email"], "There is no account with email = 'nobody@example.com'."),
        (["bob"], "'bob' can be no pk. Give the account's primary key, or another field with --by: --by username"),
        (["9" * 30], "pk"),
        (["x\0y", "--by", "email"], "email"),
        (["x", "--by", "shoe"], "--by shoe: the accounts ("),
        (["x", "--by", "groups"], "have no such field; they have pk, id, "),
        (["x", "--by", "email__startswith"], "have no such field"),
        ([], "USER"),
    ],
)
def test_an_account_that_cannot_be_found(arguments: list[str], words: str, alice: Any) -> None:
    if OWN_USER_MODEL and arguments[:1] in (["999999"], ["9" * 30]):
        words = "can be no pk"
    with pytest.raises(CommandError) as caught:
        export(*arguments)
    assert words in str(caught.value)


@pytest.mark.skipif(OWN_USER_MODEL, reason="its e-mail is unique")
def test_several_accounts_with_one_address() -> None:
    users: list[Any] = [create(f"twin{number}") for number in range(7)]
    get_user_model()._default_manager.update(email="twins@example.com")
    keys = ", ".join(str(user.pk) for user in users[:5])
    with pytest.raises(CommandError) as caught:
        export("twins@example.com", "--by", "email")
    assert str(caught.value) == (
        f"Several accounts have email = 'twins@example.com'. Name one by its primary key: {keys}, …."
    )


# -- docs/privacy.md

PAGE = (DOCS / "privacy.md").read_text("utf-8")
MODELS: dict[str, type[Any]] = {model.__name__: model for model in apps.get_app_config("mmolove_referral").get_models()}
ROWS = re.findall(r"^\| ((?:`\w+\.\w+`(?:, )?)+) \| (.+) \|$", PAGE, re.MULTILINE)
#: For each column of the page what is said of it: what it is, what a deletion does to it, what time does.
SAID = {name: cells.split(" | ") for names, cells in ROWS for name in re.findall(r"`(.+?)`", names)}


def test_the_page_has_every_column_and_no_other() -> None:
    columns = [f"{name}.{field.name}" for name, model in MODELS.items() for field in model._meta.concrete_fields]
    assert sorted(SAID) == sorted(columns)


@pytest.fixture
def full(named: None) -> dict[str, dict[str, Any]]:
    """A final referral with something in each of its columns; what is stored of it, by ``Model.field``."""
    alice, user = create("alice@example.com"), create("bob@example.com")
    referral = attach_referral(user, TOKEN)
    mark_qualified(user)
    old = timezone.now() - timedelta(days=5000)
    Referral.objects.update(
        referrer=alice, referrer_code=CODE, referral_id="ref_1", state="qualified", pruned="reversed",
        created_at=old, registered_at=old, qualified_at=old, closed_at=old,
    )  # fmt: skip
    OutboundEvent.objects.filter(kind="registered").delete()
    OutboundEvent.objects.update(
        state="cancelled", reason="operator", outcome="advanced", frozen=True, attempts=1, last_status=422,
        last_error=f"HTTP 422: {IDENTITY}", response={"ok": True, "who": IDENTITY}, claim=uuid4(),
        attempted_at=old, settled_at=old, due_at=old, created_at=old,
    )  # fmt: skip
    DeliveryAttempt.objects.create(
        event=OutboundEvent.objects.get(), started_at=old, duration_ms=5, signed_at=5, status=422, late=True,
        answer=f"{IDENTITY} again", error=f"HTTP 422: {IDENTITY}",
    )  # fmt: skip
    RewardFactory.create(
        referral=referral, state="granted", granted_at=old, attempts=1, last_error=f"KeyError: {IDENTITY}"
    )
    return columns()


def columns() -> dict[str, Any]:
    found = {}
    for name in ("Referral", "OutboundEvent", "DeliveryAttempt", "Reward"):
        (row,) = MODELS[name]._default_manager.all()
        for field in row._meta.concrete_fields:
            value = getattr(row, field.attname)
            found[f"{name}.{field.name}"] = bytes(value) if field.name == "body" else value
    return found


def assert_as_said(before: dict[str, Any], which: int) -> None:
    for name, now in columns().items():
        said = SAID[name][which].split(";")[0]
        assert before[name] not in ("", None, b"", {}), f"{name} shows nothing"
        if said in ("blanked", "emptied"):
            assert now in ("", None, b""), name
        elif said == "shortened":
            assert now != before[name], name
            assert now, name
        else:
            assert (said, now) == ("stays", before[name]), name


def test_what_the_page_says_of_deletion_is_so(full: dict[str, Any]) -> None:
    referral = Referral.objects.select_related("user").get()
    assert referral.user is not None
    referral.user.delete()
    assert_as_said(full, 1)


def test_what_the_page_says_of_a_deleted_referrer_is_so(full: dict[str, Any]) -> None:
    words = " when the referrer is deleted"
    told = {name: cells[1].partition("; ")[2].removesuffix(words) for name, cells in SAID.items() if len(cells) > 1}
    referral = Referral.objects.select_related("referrer").get()
    assert referral.referrer is not None
    referral.referrer.delete()
    changed = {name for name, value in columns().items() if value != full[name]}
    assert changed == {name for name, what in told.items() if what}
    assert {told[name] for name in changed} == {"emptied", "blanked"}


def test_what_the_page_says_of_time_is_so(full: dict[str, Any]) -> None:
    retention.look(using="default")
    assert_as_said(full, 2)


def test_what_the_page_says_of_the_session_is_so() -> None:
    """All that a visit may note is in the page's table."""
    assert SESSION_KEY == "mmolove_referral"
    noted = {"token", "server", "at", "code", "noted", "used", "owed_to"}
    assert set(Record.__dataclass_fields__) == noted


def test_what_is_sent_is_what_the_page_says() -> None:
    table = PAGE.partition("and no others:")[2].partition("\n\n|")[2].partition("\n\n")[0]
    said = re.findall(r"`(\w+)`", " ".join(line.split("|")[0 if line[0] != "|" else 1] for line in table.splitlines()))
    body = protocol.encode(Kind.REGISTERED, token="t", server_id="s", server_event_id="e", ts=1, referee_identity="i")
    assert sorted(set(said)) == sorted(json.loads(body))


def test_the_defaults_on_the_page() -> None:
    for name, seconds in (("TOKEN_MAX_AGE", conf.token_max_age), ("TOKEN_RETENTION", conf.token_retention)):
        assert seconds is not None
        assert f"| `{name}` | {seconds / DAY:g} days |" in PAGE
    assert f"the next {retention.WINDOW:,} referrals" in PAGE
    assert round(1_000_000 / retention.WINDOW * conf.sweep_interval / 3600) == 8
    kept = PAGE.partition("an answer the fields")[2].partition(", a receiver")[0]
    assert set(re.findall(r"`(\w+)`", kept)) == set(ANSWERED)


def test_the_setting_of_the_page(settings: Any) -> None:
    namespace: dict[str, Any] = {"timedelta": timedelta}
    exec(code("privacy.md", "TOKEN_RETENTION"), namespace)
    settings.MMOLOVE_REFERRAL = namespace["MMOLOVE_REFERRAL"]
    assert conf.token_retention == 30 * DAY


def test_the_portals_own_page_of_the_page(through: Any, rf: RequestFactory) -> None:
    namespace: dict[str, Any] = {}
    exec(code("privacy.md", "def my_data"), namespace)
    request: Any = rf.get("/my-data/")
    request.user = AnonymousUser()
    assert namespace["my_data"](request).status_code == 302
    request.user = through
    found = json.loads(namespace["my_data"](request).content)["referrals"]
    assert [one["state"] for one in found["referrals"]] == ["qualified"]


@pytest.mark.skipif(OWN_USER_MODEL, reason="about auth.User")
def test_making_an_account_anonymous_as_on_the_page(bob: Any, table: Table) -> None:
    namespace: dict[str, Any] = {}
    exec(code("privacy.md", "def make_anonymous"), namespace)
    namespace["make_anonymous"](bob)
    assert "Bob" not in stored()
    assert TOKEN not in stored()
    assert table.referral.user == bob
    assert bob.username == f"deleted-{bob.pk}"


def test_the_commands_of_the_page(through: Any) -> None:
    (by_key, by_email) = re.findall(r"^    python manage.py mmolove_export (.+)$", PAGE, re.MULTILINE)
    assert export(*by_key.replace("7842", str(through.pk)).split())["referrals"]
    get_user_model()._default_manager.filter(pk=through.pk).update(email="alice2@example.com")
    assert export(*by_email.replace("alice@", "alice2@").split())["referrals"]
