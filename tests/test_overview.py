"""The overview: what needs a person, word for word; who may see it; and that it belongs to the portal's own site."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import include, path, reverse
from django.utils import timezone, translation
from django.utils.formats import date_format

from django_mmolove_referral import admin as ours
from django_mmolove_referral.attention import Finding, findings
from django_mmolove_referral.delivery.rewards import NO_RECEIVER
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.stats import COUNTED, collect

from .clock import let_pass
from .conftest import Granted
from .factories import EventFactory, ReferralFactory, RewardFactory, UserFactory

pytestmark = pytest.mark.django_db

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


def told() -> list[tuple[str, str]]:
    return [(finding.advice.cause, finding.advice.cure) for finding in findings(collect())]


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
        "MMOLOVE_REFERRAL['SECRET'] must be the referral secret from the MMOLove dashboard, or a callable that returns "
        "it, or set the environment variable MMOLOVE_REFERRAL_SECRET."
    )
    assert told() == [("Server “default”: Nothing is delivered.", error)]
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
    ((cause, cure),) = told()
    assert cause.startswith("Server “default”: Delivery has been paused (since ")
    assert cause.endswith(
        "The clock of web-1 is 412 s ahead of MMOLove's, so its signatures are refused: HTTP 401: bad_signature."
    )
    assert cure.startswith("Have that host's clock set by NTP. Events wait meanwhile, and none is lost.")
    page = content(owner)
    assert page.count("412 s ahead of MMOLove&#x27;s") == 2
    assert "-412 s (web-1)" in page


def test_events_for_a_server_that_is_gone(granted: Granted, configure: Configure) -> None:
    ServerHealth.objects.create(server="gone", since=timezone.now())
    EventFactory.create(referral__server="gone")
    assert told() == [
        (
            "1 open events are for server “gone”, which is not configured any more.",
            "Put it back into MMOLOVE_REFERRAL['SERVERS'], or cancel them.",
        )
    ]


@pytest.mark.parametrize(
    ("dispatch", "cure"),
    [
        ("thread", ("Restart the portal. Delivery is by a thread of the web process (MMOLOVE_REFERRAL['DISPATCH'] = "
                   "'thread'), which needs real threads: with uWSGI, enable-threads = true.")),
        ("celery", ("Start the Celery worker for the queue of mmolove_referral.* and the beat with its sweep "
                   "(MMOLOVE_REFERRAL['DISPATCH'] = 'celery').")),
        ("manual", ("Start manage.py mmolove_deliver --loop, or have cron run mmolove_deliver --once "
                   "(MMOLOVE_REFERRAL['DISPATCH'] = 'manual').")),
        ("pigeon", "MMOLOVE_REFERRAL['DISPATCH'] must be one of 'thread', 'celery', 'manual', not 'pigeon'."),
    ],
)  # fmt: skip
def test_nothing_delivers(dispatch: str, cure: str, granted: Granted, configure: Configure) -> None:
    event = EventFactory.create()
    let_pass(3600)
    configure(DISPATCH=dispatch)
    event.refresh_from_db()
    since = re.escape(_when(event.due_at))
    ((cause, told_cure),) = told()
    assert re.fullmatch(f"Nothing delivers: events have been due since {since}, and nobody sends them.", cause)
    assert told_cure == cure


def _when(moment: Any) -> str:
    from django_mmolove_referral.advice import when

    return when(moment)


CONNECT = (
    "Connect a receiver to django_mmolove_referral.signals.referral_qualified in an AppConfig's ready(), and restart "
    "all processes."
)


def test_rewards_without_a_receiver() -> None:
    assert told() == [
        ("No receiver of referral_qualified is connected, so a qualified referral will earn nobody anything.", CONNECT)
    ]
    RewardFactory.create(last_error=NO_RECEIVER)
    retry = f"{CONNECT} Then mark the rewards and choose “Retry reward”."
    assert told() == [("1 reward is due, and no receiver of referral_qualified is there to grant it.", retry)]
    RewardFactory.create(last_error=NO_RECEIVER)
    assert told() == [("2 rewards are due, and no receiver of referral_qualified is there to grant them.", retry)]


def test_what_failed(granted: Granted) -> None:
    RewardFactory.create(attempts=1, last_error="ValueError: no")
    for state in ("rejected", "exhausted", "exhausted"):
        EventFactory.create(state=state)
    cure = "Open one: its page says why and what to do. Then redeliver it."
    assert told() == [
        (
            "1 reward could not be granted: the portal's receiver of referral_qualified raised.",
            "Read the error in the list and mend the receiver. They are tried again by themselves.",
        ),
        ("MMOLove rejected 1 event.", cure),
        ("2 events were tried for the whole retry schedule, in vain.", cure),
    ]


def test_a_clock_that_is_off(granted: Granted) -> None:
    ServerHealth.objects.create(server="default", since=timezone.now(), clock_skew=90, clock_host="web-1")
    assert told() == [
        (
            "The clock of web-1 is 90 s behind MMOLove's. Delivery allows for it, for now.",
            "Have that host's clock set by NTP.",
        )
    ]


def test_the_most_pressing_comes_first_and_leads_to_where_to_click(owner: Client, configure: Configure) -> None:
    configure(SERVERS={"eu": {"SERVER_ID": "srv_eu"}})
    EventFactory.create()
    let_pass(3600)
    EventFactory.create(state="rejected")
    RewardFactory.create(attempts=1, last_error="ValueError: no")
    found = findings(collect())
    assert [(finding.model, finding.query, finding.urgent) for finding in found] == [
        ("serverhealth", {}, True),
        ("outboundevent", {"state__exact": "pending"}, True),
        ("", {}, False),  # no receiver
        ("reward", {"state__exact": "due"}, True),
        ("outboundevent", {"state__exact": "rejected"}, False),
    ]
    page = content(owner)
    links = re.findall(r'<a href="([^"]+)">Show', page)
    assert len(links) == 4
    for link in links:
        assert "<title>" in html(owner, link)
    assert "1 outbound event" in html(owner, links[1])


def test_many_are_more_than(monkeypatch: pytest.MonkeyPatch, granted: Granted, owner: Client) -> None:
    monkeypatch.setattr("django_mmolove_referral.stats.COUNTED", 1)
    monkeypatch.setattr("django_mmolove_referral.attention.COUNTED", 1)
    monkeypatch.setattr("django_mmolove_referral.admin.overview.COUNTED", 1)
    for state in ("rejected", "rejected", "rejected", "waiting", "pending"):
        EventFactory.create(state=state)
    assert told()[0][0] == "MMOLove rejected more than 1 events."
    assert "1+" in content(owner)
    assert COUNTED == 10_000


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
        f"Accepted 1 requests since {since}",
        f"Refused 1 requests since {since}; 1 more got no usable answer",
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
    with django_assert_num_queries(18):
        html(owner)
    for _number in range(5):
        EventFactory.create(referral__referrer=UserFactory.create(), state="waiting")
        RewardFactory.create(referral__referrer=UserFactory.create())
    with django_assert_num_queries(18):
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
    assert "1 reward could not be granted" in page
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
    page = content(owner)
    texts = re.findall(r">([^<>]+)<", page) + re.findall(r'(?:aria-label|value)="([^"]+)"', page)
    untranslated = [text.strip() for text in texts if re.search(r"[a-zA-Z]", _outside(text))]
    data = r"(default|eu|srv_\w+|http://\S+|reg-\d+|99 s \(\)|MMOLOVE_REFERRAL\[.*|[\w-]{30,})"
    assert [text for text in untranslated if not re.fullmatch(data, text)] == []
    assert Finding in {type(finding) for finding in findings(collect())}


def _outside(text: str) -> str:
    """``text`` without what is in « », which may be nested."""
    while (shorter := re.sub(r"«[^«»]*»", "", text)) != text:
        text = shorter
    return text
