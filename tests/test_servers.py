"""More than one MMOLove server: sandboxes on sockets of their own, each with its own secret, key, id and address."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import reverse

from django_mmolove_referral import (
    attach_referral,
    mark_qualified,
    mark_qualified_many,
    mark_registered,
    mark_reversed,
    share_link,
    signals,
    stats,
)
from django_mmolove_referral.conf import ConfigError, conf
from django_mmolove_referral.delivery import lane
from django_mmolove_referral.doctor import examine, needs
from django_mmolove_referral.models import OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.sandbox.contract import Server
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.server import SandboxServer
from django_mmolove_referral.signals import referral_qualified

from .clock import let_pass
from .conftest import Granted, Hear
from .factories import UserFactory
from .pages import code
from .portal import register
from .visitors import Browser, urls

pytestmark = pytest.mark.django_db(transaction=True)

ALIASES = ("eu", "us", "asia")
REGISTER = {"eu": "/register/", "us": "/us/register/", "asia": "/asia/register/"}


class Realm:
    """One of MMOLove's servers, on a socket of its own."""

    def __init__(self, alias: str, server: SandboxServer) -> None:
        self.alias, self.server, self.sandbox = alias, server, server.sandbox
        self.id = f"srv_{alias}"

    @property
    def setting(self) -> dict[str, str]:
        return {
            "SERVER_ID": self.id,
            "SECRET": f"secret of {self.alias}",
            "KEY_ID": f"key-{self.alias}",
            "ENDPOINT": self.server.endpoint,
            "SHARE_URL": self.server.share_url(self.id),
        }

    def mint(self) -> str:
        return self.sandbox.mint(self.id, "alice")

    def accepted(self) -> list[tuple[str, str]]:
        """Kind and token of what was accepted here."""
        return [(entry.kind, entry.token) for entry in self.sandbox.events(accepted=True, test=False)]


Realms = dict[str, Realm]


@pytest.fixture
def realms(settings: Any) -> Iterator[Realms]:
    """Three servers and no ``"default"``."""
    with ExitStack() as stack:
        made = {}
        for alias in ALIASES:
            server = Server(f"secret of {alias}", register_url=f"http://testserver{REGISTER[alias]}")
            made[alias] = Realm(alias, stack.enter_context(SandboxServer(Sandbox({f"srv_{alias}": server}))))
        configure(settings, made)
        yield made


def configure(settings: Any, realms: Realms, **keys: Any) -> None:
    settings.MMOLOVE_REFERRAL = {
        "SERVERS": {alias: realm.setting for alias, realm in realms.items()},
        "DISPATCH": "manual",
        **keys,
    }


def recipe(block: str, **names: Any) -> dict[str, Any]:
    exec(compile(block, "<recipe>", "exec"), names)
    return names


def follow(browser: Browser, link: str) -> str:
    """Follow a share link to MMOLove and back; returns the token that the visitor came back with."""
    away = browser.get(link)["Location"]
    back = requests.get(away, allow_redirects=False, timeout=30).headers["Location"]
    parts = urlsplit(back)
    assert browser.get(f"{parts.path}?{parts.query}").status_code == 200
    return parts.query.removeprefix("mmref=")


@pytest.fixture(autouse=True)
def registration_pages(settings: Any) -> None:
    settings.ROOT_URLCONF = urls(**{"us/register": register, "asia/register": register})


def referral_of(name: str) -> Referral:
    return Referral.objects.get(**{f"user__{get_user_model().USERNAME_FIELD}": name})


# -- the whole way


def test_from_the_share_link_to_the_reward_on_each_server(
    realms: Realms, drain: Callable[..., Any], granted: Granted
) -> None:
    alice = UserFactory.create()
    tokens = {}
    for alias in ALIASES:
        browser = Browser()
        tokens[alias] = follow(browser, share_link(alice, server=alias))
        assert browser.sign_up(f"{alias}@example.com").status_code == 200
    drain()
    for referral in Referral.objects.all():
        mark_qualified(referral.user)
    drain()
    for alias, realm in realms.items():
        referral = referral_of(f"{alias}@example.com")
        assert (referral.server, referral.token, referral.referrer) == (alias, tokens[alias], alice)
        assert (referral.state, referral.reward.state) == ("qualified", "granted")
        assert realm.accepted() == [("registered", tokens[alias]), ("qualified", tokens[alias])]
        assert realm.sandbox.events(accepted=False) == []
        assert {json.loads(bytes(event.body))["server_id"] for event in referral.events.all()} == {realm.id}
    assert {referral.server for referral in granted} == set(ALIASES)


def test_each_is_signed_with_its_own_secret_and_key(
    realms: Realms, drain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    signatures: dict[str, set[str]] = {alias: set() for alias in ALIASES}
    for alias, realm in realms.items():

        def ingest(
            body: bytes, signature: str = "", *, realm: Realm = realm, real: Any = realm.sandbox.ingest, **more: Any
        ) -> Any:
            signatures[realm.alias].add(signature.rpartition(",kid=")[2])
            return real(body, signature, **more)

        monkeypatch.setattr(realm.sandbox, "ingest", ingest)
        attach_referral(UserFactory.create(), realm.mint(), server=alias)
    done = drain()
    assert (done.accepted, done.refused, done.postponed) == (3, 0, 0)
    assert signatures == {alias: {f"key-{alias}"} for alias in ALIASES}
    realms["us"].sandbox.rotate_secret("srv_us", "another")
    for alias, realm in realms.items():
        attach_referral(UserFactory.create(), realm.mint(), server=alias)
    done = drain()
    assert (done.accepted, done.postponed) == (2, 1), "a secret is good for one server"
    assert ServerHealth.objects.get(state="paused").server == "us"


# -- which server a visit belongs to


def by_path(request: HttpRequest) -> str:
    first = request.path.split("/")[1]
    return first if first in ALIASES else "eu"


def crash(request: HttpRequest) -> str:
    raise ZeroDivisionError


@pytest.mark.parametrize("alias", ALIASES)
def test_by_the_registration_page(alias: str, realms: Realms, settings: Any, drain: Callable[..., Any]) -> None:
    """Visitors from MMOLove's own pages, who followed no share link of the portal's."""
    configure(settings, realms, RESOLVE_SERVER=by_path)
    browser, token = Browser(), realms[alias].mint()
    browser.get(f"{REGISTER[alias]}?mmref={token}")
    browser.sign_up()
    drain()
    assert Referral.objects.get().server == alias
    assert realms[alias].accepted() == [("registered", token)]


@pytest.mark.parametrize(
    ("host", "alias"), [("us.emberfall.example", "us"), ("eu.emberfall.example", "eu"), ("emberfall.example", "eu")]
)
def test_by_host_as_documented(host: str, alias: str, realms: Realms, settings: Any) -> None:
    resolve = recipe(code("servers.md", "HOSTS ="))["server_of"]
    configure(settings, realms, RESOLVE_SERVER=resolve)
    browser = Browser()
    browser.get(f"/register/?mmref={realms[alias].mint()}", host=host)
    browser.ask("post", "/register/", {"name": "bob@example.com"}, headers={"host": host})
    assert Referral.objects.get().server == alias


def test_the_settings_and_the_resolver_as_documented(
    monkeypatch: pytest.MonkeyPatch, settings: Any, realms: Realms
) -> None:
    module = ModuleType("portal.referrals")
    module.__dict__.update(recipe(code("servers.md", "sends the players of")))
    monkeypatch.setitem(sys.modules, "portal", ModuleType("portal"))
    monkeypatch.setitem(sys.modules, "portal.referrals", module)
    environment = {"MMOLOVE_SECRET_EU": "one", "MMOLOVE_SECRET_US": "two"}
    written = recipe(code("servers.md", '"SERVERS": {'), os=SimpleNamespace(environ=environment))
    settings.MMOLOVE_REFERRAL = written["MMOLOVE_REFERRAL"]
    assert conf.problems() == []
    assert [(server.alias, server.server_id, server.credentials().key_id) for server in conf.servers.values()] == [
        ("eu", "emberfall-eu", ""),
        ("us", "emberfall-us", "2026-11"),
    ]
    for path, alias in (("/us/register/", "us"), ("/register/", "eu")):
        browser = Browser()
        browser.get(f"{path}?mmref=tok-{alias}")
        browser.sign_up(f"{alias}@example.com")
        assert referral_of(f"{alias}@example.com").server == alias


@pytest.mark.parametrize("answer", [None, ""])
def test_without_an_answer_the_share_link_tells(answer: object, realms: Realms, settings: Any) -> None:
    configure(settings, realms, RESOLVE_SERVER=lambda request: answer)
    alice = UserFactory.create()
    browser = Browser()
    token = follow(browser, share_link(alice, server="asia"))
    browser.visit(token)  # once more: it stays where it is
    browser.sign_up()
    assert (Referral.objects.get().server, Referral.objects.get().referrer) == ("asia", alice)


def test_without_an_answer_and_a_share_link_it_is_the_first(realms: Realms) -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up()
    assert Referral.objects.get().server == "eu"


def test_the_resolver_is_asked_before_the_share_link(realms: Realms, settings: Any) -> None:
    configure(settings, realms, RESOLVE_SERVER=by_path)
    browser, alice = Browser(), UserFactory.create()
    browser.get(share_link(alice, server="us"))
    browser.get(f"/asia/register/?mmref={realms['asia'].mint()}")
    browser.sign_up()
    referral = Referral.objects.get()
    assert (referral.server, referral.referrer_code) == ("asia", ""), "a code is for the server that it was shared for"


WRONG: dict[str, Any] = {
    "raises": crash,
    "unknown": lambda request: "atlantis",
    "no alias": lambda request: 5,
    "a list": lambda request: ["eu"],
}


@pytest.mark.parametrize("resolve", WRONG.values(), ids=WRONG)
def test_a_server_that_cannot_be_told_loses_nothing(
    resolve: Any, realms: Realms, settings: Any, caplog: pytest.LogCaptureFixture, drain: Callable[..., Any]
) -> None:
    configure(settings, realms, RESOLVE_SERVER=resolve)
    alice, browser = UserFactory.create(), Browser()
    token = follow(browser, share_link(alice, server="us"))
    assert browser.sign_up().status_code == 200
    assert not Referral.objects.exists()
    assert browser.log_in().status_code == 200
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == [
        "The server of a visit could not be told; it will be at the sign-up.",
        "A referral could not be attached; it will be at the account's next login.",
    ]
    assert token not in caplog.text

    configure(settings, realms)
    browser.log_in()
    referral = Referral.objects.get()
    assert (referral.server, referral.token, referral.referrer) == ("us", token, alice)
    drain()
    assert realms["us"].accepted() == [("registered", token)]


# -- share links


def test_each_link_leads_to_its_servers_share_url(realms: Realms) -> None:
    alice = UserFactory.create()
    for alias, realm in realms.items():
        block = code("servers.md", "link = share_link").replace('"us"', repr(alias))
        request = SimpleNamespace(user=alice, build_absolute_uri=lambda path: f"https://portal.example{path}")
        link = recipe(block, request=request, share_link=share_link)["link"]
        assert link == f"https://portal.example/join/{alias}/{alice.pk}/"
        assert Browser().get(urlsplit(link).path)["Location"] == f"{realm.setting['SHARE_URL']}?ref={alice.pk}"
    with pytest.raises(ConfigError, match=r"There is no server 'default' .* there is 'eu', 'us', 'asia'"):
        share_link(alice)


def test_a_visitor_who_follows_links_of_two_servers_keeps_both_codes(realms: Realms, settings: Any) -> None:
    configure(settings, realms, RESOLVE_SERVER=by_path)
    alice, carol = UserFactory.create_batch(2)
    browsers = {}
    for last in ("eu", "us"):
        browser = browsers[last] = Browser()
        browser.get(share_link(alice, server="eu"))
        browser.get(share_link(carol, server="us"))
        first = "us" if last == "eu" else "eu"
        for alias in (first, last):
            browser.get(f"{REGISTER[alias]}?mmref={realms[alias].mint()}")
        browser.sign_up(f"{last}@example.com")
    assert (referral_of("eu@example.com").server, referral_of("eu@example.com").referrer) == ("eu", alice)
    assert (referral_of("us@example.com").server, referral_of("us@example.com").referrer) == ("us", carol)


def test_without_a_resolver_the_link_that_was_followed_last_tells(realms: Realms) -> None:
    alice, carol = UserFactory.create_batch(2)
    browser = Browser()
    follow(browser, share_link(alice, server="us"))
    token = follow(browser, share_link(carol, server="asia"))
    browser.sign_up()
    referral = Referral.objects.get()
    assert (referral.server, referral.token, referral.referrer) == ("asia", token, carol)


def test_the_doctor_shows_each_link(realms: Realms) -> None:
    said = {finding.server: finding.seen for finding in examine(offline=True) if finding.id == "share_links.ok"}
    assert said == {
        alias: f"Share links such as /join/{alias}/code/ lead to {realm.setting['SHARE_URL']}."
        for alias, realm in realms.items()
    }


# -- one account, several referrals


def member(realms: Realms, *aliases: str) -> Any:
    user = UserFactory.create()
    for alias in aliases:
        attach_referral(user, realms[alias].mint(), server=alias)
    return user


def test_an_account_has_one_referral_and_one_reward_for_each_server(
    realms: Realms, drain: Callable[..., Any], granted: Granted
) -> None:
    bob = member(realms, "eu", "us")
    assert attach_referral(bob, "another", server="us") == Referral.objects.get(server="us")
    drain()
    recipe(code("servers.md", 'mark_qualified(user, server="us")'), mark_qualified=mark_qualified, user=bob)
    drain()
    assert [referral.server for referral in granted] == ["us"]
    assert mark_qualified_many([bob], server="eu").now == 1
    drain()
    assert [referral.server for referral in granted] == ["us", "eu"]
    assert list(Reward.objects.values_list("state", flat=True)) == ["granted", "granted"]
    assert realms["asia"].sandbox.log == []
    mark_reversed(bob, server="eu")
    drain()
    assert dict(Referral.objects.values_list("server", "state")) == {"eu": "reversed", "us": "qualified"}
    assert [kind for kind, _ in realms["eu"].accepted()] == ["registered", "qualified", "reversed"]
    assert [kind for kind, _ in realms["us"].accepted()] == ["registered", "qualified"]


@pytest.mark.parametrize("verb", [mark_registered, mark_qualified, mark_reversed])
def test_which_is_meant_has_to_be_said(verb: Any, realms: Realms) -> None:
    bob = member(realms, "us", "eu")
    before = OutboundEvent.objects.count()
    with pytest.raises(ValueError, match=r"say which with server=…: 'eu', 'us'\.$"):
        verb(bob)
    assert OutboundEvent.objects.count() == before
    assert verb(bob, server="us").referral.server == "us"
    assert verb(bob, server="asia") is None


def test_the_receiver_as_documented_rewards_in_the_realm(realms: Realms, drain: Callable[..., Any]) -> None:
    paid: list[tuple[Any, str]] = []

    class Purse:
        """The portal's model: what is asked of it."""

        @classmethod
        def filter(cls, *, owner: Any, realm: str) -> Any:
            return SimpleNamespace(update=lambda gold: paid.append((owner, realm)))

        objects: Any = None

    Purse.objects = Purse
    names = recipe(
        code("servers.md", "realm=referral.server"),
        receiver=receiver,
        referral_qualified=referral_qualified,
        Purse=Purse,
        F=lambda name: 0,
    )
    try:
        alice, bob = UserFactory.create_batch(2)
        for alias in ("eu", "us"):
            attach_referral(bob, realms[alias].mint(), server=alias, code=str(alice.pk))
            mark_qualified(bob, server=alias)
        drain()
        drain()
    finally:
        referral_qualified.disconnect(names["give_gold"])
    assert sorted(paid, key=lambda one: one[1]) == [(alice, "eu"), (alice, "us")]


def test_a_members_click_changes_nothing_by_itself_and_the_portal_may_take_it(
    realms: Realms, settings: Any, drain: Callable[..., Any]
) -> None:
    """A veteran of one server may be new on another; only the portal knows."""
    begin = recipe(code("servers.md", "def first_character"))["first_character"]

    def play(request: HttpRequest) -> HttpResponse:
        begin(request, request.GET["server"])
        return HttpResponse()

    settings.ROOT_URLCONF = urls(**{"us/register": register, "play": play})
    alice, browser = UserFactory.create(), Browser()
    browser.sign_up(login="1")
    bob = get_user_model()._default_manager.exclude(pk=alice.pk).get()
    attach_referral(bob, realms["eu"].mint(), server="eu")
    token = follow(browser, share_link(alice, server="us"))
    browser.post("/signout/")
    browser.log_in()
    assert list(Referral.objects.values_list("server", flat=True)) == ["eu"]

    token = follow(browser, share_link(alice, server="us"))
    browser.get("/play/?server=asia")
    assert Referral.objects.count() == 1, "it is not this server's"
    browser.get("/play/?server=us")
    browser.get("/play/?server=us")
    referral = Referral.objects.get(server="us")
    assert (referral.user, referral.token, referral.referrer) == (bob, token, alice)
    assert "token" not in browser.record
    drain()
    assert realms["us"].accepted() == [("registered", token)]


# -- one is down


def test_one_server_is_down_while_the_others_deliver(
    realms: Realms, drain: Callable[..., Any], hear: Hear, granted: Granted, client: Client
) -> None:
    paused, resumed = hear(signals.server_paused), hear(signals.server_resumed)
    realms["us"].sandbox.outage()
    users = {alias: [member(realms, alias) for _ in range(8)] for alias in ALIASES}
    drain()
    assert dict(ServerHealth.objects.values_list("server", "state")) == {"eu": "open", "us": "paused", "asia": "open"}
    assert [news["server"] for news in paused] == ["us"]
    assert {alias: len(realm.accepted()) for alias, realm in realms.items()} == {"eu": 8, "us": 0, "asia": 8}
    mark_qualified_many([user for some in users.values() for user in some])
    drain()
    assert {alias: len(realm.accepted()) for alias, realm in realms.items()} == {"eu": 16, "us": 0, "asia": 16}
    assert {referral.server for referral in granted} == {"eu", "asia"}

    assert {(need.id, need.server) for need in needs() if need.server} == {("server.paused", "us")}
    told = stats.collect().as_dict()["servers"]
    assert {one["server"]: (one["state"], one["open"]) for one in told} == {
        "asia": ("open", 0),
        "eu": ("open", 0),
        "us": ("paused", 16),
    }
    html = overview(client)
    for alias, realm in realms.items():
        assert realm.id in html, alias
    assert "HTTP 503" in html
    assert "HTTP 503" in page(client, "serverhealth")
    out = io.StringIO()
    call_command("mmolove_redeliver", "--server", "us", "--state", "exhausted", stdout=out)
    assert "0 of 0" in out.getvalue()

    realms["us"].sandbox.clear_faults()
    let_pass(301)
    drain()
    assert [news["server"] for news in resumed] == ["us"]
    assert len(realms["us"].accepted()) == 16
    drain()
    assert len(granted) == 24


def test_a_dead_socket_keeps_nobody_else_waiting(realms: Realms, drain: Callable[..., Any]) -> None:
    for alias in ALIASES:
        member(realms, alias)
    realms["asia"].server.stop()
    done = drain()
    assert (done.accepted, done.postponed) == (2, 1)


def test_wrong_credentials_of_one_are_told_of_that_one(
    realms: Realms, settings: Any, drain: Callable[..., Any]
) -> None:
    configure(settings, realms)
    settings.MMOLOVE_REFERRAL["SERVERS"]["us"] = {"SERVER_ID": "srv_us"}
    conf.reload()
    for alias in ALIASES:
        member(realms, alias)
    done = drain()
    assert done.accepted == 2
    (need,) = (need for need in needs() if need.id == "settings.missing")
    assert need.seen.startswith("MMOLOVE_REFERRAL['SERVERS']['us']['SECRET'] is missing. Put the referral secret")


def test_a_refused_secret_is_not_looked_for_in_the_environment(realms: Realms, drain: Callable[..., Any]) -> None:
    """Which has the secret of the server at the top of the settings."""
    realms["us"].sandbox.rotate_secret("srv_us", "another")
    member(realms, "us")
    drain()
    (need,) = (need for need in needs() if need.id == "server.paused")
    assert "MMOLOVE_REFERRAL['SERVERS']['us']['SECRET'], restart the portal" in need.cure
    assert "MMOLOVE_REFERRAL_SECRET" not in need.cure


def test_a_token_of_another_server_is_refused_with_a_hint(
    realms: Realms, drain: Callable[..., Any], client: Client
) -> None:
    member(realms, "us")
    drain()
    attach_referral(UserFactory.create(), realms["eu"].mint(), server="us")
    drain()
    event = OutboundEvent.objects.get(state="rejected")
    assert "see MMOLOVE_REFERRAL[&#x27;RESOLVE_SERVER&#x27;]" in page(client, "outboundevent", event.pk)


# -- aliases that come and go


def test_a_server_that_left_the_settings_keeps_its_events_until_it_is_back(
    realms: Realms, settings: Any, drain: Callable[..., Any], client: Client, granted: Granted
) -> None:
    bob, carol = member(realms, "us"), member(realms, "us")
    others = {alias: realm for alias, realm in realms.items() if alias != "us"}
    configure(settings, others)
    assert mark_qualified(bob) is not None, "the portal's page goes on"
    assert mark_qualified_many([carol]).now == 1
    drain()
    let_pass(30 * 86_400)
    drain()
    assert set(OutboundEvent.objects.values_list("state", flat=True)) == {"pending", "waiting"}
    (need,) = (need for need in needs() if need.id == "server.unknown")
    assert need.seen == "4 events wait for the server 'us', which the settings do not have."
    assert "4 events wait for the server" in overview(client)
    for event in OutboundEvent.objects.all():
        assert page(client, "outboundevent", event.pk)
    with pytest.raises(ConfigError, match="There is no server 'us'"):
        mark_qualified(bob, server="us")

    configure(settings, realms)
    drain()
    drain()
    assert sorted(kind for kind, _ in realms["us"].accepted()) == ["qualified"] * 2 + ["registered"] * 2
    assert len(granted) == 2


def test_an_alias_is_renamed_as_documented(realms: Realms, settings: Any, drain: Callable[..., Any]) -> None:
    rename = recipe(code("servers.md", "def rename_server"))["rename_server"]
    known, waiting = member(realms, "us"), member(realms, "eu")
    drain()
    mark_qualified(known)
    attach_referral(waiting, realms["us"].mint(), server="us")
    browser = Browser()
    configure(settings, realms, RESOLVE_SERVER=lambda request: "us")
    token = realms["us"].mint()
    browser.visit(token)

    renamed = {("west" if alias == "us" else alias): realm for alias, realm in realms.items()}
    configure(settings, renamed, RESOLVE_SERVER=lambda request: "west")
    both = UserFactory.create()
    attach_referral(both, realms["us"].mint(), server="west")
    Referral.objects.create(user=both, server="us", token="old")
    drain()
    browser.sign_up()  # whose visit began before
    assert rename("us", "west") == 2
    assert rename("us", "west") == 0
    assert dict(Referral.objects.filter(user=both).values_list("server", "token"))["us"] == "old"
    drain()
    drain()
    accepted = realms["us"].accepted()
    assert sorted(kind for kind, _ in accepted) == ["qualified"] + ["registered"] * 4
    assert ("registered", token) in accepted
    assert set(OutboundEvent.objects.values_list("server", "state")) == {("west", "accepted"), ("eu", "accepted")}
    assert set(ServerHealth.objects.values_list("server", flat=True)) == {"eu", "west"}
    assert not any(need.id == "server.unknown" for need in needs())


def test_a_default_server_and_others(realms: Realms, settings: Any, drain: Callable[..., Any]) -> None:
    """How a portal grows: what it had stays as it is."""
    top = realms["eu"].setting
    others = {alias: realms[alias].setting for alias in ("us", "asia")}
    settings.MMOLOVE_REFERRAL = {**top, "SERVERS": others, "DISPATCH": "manual"}
    alice = UserFactory.create()
    assert share_link(alice) == f"/join/{alice.pk}/"
    for number, link in enumerate((share_link(alice), share_link(alice, server="asia"))):
        browser = Browser()
        follow(browser, link)
        browser.sign_up(f"player{number}@example.com")
    drain()
    assert [len(realms[alias].accepted()) for alias in ALIASES] == [1, 0, 1]
    assert set(Referral.objects.values_list("server", "referrer")) == {("default", alice.pk), ("asia", alice.pk)}


def test_each_server_has_a_lane_and_threads_of_its_own(realms: Realms) -> None:
    assert len({id(lane.lane(alias)) for alias in ALIASES}) == 3


# -- the admin


def owner(client: Client) -> Client:
    model: Any = get_user_model()
    name = model.USERNAME_FIELD
    user = model._default_manager.filter(**{name: "root@example.com"}).first()
    client.force_login(user or model._default_manager.create_superuser(**{name: "root@example.com", "password": "pw"}))
    return client


def page(client: Client, model: str, *pk: Any) -> str:
    url = reverse(f"admin:mmolove_referral_{model}_{'change' if pk else 'changelist'}", args=pk)
    answer = owner(client).get(url)
    assert answer.status_code == 200
    return answer.content.decode()


def overview(client: Client) -> str:
    return owner(client).get(reverse("admin:mmolove_referral_overview")).content.decode()
