"""``TOKEN_RETENTION``: what is blanked when, what is lost with it, and that nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import DataError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_mmolove_referral import attach_referral, mark_qualified, mark_registered, mark_reversed, signals
from django_mmolove_referral.clock import DatabaseNow
from django_mmolove_referral.conf import ConfigError, conf
from django_mmolove_referral.delivery import retention
from django_mmolove_referral.delivery.claim import NEWEST, probe_subject
from django_mmolove_referral.delivery.operate import cancel, redeliver
from django_mmolove_referral.delivery.settle import settle
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault

from .clock import let_pass
from .conftest import Granted, Hear, Table
from .factories import EventFactory, ReferralFactory, UserFactory
from .portal import create
from .test_admin import page
from .test_interleavings import answered, at_once, both_orders, elsewhere, grant, overlap, take
from .visitors import failing

pytestmark = pytest.mark.django_db(transaction=True)

DAY = 86_400
STORED: list[type[Any]] = [Referral, OutboundEvent, DeliveryAttempt, Reward]
TOKEN = "a-token-that-somebody-came-with"


def member(client: Client, *permissions: str, **fields: bool) -> Client:
    """``client`` is the browser of a member of staff."""
    user = create(f"staff{get_user_model()._default_manager.count()}@example.com")
    user.is_staff = True
    for name, value in fields.items():
        setattr(user, name, value)
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def look() -> None:
    """A look, as if the last one were long ago."""
    for using, (at, _) in list(retention._looked.items()):
        retention._looked[using] = (at, -1e9)
    retention.look(using="default")


def blanked() -> set[int]:
    return set(Referral.objects.filter(token="").values_list("pk", flat=True))


@pytest.fixture
def qualified(sandbox: Sandbox, mint: Callable[..., str], granted: Granted, drain: Callable[..., Any]) -> Any:
    """An account that came by Alice's link; its milestone is credited, and Alice has her reward."""
    alice, user = create("alice@example.com"), create("quentin@example.com")
    attach_referral(user, mint(), code=str(alice.pk))
    mark_qualified(user)
    drain()
    assert len(granted) == 1
    return user


def ended(state: str, **fields: Any) -> Referral:
    """A referral that came to this end just now."""
    referral = ReferralFactory.create(state=state, token=TOKEN, referrer_code="alice", **fields)
    EventFactory.create(referral=referral, state="accepted", settled_at="2026-01-01T00:00Z", last_status=200)
    OutboundEvent.objects.update(settled_at=DatabaseNow())
    for name in {"registered": [], "captured": [], "qualified": ["qualified_at"]}.get(state, ["closed_at"]):
        Referral.objects.filter(pk=referral.pk).update(**{name: DatabaseNow()})
    return referral


# -- when


@pytest.mark.parametrize(
    ("state", "days"),
    [
        ("qualified", 180),
        ("conflict", 180),
        ("reversed", 180),
        ("expired", 180),
        ("captured", 90 + 180),
        ("registered", 90 + 180),
    ],
)
def test_a_referral_is_blanked_that_long_after_it_was_final(state: str, days: int, table: Table) -> None:
    referral = ended(state)
    let_pass(days * DAY - 60)
    look()
    assert (table.referral.token, table.referral.referrer_code) == (TOKEN, "alice")
    assert bytes(table.event("registered").body) != b""
    let_pass(120)
    look()
    row = table.referral
    assert (row.token, row.referrer_code, row.state, row.user) == ("", "", state, referral.user)
    event = table.event("registered")
    assert (bytes(event.body), event.state, event.server_event_id) == (b"", "accepted", f"reg-{row.user_id}")


def test_both_settings_count(configure: Callable[..., None]) -> None:
    configure(TOKEN_RETENTION=10 * DAY, TOKEN_MAX_AGE=20 * DAY)
    one, other = ended("qualified"), ended("registered")
    let_pass(11 * DAY)
    look()
    assert blanked() == {one.pk}
    let_pass(20 * DAY)
    look()
    assert blanked() == {one.pk, other.pk}


def test_none_keeps_all_for_ever(configure: Callable[..., None]) -> None:
    configure(TOKEN_RETENTION=None)
    ended("qualified")
    let_pass(10_000 * DAY)
    look()
    assert blanked() == set()


@pytest.mark.parametrize("value", ["180", 0, -1, True])
def test_a_wrong_value_names_the_setting(value: Any, configure: Callable[..., None]) -> None:
    configure(TOKEN_RETENTION=value)
    with pytest.raises(ConfigError, match=r"^MMOLOVE_REFERRAL\['TOKEN_RETENTION'\] must be a positive number"):
        _ = conf.token_retention


@pytest.mark.parametrize("state", ["pending", "waiting"])
def test_nothing_goes_while_something_is_open(state: str) -> None:
    referral = ended("registered")
    EventFactory.create(referral=referral, kind="qualified", state=state)
    let_pass(10_000 * DAY)
    look()
    assert blanked() == set()


def test_nothing_goes_while_a_reward_is_due(qualified: Any, granted: Granted) -> None:
    Reward.objects.update(state="due", granted_at=None)
    let_pass(10_000 * DAY)
    look()
    assert blanked() == set()
    grant()
    look()
    assert blanked() == set(), "the referrer may ask about it for as long as about any other"
    let_pass(181 * DAY)
    look()
    assert len(blanked()) == 1


@pytest.mark.parametrize("state", ["rejected", "exhausted", "cancelled"])
def test_what_failed_may_be_redelivered_as_long_as_anything_else_is_kept(state: str) -> None:
    """A ``qualified`` that failed late, when ``registered`` was old."""
    referral = ended("registered")
    let_pass(269 * DAY)
    EventFactory.create(referral=referral, kind="qualified", state=state, settled_at=DatabaseNow())
    let_pass(179 * DAY)
    look()
    assert blanked() == set()
    let_pass(2 * DAY)
    look()
    assert blanked() == {referral.pk}


def test_the_slowest_player_there_is_qualifies_within_the_time(
    sandbox: Sandbox, mint: Callable[..., str], drain: Callable[..., Any], granted: Granted, table: Table
) -> None:
    user = create("slow@example.com")
    attach_referral(user, mint())
    drain()
    let_pass(269 * DAY)
    look()
    mark_qualified(user)
    drain()
    assert table.states() == {"registered": "accepted", "qualified": "accepted"}
    assert [referral.user for referral in granted] == [user]


def test_an_account_that_is_gone_without_our_having_been_told(configure: Callable[..., None], table: Table) -> None:
    """Deleted by SQL, or while the database failed: made up for by the next look, whatever the settings say."""
    configure(TOKEN_RETENTION=None)
    alice, user = create("alice@example.com"), create("bob@example.com")
    attach_referral(user, TOKEN, code=str(alice.pk))
    mark_qualified(user)
    Referral.objects.update(user=None)
    look()
    assert table.states() == {"registered": "cancelled", "qualified": "cancelled"}
    assert (table.referral.token, table.referral.referrer_code) == ("", str(alice.pk))
    assert {bytes(event.body) for event in OutboundEvent.objects.all()} == {b""}
    configure(TOKEN_RETENTION=DAY)
    let_pass(100 * DAY)
    look()
    assert table.referral.referrer_code == ""


# -- what


def test_everything_that_holds_the_token_or_the_identity_goes(
    configure: Callable[..., None], sandbox: Sandbox, drain: Callable[..., Any], table: Table
) -> None:
    """Also where MMOLove repeats it in an answer of its own words."""
    configure(REFEREE_IDENTITY=lambda user: "Zoë-of-the-North")
    user = create("zoe@example.com")
    attach_referral(user, TOKEN)
    sandbox.script(Fault(status=400, body={"error": f"what is Zoë-of-the-North? {TOKEN}", "who": "Zoë-of-the-North"}))
    drain()
    stored = everything()
    assert "Zoë-of-the-North" in stored
    assert TOKEN in stored
    let_pass(1000 * DAY)
    look()
    stored = everything()
    assert "Zoë" not in stored
    assert TOKEN[:4] not in stored
    event, attempt = table.event("registered"), DeliveryAttempt.objects.get()
    assert (event.state, event.last_status, event.last_error, event.response) == ("rejected", 400, "HTTP 400", {})
    assert (attempt.status, attempt.error, attempt.answer) == (400, "HTTP 400", "")


def everything() -> str:
    """What is stored, as text."""
    rows: list[dict[str, Any]] = [
        {**row, "body": bytes(row.get("body", b"")).decode()}
        for model in STORED
        for row in model._default_manager.values()
    ]
    return json.dumps(rows, default=str, ensure_ascii=False)


def test_the_record_of_what_happened_stays(qualified: Any, table: Table) -> None:
    before = {kind: table.event(kind).response for kind in ("registered", "qualified")}
    EventFactory.create(
        referral=table.referral, kind="reversed", state="exhausted", last_status=0, last_error="no answer within 15 s"
    )
    OutboundEvent.objects.filter(kind="reversed").update(settled_at=DatabaseNow())
    DeliveryAttempt.objects.create(
        event=table.event("reversed"), started_at="2026-01-01T00:00Z", duration_ms=1, signed_at=1, status=0,
        error="no answer within 15 s",
    )  # fmt: skip
    let_pass(200 * DAY)
    look()
    assert blanked() == {table.referral.pk}
    assert {kind: table.event(kind).response for kind in before} == before
    assert before["qualified"]["state"] == "qualified"
    assert [(row.status, row.error) for row in DeliveryAttempt.objects.order_by("pk")] == [
        (200, ""),
        (200, ""),
        (0, "no answer within 15 s"),
    ]
    referral = table.referral
    assert referral.referral_id == before["qualified"]["referral_id"]
    assert referral.referrer is not None
    assert table.reward.state == "granted"


# -- what is lost with it


def gone(user: Any) -> None:
    let_pass(1000 * DAY)
    look()
    assert Referral.objects.get(user=user).blanked


def test_a_milestone_after_that_is_refused(
    sandbox: Sandbox, mint: Callable[..., str], drain: Callable[..., Any], table: Table
) -> None:
    user = create("late@example.com")
    attach_referral(user, mint())
    drain()
    gone(user)
    sent = len(sandbox.log)
    assert mark_qualified(user) is None
    assert mark_registered(user) == table.event("registered")
    assert attach_referral(user, "another-token") == table.referral
    drain()
    assert (len(sandbox.log), table.states(), table.referral.token) == (sent, {"registered": "accepted"}, "")


def test_a_confirmation_after_that_is_refused(configure: Callable[..., None], table: Table) -> None:
    configure(AUTO_REGISTER=False)
    user = create("late@example.com")
    attach_referral(user, TOKEN)
    gone(user)
    assert [mark_registered(user), mark_qualified(user)] == [None, None]
    assert table.states() == {}


def test_a_reversal_after_that_is_the_portals_alone(
    qualified: Any, sandbox: Sandbox, drain: Callable[..., Any], table: Table, hear: Hear
) -> None:
    """A chargeback after seven months: the receiver that takes the gold back is told, MMOLove is not."""
    told = hear(signals.referral_reversed)
    gone(qualified)
    sent = len(sandbox.log)
    event = mark_reversed(qualified)
    assert event is not None
    assert (event.kind, event.state, event.reason, bytes(event.body)) == ("reversed", "cancelled", "blanked", b"")
    assert told == [{"referral": table.referral, "event": event, "response": {}}]
    assert (table.referral.state, table.reward.state) == ("reversed", "granted")
    assert mark_reversed(qualified) == event
    assert len(told) == 1
    drain()
    assert len(sandbox.log) == sent
    assert not redeliver(event, force=True)


@pytest.mark.parametrize("state", ["rejected", "exhausted", "accepted", "cancelled"])
def test_a_blank_body_is_never_sent(
    state: str,
    sandbox: Sandbox,
    drain: Callable[..., Any],
    client: Client,
    table: Table,
) -> None:
    user = create("bob@example.com")
    attach_referral(user, TOKEN)
    OutboundEvent.objects.update(state=state, settled_at=DatabaseNow(), reason="operator", last_status=503)
    gone(user)
    event = table.event("registered")
    for force in (False, True):
        assert not redeliver(event, force=force)
    out = StringIO()
    call_command("mmolove_redeliver", "--state", state, "--force", stdout=out)
    assert out.getvalue().startswith("0 of 1 events will be sent again.")
    assert "the body has been blanked (TOKEN_RETENTION)" in out.getvalue()
    drain()
    assert sandbox.log == []
    html = page(member(client, is_superuser=True), "outboundevent_change", event.pk)
    assert "Redeliver now" not in html
    assert '<pre class="mmolove-text">blanked</pre>' in html
    assert ">blanked<" in page(member(client, is_superuser=True), "referral_change", table.referral.pk)
    assert cancel(event) is (state in ("rejected", "exhausted")), "what failed can be given up"


def test_who_may_not_see_tokens_sees_that_they_are_blanked(
    qualified: Any,
    client: Client,
    table: Table,
) -> None:
    gone(qualified)
    member(client, "view_referral", "view_outboundevent")
    assert ">blanked<" in page(client, "referral_change", table.referral.pk)
    assert '<pre class="mmolove-text">blanked</pre>' in page(
        client, "outboundevent_change", table.event("qualified").pk
    )
    qualified.delete()
    assert "blanked: the account was deleted" in page(client, "referral_change", table.referral.pk)


def test_dry_runs_carry_a_token_that_is_there() -> None:
    kept = ReferralFactory.create(registered_at="2026-01-01T00:00Z")
    for day in range(2, 5):
        ReferralFactory.create(registered_at=f"2026-01-{day:02}T00:00Z", token="")
    subject = probe_subject("default", using="default")
    assert subject is not None
    assert (subject.token, subject.proven) == (kept.token, True)


def test_dry_runs_do_not_look_through_all_that_is_blanked() -> None:
    """An old portal with nothing but blanked referrals gets its first sign-up in a year."""
    users = UserFactory.create_batch(3)
    ReferralFactory.create(user=users[0], registered_at="2025-01-01T00:00Z")
    for number in range(NEWEST):
        ReferralFactory.create(user=None, server="default", registered_at=f"2026-01-01T00:{number % 60:02}Z", token="")
    assert probe_subject("default", using="default") is None
    referral = attach_referral(users[1], TOKEN)
    subject = probe_subject("default", using="default")
    assert subject is not None
    assert (subject.token, subject.proven) == (referral.token, False)


def test_an_answer_that_comes_after_it_is_not_kept_in_mmoloves_words(table: Table) -> None:
    user = create("bob@example.com")
    attach_referral(user, TOKEN)
    (event,) = take()
    user.delete()
    settle([answered(event, 422, error="no such player: bob")], using="default")
    attempt = DeliveryAttempt.objects.get()
    assert (attempt.late, attempt.status, attempt.error, attempt.answer) == (True, 422, "HTTP 422", "")
    assert "bob" not in everything()


# -- how


def test_every_referral_gets_its_look(monkeypatch: pytest.MonkeyPatch, drain: Callable[..., Any]) -> None:
    monkeypatch.setattr(retention, "WINDOW", 3)
    all_of_them = {ended("qualified").pk for _ in range(10)}
    ended("registered")
    let_pass(200 * DAY)
    after = []
    for _ in range(5):  # 11 referrals, begun anywhere
        look()
        after.append(len(blanked()))
    assert blanked() == all_of_them
    assert max(now - before for before, now in zip([0, *after], after, strict=False)) == 3


def test_a_process_that_cron_starts_begins_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "WINDOW", 2)
    all_of_them = {ended("qualified").pk for _ in range(8)}
    let_pass(200 * DAY)
    for _ in range(500):
        retention.forget()
        retention.look(using="default")
        if blanked() == all_of_them:
            break
    assert blanked() == all_of_them


def test_a_drain_looks_once_in_a_while(drain: Callable[..., Any]) -> None:
    one = ended("qualified")
    let_pass(200 * DAY)
    drain()
    assert blanked() == {one.pk}
    ended("qualified")
    let_pass(200 * DAY)
    drain()
    assert blanked() == {one.pk}, "SWEEP_INTERVAL has not passed"
    with CaptureQueriesContext(connection) as queries:
        retention.look(using="default")
    assert len(queries) == 0
    look()
    assert len(blanked()) == 2


def test_a_look_costs_the_same_however_much_is_blanked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "WINDOW", 10)
    for _ in range(30):
        ended("qualified")
    look()
    with CaptureQueriesContext(connection) as queries:
        look()
    assert len(queries) == 2
    window, found = (query["sql"].replace("`", '"') for query in queries.captured_queries)
    assert '"id" > ' in window
    assert "LIMIT 1" in window
    assert '"id" > ' in found


def test_batches_are_short_and_each_its_own_transaction(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(retention, "BATCH", 4)
    for _ in range(10):
        ended("qualified")
    let_pass(200 * DAY)
    sizes: list[int] = []
    real = retention._blank

    def watched(pks: list[int], using: str) -> int:
        assert not connection.in_atomic_block
        sizes.append(real(pks, using))
        return sizes[-1]

    monkeypatch.setattr(retention, "_blank", watched)
    look()
    assert sizes == [4, 4, 2]
    assert [(record.getMessage(), record.__dict__["referrals"]) for record in caplog.records] == [
        ("10 referrals were blanked.", 10)
    ]


# -- together with everything else


def final(user: Any) -> None:
    """All of this account's referral lies far behind."""
    OutboundEvent.objects.update(settled_at=DatabaseNow())
    let_pass(1000 * DAY)
    assert Referral.objects.get(user=user).token


def blank_all() -> int:
    return retention.blank_over(Referral.objects.all(), using="default")


@both_orders
def test_a_milestone_comes_while_the_referral_is_blanked(bob: Any, table: Table, turn: int) -> None:
    final(bob)
    sides: list[Callable[[], Any]] = [lambda: mark_qualified(bob), blank_all]
    overlap(*sides[::turn])
    kept = turn == 1
    assert table.referral.blanked != kept
    assert ("qualified" in table.states()) == kept
    assert all(bool(event.body) == kept for event in OutboundEvent.objects.all())


@both_orders
def test_an_event_is_redelivered_while_its_referral_is_blanked(bob: Any, table: Table, turn: int) -> None:
    OutboundEvent.objects.update(state="rejected")
    final(bob)
    sides: list[Callable[[], Any]] = [lambda: redeliver(table.event("registered")), blank_all]
    overlap(*sides[::turn])
    assert table.states()["registered"] == ("pending" if turn == 1 else "rejected")
    assert [bytes(event.body) != b"" for event in take()] == [True] * (turn == 1)


@both_orders
def test_an_account_is_deleted_while_its_referral_is_blanked(bob: Any, table: Table, turn: int) -> None:
    final(bob)
    sides: list[Callable[[], Any]] = [bob.delete, blank_all]
    overlap(*sides[::turn])
    assert (table.referral.user, table.referral.token) == (None, "")


@pytest.mark.skipif("sqlite" in connection.vendor, reason="one lock for all writing")
def test_a_referral_that_somebody_keeps_locked_holds_nothing_up(bob: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of the portal's that deletes many accounts in one long transaction."""
    monkeypatch.setattr(retention, "BATCH", 1)
    other = ended("qualified")
    final(bob)
    with transaction.atomic():
        Referral.objects.lock([Referral.objects.get(user=bob).pk])
        assert elsewhere(blank_all).result(60) == 1
    assert blanked() == {other.pk}
    assert blank_all() == 1


def test_trouble_with_it_is_told_once_and_stops_no_delivery(
    sandbox: Sandbox, mint: Callable[..., str], drain: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="mmolove_referral.delivery")
    old = ended("qualified")
    let_pass(200 * DAY)
    attach_referral(create("new@example.com"), mint())
    with failing('UPDATE "mmolove_referral_referral" SET "token"', DataError("trouble")):
        assert drain().accepted == 1
        for _ in range(3):
            look()
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == ["Referrals that are over could not be blanked; delivery goes on."]
    assert blanked() == set()
    look()
    assert blanked() == {old.pk}
    assert "Referrals can be blanked again." in caplog.messages


def test_many_look_at_once() -> None:
    for _ in range(12):
        ended("qualified")
    let_pass(200 * DAY)
    assert sum(at_once(blank_all)) == 12
    assert Referral.objects.filter(token="").count() == 12


@pytest.fixture
def bob(db: None) -> Any:
    user = create("bob@example.com")
    attach_referral(user, TOKEN)
    OutboundEvent.objects.update(state="accepted", outcome="advanced", frozen=True)
    Referral.objects.update(state="registered", registered_at=DatabaseNow())
    return user
