"""The log's lists: filters, searches, counts and what they cost, and the same rows as CSV."""

from __future__ import annotations

import csv
import io
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone as django_timezone

from django_mmolove_referral.admin import base, export, paging, search
from django_mmolove_referral.models import OutboundEvent, Referral, Reward

from .factories import EventFactory, ReferralFactory, RewardFactory, UserFactory
from .test_admin import Staff, act, owner, page, staff

__all__ = ["owner", "staff"]  # fixtures

pytestmark = pytest.mark.django_db

LISTS = ["outboundevent", "referral", "reward"]


def shown(client: Client, model: str, **query: Any) -> set[int]:
    """The keys of the rows on the first page."""
    response = client.get(reverse(f"admin:mmolove_referral_{model}_changelist"), query)
    assert response.status_code == 200, response
    return {row.pk for row in response.context["cl"].result_list}


def event(**values: Any) -> Any:
    row = EventFactory.create(**{key: value for key, value in values.items() if key != "created_at"})
    if "created_at" in values:
        OutboundEvent.objects.filter(pk=row.pk).update(created_at=values["created_at"])
    return row


# -- filters


@pytest.mark.parametrize(
    ("status", "found"),
    [("2xx", {200, 204}), ("3xx", {302}), ("4xx", {400, 404}), ("5xx", {500, 503}), ("none", {None, 0})],
)
def test_status_classes(status: str, found: set[int | None], owner: Client) -> None:
    for last_status in (None, 0, 200, 204, 302, 400, 404, 500, 503):
        state = "accepted" if last_status == 200 else "rejected"
        event(state=state, last_status=last_status)
    expected = {row.pk for row in OutboundEvent.objects.all() if row.last_status in found}
    assert shown(owner, "outboundevent", status=status) == expected


def test_kinds_states_and_servers_are_combined(owner: Client, configure: Callable[..., None]) -> None:
    configure(SERVERS={"other": {"SERVER_ID": "b", "SECRET": "x"}})
    rows = {
        (kind, state, server): event(kind=kind, state=state, referral__server=server).pk
        for kind in ("registered", "qualified")
        for state in ("accepted", "rejected")
        for server in ("default", "other")
    }
    query: dict[str, Any] = {"kind__exact": "qualified", "state__exact": "rejected", "server": "other"}
    assert shown(owner, "outboundevent", **query) == {rows["qualified", "rejected", "other"]}
    assert "By server" in page(owner, "outboundevent_changelist")


def test_one_server_needs_no_filter_but_one_of_yesterday_can_be_asked_for(owner: Client) -> None:
    row = event(referral__server="retired")
    event()
    assert "By server" not in page(owner, "outboundevent_changelist")
    assert shown(owner, "outboundevent", server="retired") == {row.pk}


def test_broken_settings_break_no_list(owner: Client, settings: Any) -> None:
    row = event()
    settings.MMOLOVE_REFERRAL = "srv"
    assert shown(owner, "outboundevent") == {row.pk}


def test_times(owner: Client, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    now = django_timezone.now()
    ages = {"m": 10, "h": 7200, "d": 3 * 86400, "w": 10 * 86400, "y": 400 * 86400}
    rows = {name: event(created_at=now - timedelta(seconds=age)).pk for name, age in ages.items()}
    for span, names in {"1h": "m", "24h": "mh", "7d": "mhd", "30d": "mhdw"}.items():
        assert shown(owner, "outboundevent", created=span) == {rows[name] for name in names}


def test_days_are_whole_days_of_the_portals_time_zone(owner: Client, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    moments = ("2026-03-09T22:59Z", "2026-03-09T23:00Z", "2026-03-10T22:59Z", "2026-03-10T23:00Z")  # UTC+1
    rows = [event(created_at=datetime.fromisoformat(moment.replace("Z", "+00:00"))).pk for moment in moments]
    assert shown(owner, "outboundevent", created_from="2026-03-10", created_to="2026-03-10") == set(rows[1:3])
    assert shown(owner, "outboundevent", created_from="2026-03-10") == set(rows[1:])
    assert shown(owner, "outboundevent", created_to="2026-03-10") == set(rows[:3])
    html = page(owner, "outboundevent_changelist", created_from="2026-03-10", q="x", status="4xx")
    assert 'name="created_from" value="2026-03-10"' in html
    for kept in ('<input type="hidden" name="q" value="x">', '<input type="hidden" name="status" value="4xx">'):
        assert kept in html


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state__exact", "gone"),
        ("state__exact", ""),
        ("kind__exact", "\0"),
        ("status", "6xx"),
        ("server", "\0"),
        ("server", "x" * 65),
        ("attention", "2"),
        ("created", "1y"),
        ("created_from", "yesterday"),
        ("created_to", "0001-01-01"),
        ("created_to", "9999-12-31"),
        ("p", "1000000"),
        ("p", "x"),
    ],
)
def test_what_no_filter_offers_leads_back_to_the_list(name: str, value: str, owner: Client) -> None:
    for view in ("changelist", "export"):
        if (name, view) == ("p", "export"):
            continue
        response = owner.get(reverse(f"admin:mmolove_referral_outboundevent_{view}"), {name: value}, follow=True)
        assert response.status_code == 200
        assert response.request["PATH_INFO"] == reverse("admin:mmolove_referral_outboundevent_changelist")


@pytest.mark.parametrize(
    ("model", "lookup"),
    [
        ("referral", "token__startswith"),
        ("outboundevent", "referral__token__startswith"),
        ("outboundevent", "body__contains"),
        ("outboundevent", "last_error__regex"),
        ("reward", "referral__token__gt"),
    ],
)
def test_no_lookup_of_ones_own_guesses_at_tokens_or_scans(model: str, lookup: str, owner: Client) -> None:
    for view in ("changelist", "export"):
        response = owner.get(reverse(f"admin:mmolove_referral_{model}_{view}"), {lookup: "t"})
        assert response.status_code == 400


# -- what needs attention


def test_events_that_need_attention_are_counted_and_found(owner: Client) -> None:
    needing = {event(state=state).pk for state in ("rejected", "exhausted")}
    for state in ("pending", "waiting", "accepted", "cancelled"):
        event(state=state)
    html = page(owner, "outboundevent_changelist")
    assert "Needs attention (2)" in html
    assert shown(owner, "outboundevent", attention="1") == needing


def test_rewards_that_need_attention_are_due_and_could_not_be_granted(owner: Client) -> None:
    RewardFactory.create()
    RewardFactory.create(state="granted", last_error="once")
    row = RewardFactory.create(last_error="RuntimeError: the bank is closed")
    assert "Needs attention (1)" in page(owner, "reward_changelist")
    assert shown(owner, "reward", attention="1") == {row.pk}


# -- searches


def test_a_search_finds_by_each_of_its_names_and_by_nothing_else(owner: Client) -> None:
    alice, bob, carol = (
        UserFactory.create(name="alice@example.com"),
        UserFactory.create(name="bob@example.com"),
        UserFactory.create(),
    )
    referral = ReferralFactory.create(user=bob, referrer=alice, referral_id="ref_7")
    other = ReferralFactory.create(user=carol, referral_id="ref_77")
    rows = {
        row: (EventFactory.create(referral=row).pk, RewardFactory.create(referral=row).pk) for row in (referral, other)
    }
    for term in ("bob@example.com", " bob@example.com ", "ref_7", f"reg-{bob.pk}"):
        assert shown(owner, "referral", q=term) == {referral.pk}
        assert shown(owner, "outboundevent", q=term) == {rows[referral][0]}
        assert shown(owner, "reward", q=term) == {rows[referral][1]}
    assert shown(owner, "referral", q="alice@example.com") == {referral.pk}
    assert shown(owner, "reward", q="alice@example.com") == {rows[referral][1]}
    for term in ("bob", "ref_", "nobody", "reg-", "%", "'", "\0"):
        for model in LISTS:
            assert shown(owner, model, q=term) == (set() if term != "\0" else shown(owner, model))


def test_a_search_and_filters_go_together(owner: Client) -> None:
    bob = UserFactory.create(name="bob@example.com")
    referral = ReferralFactory.create(user=bob)
    accepted = EventFactory.create(referral=referral, state="accepted")
    EventFactory.create(referral=referral, kind="qualified", state="waiting")
    assert shown(owner, "outboundevent", q="bob@example.com", state__exact="accepted") == {accepted.pk}


def test_of_a_referrers_friends_the_newest_are_found(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LIMIT", 2)
    alice = UserFactory.create(name="alice@example.com")
    friends = [ReferralFactory.create(referrer=alice).pk for _ in range(3)]
    assert shown(owner, "referral", q="alice@example.com") == set(friends[1:])


# -- counts and pages


@pytest.fixture
def capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "CAP", 5)
    monkeypatch.setattr(base.LogAdmin, "list_per_page", 2)


@pytest.mark.parametrize("model", LISTS)
def test_a_list_that_shows_everything_offers_nothing_more(model: str, owner: Client) -> None:
    RewardFactory.create(referral=event().referral)
    assert "Show all" not in page(owner, f"{model}_changelist")
    assert "Show all" in page(owner, f"{model}_changelist", q="nobody")
    state = {"outboundevent": "pending", "referral": "qualified", "reward": "due"}[model]
    assert "Show all" in page(owner, f"{model}_changelist", state__exact=state)


@pytest.mark.parametrize("model", ["outboundevent", "referral"])
def test_the_server_is_a_column_where_there_are_several(
    model: str, owner: Client, configure: Callable[..., None]
) -> None:
    event()
    assert "field-server" not in page(owner, f"{model}_changelist")
    configure(SERVERS={"eu": {"SERVER_ID": "srv_eu", "SECRET": "a1b2c3d4e5"}})
    assert '<td class="field-server">default</td>' in page(owner, f"{model}_changelist")


def test_a_long_error_is_there_as_a_whole_for_whoever_points_at_it(owner: Client) -> None:
    error = 'IntegrityError: insert on table "purse" violates a constraint. ' * 6
    RewardFactory.create(attempts=1, last_error=error)
    html = page(owner, "reward_changelist")
    told = error.replace('"', "&quot;")
    assert f'<td class="field-error"><span class="mmolove-cut" title="{told}">{told}</span></td>' in html
    assert "style=" not in html


@pytest.mark.usefixtures("capped")
@pytest.mark.parametrize(("rows", "said"), [(5, "5 outbound events"), (6, "5+ outbound events")])
def test_a_count_ends_at_its_cap_and_says_so(rows: int, said: str, owner: Client) -> None:
    for _ in range(rows):
        event(state="rejected")
    html = page(owner, "outboundevent_changelist")
    assert said in html
    assert f"Needs attention ({said.split()[0]})" in html
    assert ("These are the newest." in html) == (rows > 5)


@pytest.mark.usefixtures("capped")
def test_a_thousand_separator_is_set_by_django(owner: Client, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    for _ in range(6):
        event()
    assert "5 outbound events" in page(owner, "outboundevent_changelist")
    assert str(paging.AtLeast(10_000)) == "10000"
    settings.USE_THOUSAND_SEPARATOR = False
    assert str(paging.AtLeast(10_000)) == "10,000+"


@pytest.mark.usefixtures("capped")
@pytest.mark.parametrize("filters", [{}, {"state__exact": "rejected"}, {"state__exact": "pending"}])
def test_pages_hold_the_newest_first_and_end_at_the_cap(filters: dict[str, str], owner: Client) -> None:
    rows = [event(state="rejected" if number % 2 else "pending") for number in range(8)]
    wanted = [row.pk for row in reversed(rows) if row.state == filters.get("state__exact", row.state)][:5]
    seen = []
    for number in range(1, -(-len(wanted) // 2) + 1):
        query: dict[str, Any] = {**filters, "p": number}
        response = owner.get(reverse("admin:mmolove_referral_outboundevent_changelist"), query)
        seen += [row.pk for row in response.context["cl"].result_list]
    assert seen == wanted


@pytest.mark.usefixtures("capped")
@pytest.mark.parametrize("o", ["1", "-3.2", "8", "x"])
def test_no_other_order_is_to_be_had(o: str, owner: Client) -> None:
    rows = [event().pk for _ in range(2)]
    response = owner.get(reverse("admin:mmolove_referral_outboundevent_changelist"), {"o": o})
    assert [row.pk for row in response.context["cl"].result_list] == rows[::-1]
    assert "sortable" not in response.content.decode()


def no_scan(queries: CaptureQueriesContext) -> None:
    for query in queries.captured_queries:
        sql = query["sql"]
        if "mmolove_referral" in sql and "COUNT(" in sql:
            assert "LIMIT" in sql, sql
        assert "DISTINCT" not in sql, sql


@pytest.mark.parametrize("model", LISTS)
@pytest.mark.parametrize("query", [{}, {"state__exact": "due"}, {"q": "player@example.com"}, {"_facets": "True"}])
def test_a_page_costs_the_same_queries_whatever_is_in_it(model: str, query: dict[str, str], owner: Client) -> None:
    if query.get("state__exact") == "due" and model != "reward":
        query = {"state__exact": "captured" if model == "referral" else "pending"}
    url = reverse(f"admin:mmolove_referral_{model}_changelist")

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert owner.get(url, query).status_code == 200
        no_scan(queries)
        return len(queries)

    player = UserFactory.create(name="player@example.com")

    def more(rows: int) -> None:
        for _ in range(rows):
            referral = ReferralFactory.create(referrer=player)
            EventFactory.create(referral=referral)
            RewardFactory.create(referral=referral)

    referral = ReferralFactory.create(user=player)
    EventFactory.create(referral=referral)
    RewardFactory.create(referral=referral)
    first = cost()
    more(12)
    assert cost() == first
    assert first <= 11


# -- actions


def test_an_action_on_all_that_is_found_treats_a_thousand_at_once(
    owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "AT_ONCE", 2)
    rows = [event(state="rejected") for _ in range(3)]
    response = owner.post(
        reverse("admin:mmolove_referral_outboundevent_changelist") + "?attention=1",
        {"action": "redeliver", "select_across": "1", "_selected_action": [row.pk for row in rows]},
        follow=True,
    )
    html = response.content.decode()
    assert "2 will be sent again." in html
    assert "the newest 2, the most that is done at once" in html
    assert [row.state for row in OutboundEvent.objects.order_by("pk")] == ["rejected", "pending", "pending"]
    assert LogEntry.objects.count() == 2


# -- CSV


def download(client: Client, model: str, **query: Any) -> list[dict[str, str]]:
    response = client.get(reverse(f"admin:mmolove_referral_{model}_export"), query)
    assert response.status_code == 200, response
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"].startswith(f'attachment; filename="mmolove-{model}-20')
    text = b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


def test_the_list_as_it_is_filtered_and_searched_is_exported(owner: Client) -> None:
    bob = UserFactory.create(name="bob@example.com")
    referral = ReferralFactory.create(user=bob, token="token-that-nobody-should-see-whole", referral_id="ref_7")
    EventFactory.create(referral=referral, state="rejected", last_status=422, last_error="HTTP 422: no")
    EventFactory.create(state="accepted")
    RewardFactory.create(referral=referral, last_error="RuntimeError: closed")
    [row] = download(owner, "outboundevent", attention="1")
    assert row["account"] == "bob@example.com"
    assert (row["state"], row["last_status"], row["last_error"]) == ("rejected", "422", "HTTP 422: no")
    assert row["created_at"][:2] == "20"
    assert len(download(owner, "outboundevent")) == 2
    [row] = download(owner, "referral", q="ref_7")
    assert row["token"] == "toke…le"
    assert row["reward"] == "due"
    [row] = download(owner, "reward", state__exact="due")
    assert (row["referrer"], row["last_error"]) == ("", "RuntimeError: closed")
    assert "export/?attention=1" in page(owner, "outboundevent_changelist", attention="1")


def test_no_export_without_the_permission_to_look(staff: Staff) -> None:
    client = staff("view_reward")
    assert client.get(reverse("admin:mmolove_referral_outboundevent_export")).status_code == 403
    assert client.get(reverse("admin:mmolove_referral_reward_export")).status_code == 200
    assert Client().get(reverse("admin:mmolove_referral_reward_export")).status_code == 302  # to the login page


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x","<b>")']


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str, owner: Client) -> None:
    ReferralFactory.create(referrer_code=text, referral_id=text)
    EventFactory.create(last_error=text, server_event_id=text)
    RewardFactory.create(last_error=text, referral__referral_id=text)
    for model, columns in {
        "referral": ("referrer_code", "referral_id_at_mmolove"),
        "outboundevent": ("last_error", "idempotency_key"),
        "reward": ("last_error", "referral_id_at_mmolove"),
    }.items():
        rows = download(owner, model)
        for column in columns:
            assert f"'{text}" in [row[column] for row in rows]


def test_numbers_and_moments_are_left_as_they_are() -> None:
    moment = datetime(2030, 1, 31, 18, 30, tzinfo=timezone.utc)
    assert [export.cell(value) for value in (-1, None, moment, "x=1", "")] == [
        "-1", "", "2030-01-31 18:30:00+00:00", "x=1", "",
    ]  # fmt: skip


def test_an_export_of_many_costs_one_query_a_chunk(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CHUNK", 4)
    for _ in range(11):
        RewardFactory.create()
    for model, rows in (("reward", 11), ("referral", 11)):
        response = owner.get(reverse(f"admin:mmolove_referral_{model}_export"))
        with CaptureQueriesContext(connection) as queries:
            lines = b"".join(response.streaming_content).splitlines()  # type: ignore[attr-defined]
        assert len(lines) == rows + 1
        assert len(queries) == 3
    assert sorted(int(row["id"]) for row in download(owner, "reward")) == sorted(
        Reward.objects.values_list("pk", flat=True)
    )


def test_an_export_keeps_no_more_than_a_chunk_in_memory(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CHUNK", 20)
    referrals = Referral.objects.bulk_create(
        [Referral(server="default", token="t", referrer_code="x" * 250) for _ in range(2000)]
    )
    assert len(referrals) == 2000

    def peak(limit: int) -> int:
        response = owner.get(reverse("admin:mmolove_referral_referral_export"))
        tracemalloc.start()
        for number, _chunk in enumerate(response.streaming_content):  # type: ignore[attr-defined]
            if number == limit:
                break
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(2)  # caches
    assert peak(100) < 2 * peak(4)


def test_under_asgi_an_export_streams_too(owner: Client) -> None:
    RewardFactory.create()
    client = AsyncClient()
    client.cookies = owner.cookies
    url = reverse("admin:mmolove_referral_reward_export")

    async def fetch() -> bytes:
        response = await client.get(url)
        return b"".join([chunk async for chunk in response.streaming_content])  # type: ignore[attr-defined]

    lines = async_to_sync(fetch)().decode().splitlines()  # a warning would be an error
    assert len(lines) == 2


def test_the_user_model_names_accounts_in_every_list(owner: Client) -> None:
    model = get_user_model()
    referral = ReferralFactory.create(user=UserFactory.create(name="bob@example.com"))
    EventFactory.create(referral=referral)
    assert getattr(referral.user, model.USERNAME_FIELD) == "bob@example.com"
    assert "bob@example.com" in page(owner, "outboundevent_changelist")
    assert act(owner, "outboundevent", "cancel", OutboundEvent.objects.get()).status_code == 200
