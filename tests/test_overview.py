"""The overview: what needs a person, word for word; who may see it; and that it belongs to the portal's own site."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import include, path, reverse
from django.utils import timezone, translation
from django.utils.formats import date_format

from django_mmolove_referral import admin as ours
from django_mmolove_referral.admin.attention import PLACES, attention
from django_mmolove_referral.delivery import dispatch
from django_mmolove_referral.delivery.rewards import NO_RECEIVER
from django_mmolove_referral.doctor.delivery import CAP
from django_mmolove_referral.models import DeliveryAttempt, Heartbeat, OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault
from django_mmolove_referral.stats import COUNTED, collect

from .clock import let_pass
from .conftest import Granted
from .delivery.conftest import sign_up
from .factories import EventFactory, ReferralFactory, RewardFactory, UserFactory

__all__ = ["sign_up"]  # a fixture

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("debugging")]

MODELS = ("referral", "outboundevent", "deliveryattempt", "reward", "serverhealth")
VIEWS = [f"view_{model}" for model in MODELS]
PATH = "/admin/mmolove_referral/serverhealth/overview/"
Configure = Callable[..., None]
Staff = Callable[..., Client]


@pytest.fixture
def staff() -> Staff:
    """``staff("view_referral", …)`` is a browser with a member of staff who has these permissions."""

    def login(*permissions: str) -> Client:
        user = UserFactory.create(is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        assert user.user_permissions.count() == len(permissions)
        client = Client()
        client.force_login(user)
        return client

    return login


@pytest.fixture
def owner() -> Client:
    client = Client()
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    return client


def html(client: Client, at: str = PATH) -> str:
    response = client.get(at)
    assert response.status_code == 200, response
    return response.content.decode()


def content(client: Client, at: str = PATH) -> str:
    """What this page adds to the frame."""
    return html(client, at).split('<div id="content-main"')[1].split('<footer id="footer"')[0]


@pytest.fixture(autouse=True)
def delivering(db: None) -> Heartbeat:
    """Something delivers: a moment ago it gave a sign of life."""
    return Heartbeat.objects.create(kind="loop", host="web-1", seen_at=timezone.now())


def told() -> list[tuple[str, str]]:
    return [(need.finding.words, need.finding.cure) for need in attention("admin")]


def ids() -> list[str]:
    return [need.finding.id for need in attention("admin")]


# -- what needs attention


def test_all_is_well(owner: Client, granted: Granted) -> None:
    assert told() == []
    page = content(owner)
    assert "all is well" in page
    assert "Ready. Nobody has come by a share link yet." in page
    EventFactory.create()
    assert "All is well. 1 event is on its way." in content(owner)
    OutboundEvent.objects.update(state="accepted")
    assert "All is well. Everything has been delivered." in content(owner)


def test_a_missing_secret_is_a_card_that_names_the_setting(
    owner: Client, granted: Granted, configure: Configure
) -> None:
    configure(SECRET="")
    error = (
        "MMOLOVE_REFERRAL['SECRET'] is missing. Put the referral secret from the MMOLove dashboard there, as a string, "
        "or into the environment variable MMOLOVE_REFERRAL_SECRET."
    )
    assert told() == [(error, "“Settings” in the documentation lists every key and what it may be.")]
    page = content(owner)
    assert "not configured" in page
    assert page.count(error.replace("'", "&#x27;")) == 2  # at the top and on the card


@pytest.mark.parametrize(
    "setting", ["srv", {"SERVERS": 3}, {"SERVERS": {"": {}}}, {"SERVERS": {"eu": 3}}, {"DISPATCH": "pigeon"}]
)
def test_no_setting_breaks_the_page(setting: Any, owner: Client, granted: Granted, settings: Any) -> None:
    EventFactory.create(due_at=timezone.now() - timedelta(hours=1))
    settings.MMOLOVE_REFERRAL = setting
    assert "MMOLOVE_REFERRAL" in content(owner)
    assert "needs attention" in content(owner)


def test_a_secret_that_raises_is_told(owner: Client, granted: Granted, configure: Configure) -> None:
    def vault() -> str:
        raise RuntimeError("hunter2")

    configure(SECRET=vault)
    assert "is a callable that raised RuntimeError" in content(owner)
    assert "hunter2" not in content(owner)


def test_a_paused_server(owner: Client, granted: Granted) -> None:
    now = timezone.now()
    ServerHealth.objects.create(
        server="default", state="paused", reason="HTTP 401: bad_signature", since=now, probe_at=now, clock_skew=-412,
        clock_host="web-1",
    )  # fmt: skip
    (cause, cure), clock = told()
    assert cause.startswith("Delivery has been paused (since ")
    assert cause.endswith(
        "The clock of web-1 is 412 s ahead of MMOLove's, so its signatures are refused: HTTP 401: bad_signature."
    )
    assert cure.startswith("Have that host's clock set by NTP. Events wait meanwhile, and none is lost.")
    assert clock == ("The clock of web-1 is 412 s ahead of MMOLove's.", "Have that host's clock set by NTP.")
    page = content(owner)
    assert page.count("412 s ahead of MMOLove&#x27;s, so its signatures are refused") == 2
    assert "-412 s (web-1)" in page


def test_the_first_fault_of_an_outage_is_told(
    owner: Client,
    granted: Granted,
    sandbox: Sandbox,
    sign_up: Callable[..., Any],
    drain: Callable[..., Any],
    django_assert_num_queries: Any,
) -> None:
    sign_up()
    sandbox.script(Fault(status=503))
    drain()
    event = OutboundEvent.objects.get()
    assert (event.state, event.last_status, ServerHealth.objects.filter(state="paused").count()) == ("pending", 503, 0)
    due = timezone.localtime(event.due_at).strftime("%Y-%m-%d %H:%M:%S %Z")
    (need,) = attention("admin")
    assert (need.finding.id, need.urgent, need.finding.seen, need.finding.cure) == (
        "delivery.failing",
        False,
        "The last try of 1 event failed. MMOLove, or a proxy before it, has a fault: HTTP 503 with an HTML page.",
        (
            f"Nothing is to be done: it is tried again by itself. The next try ({due}) finds out whether it works "
            "again; sending a test event does so now."
        ),
    )
    assert need.link == "/admin/mmolove_referral/outboundevent/?state__exact=pending&server=default"
    assert "1 outbound event" in html(owner, need.link)
    page = content(owner)
    assert page.count("The last try of 1 event failed.") == 2  # at the top and on the card
    assert "All is well" not in page
    assert "Delivery works" not in page
    assert '<span class="mmolove-badge mmolove-busy">open</span>' in page
    for _more in range(2):
        with django_assert_num_queries(36):
            html(owner)
        EventFactory.create(attempts=1, attempted_at=timezone.now(), last_status=503, last_error="HTTP 503")
    assert "The last tries of 3 events failed." in content(owner)
    OutboundEvent.objects.exclude(pk=event.pk).delete()
    let_pass(60)
    drain()
    assert ids() == []
    assert "Delivery works as far as is known." in content(owner)


def test_another_than_the_default_server_is_named(granted: Granted, configure: Configure) -> None:
    configure(
        SERVERS={"eu": {"SERVER_ID": "srv_eu", "SECRET": "a1b2c3d4e5", "SHARE_URL": "https://mmolove.example/r/eu"}}
    )
    ServerHealth.objects.create(server="eu", state="paused", reason="HTTP 503", since=timezone.now())
    ((cause, _cure),) = told()
    assert cause.startswith("Delivery has been paused (since ")
    assert cause.endswith(" [eu]")


def test_events_for_a_server_that_is_gone(granted: Granted) -> None:
    EventFactory.create(referral__server="gone")
    assert told() == [
        (
            "1 event waits for the server 'gone', which the settings do not have. [gone]",
            "Put MMOLOVE_REFERRAL['SERVERS']['gone'] back, or cancel them in the admin (Outbound events).",
        )
    ]
    assert [(urlsplit(need.link).query, need.urgent) for need in attention("admin")] == [("server=gone", True)]


@pytest.mark.parametrize(
    ("dispatch", "cure"),
    [
        ("thread", ("Open a page of the portal: the thread starts with the first request of each process. If it stays "
                   "silent, look in the log for “Delivery stopped” (logger mmolove_referral.delivery); uWSGI needs "
                   "enable-threads = true.")),
        ("celery", ("Start a worker for the tasks mmolove_referral.*: celery -A <project> worker --queues "
                   "celery. If it runs, look in its log for “Nothing is delivered”: does it have the web "
                   "process's environment?")),
        ("manual", ("Start python manage.py mmolove_deliver --loop, or have cron run python manage.py mmolove_deliver "
                   "--once, or set MMOLOVE_REFERRAL['DISPATCH'] to 'thread'. If it runs, look in its log for "
                   "“Nothing is delivered”: does it have the web process's environment?")),
    ],
)  # fmt: skip
def test_nothing_delivers(
    dispatch: str, cure: str, owner: Client, granted: Granted, celery_app: Celery, configure: Configure
) -> None:
    EventFactory.create()
    let_pass(3600)
    configure(DISPATCH=dispatch)
    assert told()[0] == (
        f"The last to deliver was mmolove_deliver --loop, 60 minutes ago, on host web-1 (DISPATCH = '{dispatch}').",
        cure,
    )
    assert (
        ids()
        == {
            "thread": ["dispatcher.silent", "backlog.old"],
            "celery": ["dispatcher.silent", "sweep.silent", "backlog.old", "sweep.unscheduled"],
            "manual": ["dispatcher.silent", "backlog.old"],
        }[dispatch]
    )
    assert all(need.urgent for need in attention("admin")[:2])
    Heartbeat.objects.all().delete()
    assert told()[0] == (f"Nothing has ever delivered here (DISPATCH = '{dispatch}').", cure)
    assert "Nothing has ever delivered here" in content(owner)


def test_an_unknown_way_to_deliver(granted: Granted, configure: Configure) -> None:
    EventFactory.create()
    let_pass(3600)
    configure(DISPATCH="pigeon")
    wrong = "MMOLOVE_REFERRAL['DISPATCH'] must be one of 'thread', 'celery', 'manual', not 'pigeon'."
    assert told()[0] == (wrong, "“Settings” in the documentation lists every key and what it may be.")


@pytest.mark.parametrize(
    ("reason", "needed"),
    [
        ("not due for long", []),
        ("somebody delivers", ["backlog.old"]),
        ("nobody delivers, but nothing is due", ["dispatcher.silent"]),
        ("paused", ["server.paused", "dispatcher.silent", "backlog.old"]),
        ("no secret", ["settings.missing", "dispatcher.silent"]),
        ("another server", ["server.unknown", "dispatcher.silent"]),
        ("waiting", ["dispatcher.silent"]),
    ],
)
def test_there_are_good_reasons_not_to_send(
    reason: str, needed: list[str], granted: Granted, configure: Configure
) -> None:
    """Then nobody is told that delivery is dead; that nothing gave a sign of life is worth no more than a warning."""
    EventFactory.create(
        referral__server="gone" if reason == "another server" else "default",
        state="accepted" if "nothing is due" in reason else "waiting" if reason == "waiting" else "pending",
    )
    let_pass(100 if reason == "not due for long" else 3600)
    if reason == "somebody delivers":
        Heartbeat.objects.update(seen_at=timezone.now())
    if reason == "paused":
        ServerHealth.objects.create(server="default", state="paused", since=timezone.now())
    if reason == "no secret":
        configure(SECRET="")
    assert ids() == needed
    assert {need.urgent for need in attention("admin") if need.finding.id == "dispatcher.silent"} <= {False}


def test_nothing_is_sent_and_nothing_begins_to_deliver(
    owner: Client, granted: Granted, sandbox: Sandbox, configure: Configure
) -> None:
    EventFactory.create()
    let_pass(3600)
    configure(DISPATCH="thread")
    forced, dispatch.thread.forced = dispatch.thread.forced, True
    try:
        assert "dispatcher.silent" in ids()
        assert not dispatch.thread.running
    finally:
        dispatch.thread.forced = forced
    assert sandbox.log == []
    assert OutboundEvent.objects.get().state == "pending"
    assert Heartbeat.objects.get().seen_at < timezone.now() - timedelta(minutes=50)


def test_rewards_without_a_receiver() -> None:
    connect = (
        "Connect a receiver to django_mmolove_referral.signals.referral_qualified in your AppConfig.ready(), as "
        "“Signals” in the documentation shows, and restart what delivers: what is due is granted by its next run."
    )
    assert told() == [(NO_RECEIVER, connect)]
    assert not attention("admin")[0].urgent
    RewardFactory.create(last_error=NO_RECEIVER)
    assert told() == [(f"1 reward is due. {NO_RECEIVER}", connect)]
    assert attention("admin")[0].urgent
    RewardFactory.create(last_error=NO_RECEIVER)
    assert told() == [(f"2 rewards are due. {NO_RECEIVER}", connect)]


def test_what_failed(granted: Granted) -> None:
    RewardFactory.create(attempts=1, last_error="ValueError: no")
    for state in ("rejected", "exhausted", "exhausted"):
        EventFactory.create(state=state)

    def cure(state: str) -> str:
        return (
            f"Open one in the admin (Outbound events, state “{state}”) and do what its page says, then choose "
            f"“Redeliver now”. For all of them: python manage.py mmolove_redeliver --state {state} --server default. "
            "What nothing can be made of goes from here with “Cancel”."
        )

    assert told() == [
        (
            "1 reward could not be granted, because of ValueError: no.",
            "Mend the receiver of referral_qualified; they are tried again by themselves, or with “Retry reward”.",
        ),
        ("1 event was rejected by MMOLove.", cure("rejected")),
        ("2 events were tried for the whole retry schedule, in vain.", cure("exhausted")),
    ]
    RewardFactory.create(attempts=1, last_error="ValueError: no")
    assert told()[0][0] == "2 rewards could not be granted, one of them because of ValueError: no."


def test_a_clock_that_is_off(granted: Granted) -> None:
    ServerHealth.objects.create(server="default", since=timezone.now(), clock_skew=90, clock_host="web-1")
    assert told() == [("The clock of web-1 is 90 s behind MMOLove's.", "Have that host's clock set by NTP.")]


def test_what_the_system_checks_find_is_told(owner: Client, granted: Granted, settings: Any) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "ReferralMiddleware" not in name]
    ((cause, cure),) = told()
    assert cause == "The referral middleware is not installed: no visit is captured, no sign-up is attributed."
    assert cure.startswith("Add 'django_mmolove_referral.middleware.ReferralMiddleware' to MIDDLEWARE")
    assert cause in content(owner)
    assert "ReferralMiddleware stands where it has to" not in content(owner)


def test_the_most_pressing_comes_first_and_leads_to_where_to_click(owner: Client, configure: Configure) -> None:
    configure(SERVERS={"eu": {"SERVER_ID": "srv_eu", "SHARE_URL": "https://mmolove.example/r/eu"}})
    EventFactory.create()
    let_pass(3600)
    EventFactory.create(state="rejected")
    EventFactory.create(state="exhausted")
    ServerHealth.objects.create(server="default", since=timezone.now(), clock_skew=90, clock_host="web-1")
    RewardFactory.create(attempts=1, last_error="ValueError: no")
    found = attention("admin")
    events, servers = (f"/admin/mmolove_referral/{model}/" for model in ("outboundevent", "serverhealth"))
    assert [(need.finding.id, need.link, need.urgent) for need in found] == [
        ("settings.missing", servers, True),
        ("dispatcher.silent", f"{events}?state__exact=pending", True),
        ("rewards.no_receiver", "/admin/mmolove_referral/reward/?state__exact=due", True),
        ("backlog.old", f"{events}?state__exact=pending&server=default", True),
        ("events.rejected", f"{events}?state__exact=rejected&server=default", False),
        ("events.exhausted", f"{events}?state__exact=exhausted&server=default", False),
        ("clock.skew", servers, False),
    ]
    page = content(owner)
    links = [unescape(link) for link in re.findall(r'<a href="([^"]+)">Show', page)]
    assert links == [need.link for need in found]
    assert [re.findall(rf"<code>{need.finding.id}</code>", page) for need in found] == [
        [f"<code>{need.finding.id}</code>"] for need in found
    ]
    pages = [html(owner, link) for link in links]
    for number in (1, 3, 4, 5):
        assert "1 outbound event" in pages[number]
    assert "1 reward" in pages[2]


def test_failing_rewards_are_what_their_link_shows(owner: Client, granted: Granted) -> None:
    RewardFactory.create()
    RewardFactory.create(attempts=1, last_error="ValueError: no")
    (need,) = attention("admin")
    assert need.link == "/admin/mmolove_referral/reward/?attention=1"
    assert "1 reward" in html(owner, need.link)


def test_every_place_is_of_a_finding_that_there_is() -> None:
    docs = (Path(__file__).parents[1] / "docs" / "operations.md").read_text("utf-8")
    for name in PLACES:
        area, _dot, what = name.partition(".")
        assert re.search(rf"^\| [^|]*`{area}\.([^|]*\.)?{what}`", docs, re.MULTILINE), name


def test_many_are_more_than(monkeypatch: pytest.MonkeyPatch, granted: Granted, owner: Client) -> None:
    monkeypatch.setattr("django_mmolove_referral.stats.COUNTED", 1)
    monkeypatch.setattr("django_mmolove_referral.doctor.delivery.CAP", 1)
    monkeypatch.setattr("django_mmolove_referral.admin.overview.COUNTED", 1)
    for state in ("rejected", "rejected", "rejected", "waiting", "pending"):
        EventFactory.create(state=state)
    assert told()[0][0] == "over 1 events were rejected by MMOLove."
    assert "1+" in content(owner)
    assert COUNTED == CAP == 10_000


# -- what it shows


def test_the_numbers(owner: Client, granted: Granted) -> None:
    alice = UserFactory.create(name="alice@example.com")
    now = timezone.now()
    for number in range(1234):
        Referral.objects.create(server="default", registered_at=now if number < 617 else None, referrer=alice)
    event = EventFactory.create(referral__referrer=alice)
    for status, ms in ((200, 1500), (503, 20), (422, 20)):
        DeliveryAttempt.objects.create(
            event=event, started_at=now, duration_ms=ms, signed_at=0, status=status, error="" if status == 200 else "no"
        )
    page = content(owner)
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    since = date_format(collect().days[0].day, "MONTH_DAY_FORMAT")
    for words in (
        "The last 30 days",
        f"Accepted 1 request since {since}",
        f"Refused 1 request since {since}; 1 more got no usable answer",
        "Open 1 1 pending, 0 waiting for another event",
        "Oldest open 0\xa0minutes".replace("\xa0", " "),
        "Answer time 20 ms median of the last 3; 95 % within 1,500 ms",
        "1,235 sign-ups Most on a day: 1,235",
        "Captured signed up by a share link",
        "1,235 100 %",
        "617 50 % 50 %",
    ):
        assert words in text.replace("\xa0", " ")
    assert f'<a href="{reverse("admin:mmolove_referral_outboundevent_change", args=[event.pk])}">' in page
    assert "alice@example.com" in page
    assert page.count("<table") == 4
    assert 'role="img"' in page
    assert "style=" not in page


def test_one_is_one(owner: Client, granted: Granted) -> None:
    EventFactory.create()
    page = content(owner)
    assert "</span> 1 sign-up</li>" in page
    assert "by day: 1 sign-up<" in page
    assert ": 1 sign-up</title></rect>" in page
    assert "1 sign-ups" not in page
    ReferralFactory.create()
    assert "</span> 2 sign-ups</li>" in content(owner)


def test_times_on_a_card_are_told_to_the_second(owner: Client, granted: Granted) -> None:
    moment = datetime(2030, 1, 31, 18, 30, 7, tzinfo=timezone.get_default_timezone())
    ServerHealth.objects.create(
        server="default", state="paused", reason="HTTP 503", since=moment, probe_at=moment, last_success_at=moment
    )
    assert content(owner).count("2030-01-31 18:30:07 UTC") == 6  # of both texts two each, and two on the card


def test_a_page_has_the_name_that_leads_to_it(owner: Client, granted: Granted) -> None:
    name = "Server health"
    assert f">{name}</a>" in html(owner, "/admin/mmolove_referral/")
    assert f"<h1>{name}</h1>" in html(owner, "/admin/mmolove_referral/serverhealth/")
    assert f">{name}</h2>" in content(owner)
    tested = owner.post("/admin/mmolove_referral/serverhealth/default/test/").content.decode()
    assert f'<li><a href="/admin/mmolove_referral/serverhealth/">{name}</a></li>' in tested


def test_markup_is_text(owner: Client, granted: Granted, configure: Configure) -> None:
    evil = "<script>alert(1)</script>"
    ReferralFactory.create(referrer=UserFactory.create(name=f"{evil}@example.com"))
    configure(SERVER_ID=evil, SERVERS={})
    ServerHealth.objects.create(
        server="default", state="paused", reason=evil, since=timezone.now(), clock_host=evil, clock_skew=99
    )
    page = content(owner)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_no_secret_and_no_token(owner: Client, granted: Granted) -> None:
    EventFactory.create(
        referral__token="a-token-that-nobody-should-see",
        state="rejected",
        last_error="no a-token-that-nobody-should-see",
    )
    page = html(owner)
    assert "a-token" not in page
    assert "test-secret" not in page


def test_the_number_of_queries_is_constant(owner: Client, granted: Granted, django_assert_num_queries: Any) -> None:
    EventFactory.create()
    RewardFactory.create(referral__referrer=UserFactory.create())
    with django_assert_num_queries(35):
        html(owner)
    for _number in range(5):
        EventFactory.create(referral__referrer=UserFactory.create(), state="waiting")
        RewardFactory.create(referral__referrer=UserFactory.create())
    with django_assert_num_queries(35):
        html(owner)


# -- who sees it


def test_who_may_look_at_all_of_it_looks(staff: Staff, granted: Granted) -> None:
    page = content(staff(*VIEWS))
    assert "all is well" in page
    assert "Send test event" not in page
    assert 'method="post"' not in page


def test_who_may_send_test_events_gets_the_button(staff: Staff, granted: Granted) -> None:
    assert "Send test event" in content(staff(*VIEWS, "send_test_event"))


@pytest.mark.parametrize("missing", VIEWS)
def test_who_may_not_see_a_part_does_not_see_the_whole(missing: str, staff: Staff) -> None:
    client = staff(*(view for view in VIEWS if view != missing))
    assert client.get(PATH).status_code == 403
    assert PATH not in html(client, "/admin/mmolove_referral/")


def test_nobody_looks_without_logging_in() -> None:
    response = Client().get(PATH)
    assert (response.status_code, response["Location"]) == (302, f"/admin/login/?next={PATH}")


def test_a_player_is_no_staff(staff: Staff) -> None:
    client = Client()
    client.force_login(UserFactory.create())
    assert client.get(PATH).status_code == 302


@pytest.mark.parametrize("at", ["", *(f"{model}/" for model in MODELS if model != "deliveryattempt")])
def test_it_is_linked_from_the_index_and_the_lists(at: str, staff: Staff) -> None:
    assert f'href="{PATH}"' in html(staff(*VIEWS), f"/admin/mmolove_referral/{at}")


# -- the portal's own site


class Desk(AdminSite):
    site_header = "Night shift"


desk, bare = Desk(name="desk"), AdminSite(name="bare")
for model, of in (
    (Referral, ours.ReferralAdmin),
    (OutboundEvent, ours.OutboundEventAdmin),
    (Reward, ours.RewardAdmin),
    (ServerHealth, ours.ServerHealthAdmin),
):
    desk.register(model, of)
bare.register(ServerHealth, ours.ServerHealthAdmin)
bare.register(OutboundEvent, ours.OutboundEventAdmin)

urlpatterns = [
    path("desk/", desk.urls),
    path("bare/", bare.urls),
    path("admin/", admin.site.urls),
    path("", include("django_mmolove_referral.urls")),
]


@pytest.fixture
def several_sites(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


@pytest.mark.usefixtures("several_sites", "granted")
@pytest.mark.parametrize("at", ["serverhealth/overview/", "serverhealth/", "", "outboundevent/"])
def test_every_link_stays_on_its_site(at: str, owner: Client) -> None:
    RewardFactory.create(attempts=1, referral__referrer=UserFactory.create())
    EventFactory.create(state="rejected")
    EventFactory.create()
    ServerHealth.objects.create(server="default", since=timezone.now())
    page = html(owner, f"/desk/mmolove_referral/{at}")
    assert "Night shift" in page
    links = [urlsplit(link).path for link in re.findall(r'(?:href|action)="([^"#]+)"', page)]
    assert "/desk/mmolove_referral/serverhealth/overview/" in [*links, f"/desk/mmolove_referral/{at}"]
    assert {link.split("/")[1] for link in links if link.startswith("/")} - {"static", ""} == {"desk"}


@pytest.mark.usefixtures("several_sites", "granted")
def test_a_test_event_stays_on_its_site(owner: Client) -> None:
    page = owner.post("/desk/mmolove_referral/serverhealth/default/test/").content.decode()
    assert 'href="/desk/mmolove_referral/serverhealth/"' in page
    assert '"/admin/' not in page


@pytest.mark.usefixtures("several_sites")
def test_a_site_may_leave_models_out(owner: Client) -> None:
    RewardFactory.create(attempts=1, referral__referrer=UserFactory.create(name="alice@example.com"))
    EventFactory.create(state="rejected")
    page = content(owner, "/bare/mmolove_referral/serverhealth/overview/")
    assert "rewards.no_receiver" in page
    assert "Show these rewards" not in page
    assert "alice@example.com" in page


# -- every word can be translated


@pytest.fixture
def strange_language(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every message that goes through gettext comes out in « »."""

    def message(text: str) -> str:
        return f"«{text}»"

    catalogue = translation._trans  # type: ignore[attr-defined]
    monkeypatch.setattr(catalogue, "gettext", message, raising=False)
    monkeypatch.setattr(catalogue, "pgettext", lambda context, text: message(text), raising=False)
    monkeypatch.setattr(
        catalogue, "ngettext", lambda one, many, number: message(one if number == 1 else many), raising=False
    )
    with translation.override("en"):
        yield


@pytest.mark.usefixtures("strange_language")
def test_every_word_goes_through_gettext(owner: Client, configure: Configure) -> None:
    configure(SERVERS={"eu": {"SERVER_ID": "srv_eu"}})
    now = timezone.now()
    ServerHealth.objects.create(
        server="default", state="paused", since=now, probe_at=now, last_success_at=now, clock_skew=99
    )
    for event in (EventFactory.create(state="rejected"), EventFactory.create(state="exhausted"), EventFactory.create()):
        DeliveryAttempt.objects.create(event=event, started_at=now, duration_ms=9, signed_at=0, status=200)
    RewardFactory.create(attempts=1, referral__referrer=UserFactory.create(name="7"))
    EventFactory.create(referral__server="gone")
    page = content(owner)
    texts = re.findall(r">([^<>]+)<", page) + re.findall(r'(?:aria-label|value)="([^"]+)"', page)
    untranslated = [text.strip() for text in texts if re.search(r"[a-zA-Z]", _outside(text))]
    data = r"(default|eu|gone|srv_\w+|http://\S+|reg-\d+|99 s \(\)|[a-z_]+\.[a-z_]+|MMOLOVE_REFERRAL\[.*|[\w-]{30,})"
    moment = r"[\d-]{10} [\d:]{8} UTC"
    assert [text for text in untranslated if not re.fullmatch(f"{data}|{moment}", text)] == []
    assert len(ids()) >= 7


def _outside(text: str) -> str:
    """``text`` without what is in « », which may be nested."""
    while (shorter := re.sub(r"«[^«»]*»", "", text)) != text:
        text = shorter
    return text
