"""The admin: what owners see, what they may do, and what nobody sees."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from django_mmolove_referral import attach_referral, mark_qualified
from django_mmolove_referral.delivery.claim import claim
from django_mmolove_referral.models import OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault

from .clock import let_pass
from .conftest import Granted, Table
from .portal import create

pytestmark = pytest.mark.django_db

TOKEN = "token-that-nobody-should-see-whole"
MODELS = ["referral", "outboundevent", "reward", "serverhealth"]
Staff = Callable[..., Client]


@pytest.fixture
def staff() -> Staff:
    """``staff("view_referral", …)`` is a browser with a member of staff who has these permissions."""

    def login(*permissions: str) -> Client:
        model = get_user_model()
        user = model._default_manager.filter(**{model.USERNAME_FIELD: "staff@example.com"}).first()
        if user is None:
            user = create("staff@example.com")
            user.is_staff = True
            user.save()
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        assert user.user_permissions.count() == len(permissions)
        client = Client()
        client.force_login(user)
        return client

    return login


@pytest.fixture
def owner() -> Client:
    model = get_user_model()
    boss = model._default_manager.create_superuser(
        **{model.USERNAME_FIELD: "owner@example.com", "password": "pw"},
        **({"email": "owner@example.com"} if model.USERNAME_FIELD != "email" else {}),
    )
    client = Client()
    client.force_login(boss)
    return client


@pytest.fixture
def bob(sandbox: Sandbox) -> Any:
    user = create("bob@example.com")
    attach_referral(user, TOKEN)
    return user


def page(client: Client, name: str, *args: Any, **query: Any) -> str:
    response = client.get(reverse(f"admin:mmolove_referral_{name}", args=args), query)
    assert response.status_code == 200, response
    return response.content.decode()


def act(client: Client, model: str, action: str, *rows: Any) -> Any:
    return client.post(
        reverse(f"admin:mmolove_referral_{model}_changelist"),
        {"action": action, "_selected_action": [row.pk for row in rows]},
        follow=True,
    )


def test_every_page_is_there_and_shows_no_secret_and_no_whole_token(
    staff: Staff, bob: Any, sandbox: Sandbox, drain: Callable[..., Any], granted: Granted, table: Table
) -> None:
    sandbox.script(Fault(status=400, body={"error": f"no such token: {TOKEN}"}))
    drain()
    Reward.objects.create(referral=table.referral, due_at="2026-01-01T00:00Z")
    client = staff(*(f"view_{model}" for model in MODELS), "view_deliveryattempt")
    pages = [page(client, f"{model}_changelist") for model in MODELS]
    pages += [
        page(client, f"{row._meta.model_name}_change", row.pk)
        for row in (table.referral, table.event("registered"), table.reward)
    ]
    for html in pages:
        assert TOKEN not in html
        assert "test-secret" not in html
    assert "reg-" in pages[1]
    assert "no such token: toke…le" in pages[5]


def test_a_token_that_json_writes_otherwise_is_masked_in_bodies(staff: Staff, bob: Any, table: Table) -> None:
    token = 'a"token\\with/all-that-is-allowed'
    user = create("carol@example.com")
    event = attach_referral(user, token).events.get()
    html = page(staff("view_outboundevent"), "outboundevent_change", event.pk)
    assert "all-that-is" not in html
    assert "a&quot;to…ed" in html


def test_who_may_see_tokens_sees_them_whole(staff: Staff, bob: Any, table: Table) -> None:
    client = staff("view_referral", "view_outboundevent", "view_token")
    assert TOKEN in page(client, "referral_change", table.referral.pk)
    html = page(client, "outboundevent_change", table.event("registered").pk)
    assert TOKEN in html
    assert f"{len(bytes(table.event('registered').body))} bytes" in html


@pytest.mark.parametrize("model", MODELS)
def test_nothing_can_be_added_changed_or_deleted(model: str, owner: Client, bob: Any, table: Table) -> None:
    assert owner.get(reverse(f"admin:mmolove_referral_{model}_add")).status_code == 403
    row = table.referral if model == "referral" else table.event("registered")
    if model in ("referral", "outboundevent"):
        assert owner.post(reverse(f"admin:mmolove_referral_{model}_change", args=[row.pk]), {}).status_code == 403
        assert owner.post(reverse(f"admin:mmolove_referral_{model}_delete", args=[row.pk]), {}).status_code == 403


@pytest.mark.parametrize("model", MODELS)
def test_without_permission_there_is_nothing_to_see(model: str, staff: Staff) -> None:
    assert staff().get(reverse(f"admin:mmolove_referral_{model}_changelist")).status_code == 403


def test_markup_in_answers_and_names_is_shown_as_text(
    owner: Client, sandbox: Sandbox, drain: Callable[..., Any], table: Table
) -> None:
    evil = "<script>alert(1)</script>"
    attach_referral(create("x<b>@example.com"), "token-<i>-markup", code="<u>code</u>".replace("/", ""))
    sandbox.script(Fault(status=400, body={"error": evil, "<b>key</b>": evil}))
    drain()
    for html in (
        page(owner, "outboundevent_change", table.event("registered").pk),
        page(owner, "referral_change", table.referral.pk),
        page(owner, "outboundevent_changelist"),
    ):
        for raw in (evil, "x<b>", "<u>code", "<b>key", "token-<i>"):
            assert raw not in html


@pytest.mark.parametrize("query", ["bob@example.com", "the key", "the referral id"])
def test_search_is_exact(query: str, owner: Client, bob: Any, table: Table) -> None:
    Referral.objects.update(referral_id="ref_1")
    words = {"the key": f"reg-{bob.pk}", "the referral id": "ref_1"}.get(query, query)
    other = create("bobby@example.com")
    attach_referral(other, "another-token")
    for model in ("outboundevent", "referral"):
        html = page(owner, f"{model}_changelist", q=words)
        assert "1 result" in html


def test_filters(owner: Client, bob: Any) -> None:
    assert "1 outbound event" in page(owner, "outboundevent_changelist", state__exact="pending", server="default")
    assert "0 outbound events" in page(owner, "outboundevent_changelist", state__exact="accepted")
    assert "1 outbound event" in page(owner, "outboundevent_changelist", kind__exact="registered")


def test_redeliver_and_cancel_by_those_who_may(staff: Staff, bob: Any, sandbox: Sandbox, table: Table) -> None:
    client = staff("view_outboundevent", "redeliver_event", "cancel_event")
    event = table.event("registered")
    assert "1 will not be sent." in act(client, "outboundevent", "cancel", event).content.decode()
    assert table.event("registered").state == "cancelled"
    assert "1 will be sent again." in act(client, "outboundevent", "redeliver", event).content.decode()
    assert table.event("registered").state == "pending"
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == ["Cancelled.", "Redelivered."]


def test_an_action_leaves_alone_what_it_may_not_touch(owner: Client, bob: Any, table: Table) -> None:
    claim("default", "srv_test", 1, using="default")
    html = act(owner, "outboundevent", "cancel", table.event("registered")).content.decode()
    assert "1 was left alone" in html
    assert table.event("registered").state == "pending"
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("action", ["redeliver", "cancel"])
def test_actions_need_their_permissions(action: str, staff: Staff, bob: Any, table: Table) -> None:
    OutboundEvent.objects.update(state="rejected" if action == "redeliver" else "pending")
    before = table.states()
    client = staff("view_outboundevent")
    assert f'value="{action}"' not in page(client, "outboundevent_changelist")
    act(client, "outboundevent", action, table.event("registered"))
    assert table.states() == before


def test_retry_reward(
    staff: Staff, bob: Any, drain: Callable[..., Any], granted: Granted, table: Table, mint: Callable[..., str]
) -> None:
    Referral.objects.update(token=mint())
    OutboundEvent.objects.all().delete()
    from django_mmolove_referral import mark_registered

    mark_registered(bob)
    mark_qualified(bob)
    granted.fail = RuntimeError("the bank is closed")
    drain()
    client = staff("view_reward", "retry_reward")
    assert "the bank is closed" in page(client, "reward_change", table.reward.pk)
    granted.fail = None
    assert "1 will be tried at once." in act(client, "reward", "retry", table.reward).content.decode()
    drain()
    assert table.reward.state == "granted"
    assert "was left alone" in act(client, "reward", "retry", table.reward).content.decode()


# -- a wrong secret: seen, understood, corrected, delivered


def test_an_owner_finds_out_why_and_gets_it_delivered(
    owner: Client, sign: Callable[[], Any], sandbox: Sandbox, drain: Callable[..., Any], configure: Callable[..., None]
) -> None:
    sign()
    drain()
    user = sign()
    configure(SECRET="wrong-secret")
    drain()
    html = page(owner, "serverhealth_changelist")
    assert "paused" in html
    assert "MMOLove refuses the signature" in html
    assert "MMOLOVE_REFERRAL[&#x27;SECRET&#x27;]" in html
    event = OutboundEvent.objects.get(referral__user=user)
    assert "MMOLove refuses the signature" in page(owner, "outboundevent_change", event.pk)

    failed = owner.post(reverse("admin:mmolove_referral_test_event", args=["default"])).content.decode()
    assert "failed" in failed
    assert "Copy the current secret of server &#x27;srv_test&#x27;" in failed
    assert "wrong-secret" not in failed

    configure(SECRET="test-secret")
    passed = owner.post(reverse("admin:mmolove_referral_test_event", args=["default"])).content.decode()
    assert "MMOLove accepted the test event" in passed
    drain()
    assert not OutboundEvent.objects.exclude(state="accepted").exists()
    assert "Delivery works" in page(owner, "serverhealth_changelist")


@pytest.fixture
def sign(mint: Callable[..., str]) -> Callable[[], Any]:
    names = iter(range(100))

    def make() -> Any:
        user = create(f"player{next(names)}@example.com")
        attach_referral(user, mint())
        return user

    return make


def test_a_test_event_shows_request_and_answer_with_the_token_masked(owner: Client, bob: Any, sandbox: Sandbox) -> None:
    html = owner.post(reverse("admin:mmolove_referral_test_event", args=["default"])).content.decode()
    assert "X-MMOLove-Signature: t=" in html
    assert "toke…le" in html
    assert TOKEN not in html
    assert "&quot;test&quot;:true" in html
    assert LogEntry.objects.get().change_message == "Sent a test event."


def test_a_test_event_tells_of_a_clock_that_is_off_although_it_passed(owner: Client, sandbox: Sandbox) -> None:
    sandbox.clock = lambda: time.time() + 412
    html = owner.post(reverse("admin:mmolove_referral_test_event", args=["default"])).content.decode()
    assert "MMOLove accepted the test event: address, server id and secret are right. The clock of " in html
    assert "Have that host&#x27;s clock set by NTP." in html


def test_a_test_event_is_a_post_with_a_permission_of_its_own(staff: Staff, sandbox: Sandbox) -> None:
    url = reverse("admin:mmolove_referral_test_event", args=["default"])
    client = staff("view_serverhealth")
    assert client.get(url).status_code == 405
    assert client.post(url).status_code == 403
    assert "Send test event" not in page(client, "serverhealth_changelist")
    assert Client().post(url).status_code == 302  # to the login page


@pytest.mark.parametrize("alias", ["nowhere", "<b>", "default%0a"])
def test_a_test_event_to_an_unknown_server_says_so(alias: str, owner: Client) -> None:
    response = owner.post(reverse("admin:mmolove_referral_test_event", args=[alias]), follow=True)
    assert "There is no server" in response.content.decode()


def test_a_server_without_credentials_is_shown_as_such(owner: Client, configure: Callable[..., None]) -> None:
    configure(SECRET="")
    html = page(owner, "serverhealth_changelist")
    assert "not configured" in html
    assert "MMOLOVE_REFERRAL[&#x27;SECRET&#x27;] is missing." in html


def test_broken_settings_are_named_on_the_page(owner: Client, settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = "srv"
    assert "MMOLOVE_REFERRAL must be a dict" in page(owner, "serverhealth_changelist")


def test_a_rows_own_page_is_the_page_of_all_servers(owner: Client) -> None:
    health = ServerHealth.objects.create(server="default", since="2026-01-01T00:00Z")
    response = owner.get(reverse("admin:mmolove_referral_serverhealth_change", args=[health.pk]))
    assert response["Location"] == reverse("admin:mmolove_referral_serverhealth_changelist")


def test_pages_survive_a_deleted_account(owner: Client, bob: Any, table: Table) -> None:
    bob.delete()
    assert "the account was deleted" in page(owner, "outboundevent_change", table.event("registered").pk)
    page(owner, "referral_change", table.referral.pk)


def test_an_account_with_referrals_can_be_deleted_in_the_admin(owner: Client, bob: Any) -> None:
    app, model = bob._meta.app_label, bob._meta.model_name
    response = owner.post(reverse(f"admin:{app}_{model}_delete", args=[bob.pk]), {"post": "yes"})
    assert response.status_code == 302
    assert not type(bob)._default_manager.filter(pk=bob.pk).exists()
    let_pass(0)


@pytest.mark.parametrize("model", ["outboundevent", "referral", "reward"])
def test_a_list_costs_a_constant_number_of_queries(
    model: str, owner: Client, sign: Callable[[], Any], django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        sign()
        Reward.objects.create(referral=Referral.objects.latest("pk"), due_at="2026-01-01T00:00Z", attempts=number)
    with django_assert_max_num_queries(6):
        page(owner, f"{model}_changelist")
