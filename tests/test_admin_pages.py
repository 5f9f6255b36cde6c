"""The pages of single rows: what happened, what it means, what may be done, and where the links lead."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.utils import timezone

from django_mmolove_referral import advice, attach_referral
from django_mmolove_referral.admin import (
    OutboundEventAdmin,
    ReferralAdmin,
    ReferralInline,
    RewardAdmin,
    timeline,
)
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault

from .conftest import Table
from .factories import EventFactory, ReferralFactory, RewardFactory, UserFactory
from .portal import urlpatterns as portal_urls
from .test_admin import Staff, act, owner, page, staff

__all__ = ["owner", "staff"]  # fixtures

pytestmark = pytest.mark.django_db

User = get_user_model()
TOKEN = "token-that-nobody-should-see-whole"


class PlayerAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic for the type checker only
    fields = (User.USERNAME_FIELD,)
    inlines = (ReferralInline,)


#: A site of the portal's own, beside Django's.
ops = admin.AdminSite(name="ops")
ops.register(User, PlayerAdmin)
ops.register(Referral, ReferralAdmin)
ops.register(OutboundEvent, OutboundEventAdmin)
ops.register(Reward, RewardAdmin)
#: A site that has the accounts and nothing else.
desk = admin.AdminSite(name="desk")
desk.register(User, PlayerAdmin)

urlpatterns = [
    path("ops/", ops.urls),
    path("desk/", desk.urls),
    *portal_urls,
]
in_own_sites = pytest.mark.urls("tests.test_admin_pages")


def operation(row: Any, name: str, site: str = "admin") -> str:
    return reverse(f"{site}:mmolove_referral_{row._meta.model_name}_{name}", args=[row.pk])


def change(row: Any, site: str = "admin") -> str:
    return reverse(f"{site}:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def state(row: Any) -> str:
    row.refresh_from_db()
    return str(row.state)


# -- the timeline


def test_a_timeline_tells_every_step(owner: Client) -> None:
    row = EventFactory.create(state="accepted", outcome="duplicate", last_status=200, settled_at="2030-01-31T12:00:09Z")
    OutboundEvent.objects.filter(pk=row.pk).update(created_at="2030-01-31T12:00Z")
    answers: list[tuple[int, str, str, bool]] = [
        (0, "", "no answer within 15 s", False),
        (503, "<h1>maintenance</h1>", "HTTP 503 with an HTML page", False),
        (200, '{"ok": true}', "", True),
        (200, '{"ok": true, "duplicate": true}', "", False),
        (200, '{"ok": true, "ignored": "first_touch_conflict"}', "", True),
    ]
    for number, (status, answer, error, late) in enumerate(answers):
        DeliveryAttempt.objects.create(
            event=row, started_at=f"2030-01-31T12:00:0{number + 1}Z", duration_ms=40 + number, signed_at=0,
            status=status, answer=answer, error=error, late=late,
        )  # fmt: skip
    html = page(owner, "outboundevent_change", row.pk)
    steps = [
        text_of(step).strip()
        for step in html.split('<ol class="mmolove-timeline">')[1].split("</ol>")[0].split("</li>")
    ]
    assert [re.sub(r" UTC| The answer.*", "", step) for step in steps if step] == [
        "written 2030-01-31 12:00:00 The portal wrote it down, to be sent.",
        "no answer 2030-01-31 12:00:01 · 40 ms No complete answer came from MMOLove: no answer within 15 s.",
        "HTTP 503 2030-01-31 12:00:02 · 41 ms MMOLove, or a proxy before it, has a fault: HTTP 503 with an HTML page.",
        "HTTP 200 2030-01-31 12:00:03 · 42 ms · too late to count MMOLove accepted it.",
        "HTTP 200 2030-01-31 12:00:04 · 43 ms MMOLove had it already: an earlier answer was lost. It counts the same.",
        (
            "HTTP 200 2030-01-31 12:00:05 · 44 ms · too late to count Another referrer already holds this account at "
            "MMOLove (first touch). There is no reward."
        ),
        "accepted 2030-01-31 12:00:09 already known",
    ]
    assert "&lt;h1&gt;maintenance&lt;/h1&gt;" in html


def test_moments_are_told_to_the_second_in_the_current_time_zone() -> None:
    row = EventFactory.create(due_at="2030-01-31T12:00:07Z", attempts=1, last_status=503, last_error="HTTP 503")
    row.refresh_from_db()
    with timezone.override("Europe/Paris"):
        assert timeline.timeline(row)[-1].words == "Its next try is due: 2030-01-31 13:00:07 CET"
        assert advice.of_event(row, None).cure.endswith("(Next try: 2030-01-31 13:00:07 CET)")


def test_attempts_say_since_when_they_count(owner: Client) -> None:
    row = EventFactory.create(state="exhausted", attempts=10, last_status=503)
    for second in range(10):
        DeliveryAttempt.objects.create(
            event=row, started_at=f"2030-01-31T12:00:0{second}Z", duration_ms=9, signed_at=0, status=503, error="no"
        )
    act(owner, "outboundevent", "redeliver", row)
    html = " ".join(text_of(page(owner, "outboundevent_change", row.pk)).split())
    assert html.count("no answer") + html.count("HTTP 503") >= 10
    assert "Attempts since it was written or last redelivered: 0" in html


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ({"state": "waiting"}, ("now", "waiting", "It waits for the event that has to be accepted before it.")),
        ({"claim": uuid4()}, ("now", "pending", "It is on its way.")),
        ({"due_at": "2030-01-31T12:00Z"}, ("now", "pending", "Its next try is due: 2030-01-31 12:00:00 UTC")),
        ({"state": "rejected", "settled_at": "2030-01-31T12:00Z"}, ("2030-01-31 12:00:00 UTC", "rejected", "")),
        (
            {"state": "cancelled", "reason": "expired", "settled_at": "2030-01-31T12:00Z"},
            ("2030-01-31 12:00:00 UTC", "cancelled", "the token expired"),
        ),
    ],
)
def test_a_timeline_ends_with_how_it_stands(values: dict[str, Any], last: tuple[str, ...]) -> None:
    row = EventFactory.create(**values)
    row.refresh_from_db()
    step = timeline.timeline(row)[-1]
    assert (step.when, step.title, step.words) == last


def test_a_timeline_shows_the_last_attempts_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "SHOWN", 2)
    row = EventFactory.create()
    for status in (500, 501, 502):
        DeliveryAttempt.objects.create(event=row, started_at=timezone.now(), duration_ms=1, signed_at=0, status=status)
    steps = timeline.timeline(row)
    assert [step.title for step in steps] == ["written", "HTTP 501", "HTTP 502", "pending"]
    assert steps[0].words.endswith("Of its attempts, these are the last 2.")


def test_attempts_are_for_those_who_may_see_attempts(staff: Staff) -> None:
    row = EventFactory.create()
    assert "mmolove-timeline" not in page(staff("view_outboundevent"), "outboundevent_change", row.pk)
    both = staff("view_outboundevent", "view_deliveryattempt")
    assert "mmolove-timeline" in page(both, "outboundevent_change", row.pk)


# -- links


def test_referral_events_reward_and_accounts_lead_to_each_other(owner: Client) -> None:
    referral = ReferralFactory.create(referrer=UserFactory.create())
    registered = EventFactory.create(referral=referral, state="accepted")
    qualified = EventFactory.create(referral=referral, kind="qualified", state="accepted")
    reward = RewardFactory.create(referral=referral)
    pages: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("outboundevent", registered, (referral, qualified, reward, referral.user)),
        ("referral", referral, (registered, qualified, reward, referral.user, referral.referrer)),
        ("reward", reward, (registered, qualified, referral, referral.user, referral.referrer)),
    ]
    for model, row, others in pages:
        html = page(owner, f"{model}_change", row.pk)
        for other in others:
            if other._meta.model is User and User.USERNAME_FIELD != "username":
                continue  # that portal's admin has no page of accounts
            assert f'href="{change(other)}"' in html


# -- operations


EVENT_OPERATIONS = [
    ("redeliver", {"state": "rejected"}, "pending", "It leaves with the next delivery run.", "Redelivered."),
    ("redeliver", {"state": "exhausted"}, "pending", "It leaves with the next delivery run.", "Redelivered."),
    (
        "redeliver", {"state": "cancelled", "reason": "operator"}, "pending",
        "It leaves with the next delivery run.", "Redelivered.",
    ),
    ("cancel", {"state": "pending"}, "cancelled", "It will not be sent.", "Cancelled."),
    ("cancel", {"state": "waiting", "kind": "qualified"}, "cancelled", "It will not be sent.", "Cancelled."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "after", "said", "logged"), EVENT_OPERATIONS)
def test_a_button_asks_does_and_is_logged(
    name: str, values: dict[str, Any], after: str, said: str, logged: str, staff: Staff
) -> None:
    row = EventFactory.create(**values)
    client = staff("view_outboundevent", f"{name}_event")
    url = operation(row, name)
    assert f'href="{url}"' in page(client, "outboundevent_change", row.pk)
    asked = client.get(url)
    assert asked.status_code == 200
    assert "csrfmiddlewaretoken" in asked.content.decode()
    assert f'href="{change(row)}"' in asked.content.decode()
    assert state(row) == values["state"]
    done = client.post(url, follow=True)
    assert done.redirect_chain == [(change(row), 302)]
    assert said in done.content.decode()
    assert state(row) == after
    entry = LogEntry.objects.get()
    assert (entry.change_message, entry.object_id) == (logged, str(row.pk))


REFUSED = [
    ("redeliver", {"state": "accepted"}),
    ("redeliver", {"state": "waiting", "kind": "qualified"}),
    ("redeliver", {"state": "pending"}),
    ("redeliver", {"state": "cancelled", "reason": "expired"}),
    ("redeliver", {"state": "rejected", "body": b""}),
    ("cancel", {"state": "accepted"}),
    ("cancel", {"state": "cancelled", "reason": "operator"}),
    ("cancel", {"state": "pending", "claim": uuid4(), "due_at": timezone.now() + timedelta(hours=1)}),
]


@pytest.mark.parametrize(("name", "values"), REFUSED)
@pytest.mark.parametrize("method", ["get", "post"])
def test_what_the_state_does_not_allow_is_refused_politely(
    method: str, name: str, values: dict[str, Any], owner: Client
) -> None:
    row = EventFactory.create(**values)
    assert operation(row, name) not in page(owner, "outboundevent_change", row.pk)
    response = getattr(owner, method)(operation(row, name), follow=True)
    assert response.redirect_chain == [(change(row), 302)]
    assert "It was not " in response.content.decode()
    assert state(row) == values["state"]
    assert not LogEntry.objects.exists()


def test_what_waits_for_its_next_try_leaves_now(owner: Client) -> None:
    later = timezone.now() + timedelta(hours=6)
    row = EventFactory.create(attempts=7, last_status=503, last_error="HTTP 503", due_at=later)
    owner.post(operation(row, "redeliver"))
    row.refresh_from_db()
    assert (row.state, row.attempts) == ("pending", 7)
    assert row.due_at <= timezone.now()
    assert LogEntry.objects.get().change_message == "Redelivered."


def test_a_reward_is_retried_or_not(staff: Staff) -> None:
    client = staff("view_reward", "retry_reward")
    row = RewardFactory.create(due_at=timezone.now() + timedelta(hours=6), last_error="RuntimeError: closed")
    url = operation(row, "retry")
    assert f'href="{url}"' in page(client, "reward_change", row.pk)
    assert client.get(url).status_code == 200
    assert "It is tried with the next delivery run." in client.post(url, follow=True).content.decode()
    row.refresh_from_db()
    assert row.due_at <= timezone.now()
    Reward.objects.update(state="granted")
    assert f'href="{url}"' not in page(client, "reward_change", row.pk)
    for method in (client.get, client.post):
        assert "It was not tried again" in method(url, follow=True).content.decode()
    assert LogEntry.objects.count() == 1


def test_an_account_is_marked_qualified_once(staff: Staff) -> None:
    client = staff("view_referral", "mark_qualified")
    row = ReferralFactory.create()
    url = operation(row, "qualify")
    assert f'href="{url}"' in page(client, "referral_change", row.pk)
    assert "This cannot be undone here." in client.get(url).content.decode()
    assert not OutboundEvent.objects.exists()
    assert "“qualified” has been written." in client.post(url, follow=True).content.decode()
    assert OutboundEvent.objects.get().kind == "qualified"
    for method in (client.get, client.post):
        assert "It was not marked" in method(url, follow=True).content.decode()
    assert OutboundEvent.objects.count() == 1
    assert [entry.change_message for entry in LogEntry.objects.all()] == ["Marked qualified."]


@pytest.mark.parametrize("values", [{"state": "conflict"}, {"token": ""}, {"user": None}])
def test_a_referral_that_has_ended_cannot_be_marked(values: dict[str, Any], owner: Client) -> None:
    row = ReferralFactory.create(**values)
    assert operation(row, "qualify") not in page(owner, "referral_change", row.pk)
    assert "It was not marked" in owner.post(operation(row, "qualify"), follow=True).content.decode()
    assert not OutboundEvent.objects.exists()


def test_a_server_that_is_gone_is_named(owner: Client) -> None:
    row = ReferralFactory.create(server="retired")
    html = owner.post(operation(row, "qualify"), follow=True).content.decode()
    assert "There is no server &#x27;retired&#x27;" in html
    assert not LogEntry.objects.exists()


MAKERS: dict[str, tuple[Callable[[], Any], str]] = {
    "redeliver": (lambda: EventFactory.create(state="rejected"), "redeliver_event"),
    "cancel": (lambda: EventFactory.create(), "cancel_event"),
    "retry": (lambda: RewardFactory.create(), "retry_reward"),
    "qualify": (lambda: ReferralFactory.create(), "mark_qualified"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_operation_needs_both_permissions_and_a_proper_request(name: str, staff: Staff) -> None:
    make, permission = MAKERS[name]
    row = make()
    url = operation(row, name)
    looks = f"view_{row._meta.model_name}"
    for client in (staff(looks), staff(permission)):
        assert client.get(url).status_code == 403
        assert client.post(url).status_code == 403
    assert operation(row, name) not in page(staff(looks), f"{row._meta.model_name}_change", row.pk)
    assert Client().post(url).status_code == 302  # to the login page
    client = staff(looks, permission)
    assert client.put(url).status_code == 405
    client.handler.enforce_csrf_checks = True
    assert client.post(url).status_code == 403
    before = row.state
    assert state(row) == before
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("key", ["0", "x", "9" * 30, "1/2", "_0A"])
def test_what_is_not_there_is_said_not_to_be_there(name: str, key: str, owner: Client) -> None:
    model = MAKERS[name][0]()._meta.model_name
    url = f"/admin/mmolove_referral/{model}/{key}/{name}/"
    for method in (owner.get, owner.post):
        response = method(url, follow=True)
        assert response.status_code == 200
        assert "It does not exist, or not any more." in response.content.decode()


def test_the_lists_filters_are_kept_on_the_way(owner: Client) -> None:
    row = EventFactory.create(state="rejected")
    kept = "_changelist_filters=attention%3D1"
    html = owner.get(f"{change(row)}?{kept}").content.decode()
    assert f"{operation(row, 'redeliver')}?{kept}" in html
    assert owner.post(f"{operation(row, 'redeliver')}?{kept}")["Location"] == f"{change(row)}?{kept}"


# -- markup, everywhere


EVIL = '<script>alert("1")</script>'


def test_hostile_tokens_answers_and_names_are_text_on_every_page(
    owner: Client, sandbox: Sandbox, drain: Callable[..., Any], table: Table
) -> None:
    user = UserFactory.create(name="=x<b>@example.com")
    attach_referral(user, 'token-"><i>-markup', code="<u>code")
    sandbox.script(Fault(status=400, body={"error": EVIL, "<b>key</b>": EVIL}))
    drain()
    RewardFactory.create(referral=table.referral, last_error=EVIL)
    Referral.objects.update(referral_id=EVIL)
    row = table.event("registered")
    pages = {
        "event": change(row),
        "redeliver": operation(row, "redeliver"),
        "referral": change(table.referral),
        "qualify": operation(table.referral, "qualify"),
        "reward": change(table.reward),
        "retry": operation(table.reward, "retry"),
        **{
            model: reverse(f"admin:mmolove_referral_{model}_changelist")
            for model in ("outboundevent", "referral", "reward")
        },
        "search": reverse("admin:mmolove_referral_outboundevent_changelist") + "?q=%3Cscript%3E&server=%3Cb%3E",
    }
    for name, url in pages.items():
        response = owner.get(url)
        assert response.status_code == 200, name
        html = response.content.decode()
        for raw in (EVIL, "x<b>", "<u>code", "<b>key", "<i>-markup", "q=<script>"):
            assert raw not in html, (name, raw)
    assert "&lt;script&gt;alert" in owner.get(pages["event"]).content.decode()


# -- sites of the portal's own


@in_own_sites
@pytest.mark.parametrize("model", ["outboundevent", "referral", "reward"])
def test_every_link_stays_in_its_own_site(model: str, owner: Client) -> None:
    referral = ReferralFactory.create(referrer=UserFactory.create())
    registered = EventFactory.create(referral=referral, state="rejected", attempts=1)
    EventFactory.create(referral=referral, kind="reversed", state="waiting")
    reward = RewardFactory.create(referral=referral)
    row = {"outboundevent": registered, "referral": referral, "reward": reward}[model]
    urls = [reverse(f"ops:mmolove_referral_{model}_changelist"), change(row, "ops")]
    urls += [operation(row, name, "ops") for name, (make, _) in MAKERS.items() if make()._meta.model_name == model]
    urls += [change(referral.user, "ops")]
    for url in urls:
        response = owner.get(url, follow=True)
        assert response.status_code == 200, url
        html = response.content.decode()
        assert "/ops/mmolove_referral/" in html
        assert '"/admin/' not in html
    assert owner.get(reverse(f"ops:mmolove_referral_{model}_changelist") + "?state__exact=x")["Location"].startswith(
        "/ops/"
    )
    assert owner.get(reverse(f"ops:mmolove_referral_{model}_export") + "?state__exact=x")["Location"].startswith(
        "/ops/"
    )


@in_own_sites
def test_a_button_of_another_site_leads_back_there(owner: Client) -> None:
    row = EventFactory.create(state="rejected")
    assert owner.post(operation(row, "redeliver", "ops"))["Location"] == change(row, "ops")


# -- on the account


@pytest.fixture
def account(owner: Client) -> Any:
    return UserFactory.create(name="bob@example.com")


@in_own_sites
def test_an_account_shows_its_referral_its_events_and_its_reward(account: Any, owner: Client) -> None:
    referral = ReferralFactory.create(user=account, referrer=UserFactory.create(name="alice@example.com"))
    row = EventFactory.create(referral=referral, state="accepted")
    reward = RewardFactory.create(referral=referral)
    html = owner.get(change(account, "ops")).content.decode()
    for other in (referral, row, reward, referral.referrer):
        assert f'href="{change(other, "ops")}"' in html
    assert f'href="{operation(referral, "qualify", "ops")}"' in html
    assert "token-" not in html


@in_own_sites
def test_an_account_is_saved_as_if_there_were_no_inline(account: Any, owner: Client) -> None:
    referral = ReferralFactory.create(user=account)
    form = {
        User.USERNAME_FIELD: "robert@example.com",
        "mmolove_referrals-TOTAL_FORMS": "1",
        "mmolove_referrals-INITIAL_FORMS": "1",
        "mmolove_referrals-0-id": str(referral.pk),
        "mmolove_referrals-0-user": "",
        "mmolove_referrals-0-state": "reversed",
        "mmolove_referrals-0-DELETE": "on",
    }
    assert owner.post(change(account, "ops"), form).status_code == 302
    account.refresh_from_db()
    assert getattr(account, User.USERNAME_FIELD) == "robert@example.com"
    referral.refresh_from_db()
    assert (referral.user_id, referral.state) == (account.pk, "captured")


@in_own_sites
def test_a_new_account_is_added_without_an_inline(owner: Client) -> None:
    add = reverse(f"ops:{User._meta.app_label}_{User._meta.model_name}_add")
    assert "mmolove_referrals" not in owner.get(add).content.decode()
    assert owner.post(add, {User.USERNAME_FIELD: "new@example.com"}).status_code == 302
    assert User._default_manager.filter(**{User.USERNAME_FIELD: "new@example.com"}).exists()


@in_own_sites
def test_the_inline_is_for_those_who_may_see_referrals(account: Any, staff: Staff) -> None:
    referral = ReferralFactory.create(user=account)
    model = User._meta.model_name
    assert "mmolove_referrals" not in staff(f"view_{model}").get(change(account, "ops")).content.decode()
    html = staff(f"view_{model}", "view_referral").get(change(account, "ops")).content.decode()
    assert "mmolove_referrals" in html
    assert operation(referral, "qualify", "ops") not in html
    html = staff(f"view_{model}", "view_referral", "mark_qualified").get(change(account, "ops")).content.decode()
    assert operation(referral, "qualify", "ops") in html


@in_own_sites
def test_a_site_without_the_log_shows_it_without_links(account: Any, owner: Client) -> None:
    referral = ReferralFactory.create(user=account)
    EventFactory.create(referral=referral)
    html = owner.get(change(account, "desk")).content.decode()
    assert "registered" in html
    assert not re.search("/(desk|ops|admin)/mmolove_referral/", html)
    assert "Mark qualified" not in html


@in_own_sites
def test_the_inline_costs_the_same_queries_however_many_referrals(account: Any, owner: Client) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert owner.get(change(account, "ops")).status_code == 200
        return len(queries)

    def more(server: str) -> None:
        referral = ReferralFactory.create(user=account, server=server, referrer=UserFactory.create())
        EventFactory.create(referral=referral)
        RewardFactory.create(referral=referral)

    plain = cost()
    more("default")
    first = cost()
    for server in ("a", "b", "c"):
        more(server)
    assert cost() == first
    assert first - plain <= 1  # the events, with the referrals that are asked for anyway
