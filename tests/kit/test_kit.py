"""The testing kit as portals use it: on every database, in both kinds of test case, whatever the portal's settings."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.test import AsyncClient, Client, TestCase, override_settings

from django_mmolove_referral import attach_referral, mark_qualified, signals
from django_mmolove_referral.conf import ConfigError, conf
from django_mmolove_referral.delivery import lane
from django_mmolove_referral.delivery.dispatch import celery, thread
from django_mmolove_referral.delivery.drain import Tally
from django_mmolove_referral.models import OutboundEvent, Referral
from django_mmolove_referral.sandbox import Fault
from django_mmolove_referral.testing import MMOLove
from tests.conftest import Granted, Hear
from tests.portal import create

NOTHING = Tally()


@pytest.fixture(params=[False, True], ids=["rolled back", "committed"])
def kit(request: pytest.FixtureRequest) -> Iterator[MMOLove]:
    """In a test case that is rolled back, as Django's ``TestCase``, and in one that commits."""
    request.getfixturevalue("transactional_db" if request.param else "db")
    with MMOLove() as kit:
        yield kit


@pytest.fixture(params=[False, True], ids=["autocommit", "ATOMIC_REQUESTS"])
def atomic_requests(request: pytest.FixtureRequest) -> Iterator[None]:
    before = connection.settings_dict["ATOMIC_REQUESTS"]
    connection.settings_dict["ATOMIC_REQUESTS"] = request.param
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = before


@pytest.mark.usefixtures("atomic_requests")
def test_a_visitor_signs_up_qualifies_and_the_referrer_is_rewarded(
    kit: MMOLove, client: Client, granted: Granted
) -> None:
    alice = create("alice@example.com")
    assert kit.visit(client, "/page/?from=mail", referrer=alice).status_code == 200
    client.post("/register/", {"name": "bob@example.com", "login": "1"})
    bob = Referral.objects.get().user
    assert kit.assert_captured(bob).referrer == alice
    assert kit.deliver() == Tally(accepted=1)
    kit.assert_registered(bob)

    client.post("/milestone/")
    assert kit.deliver() == Tally(accepted=1, granted=1)
    kit.assert_qualified(bob)
    referral = kit.assert_rewarded(bob)
    assert granted == [referral]
    assert [(entry.kind, entry.status) for entry in kit.sent] == [("registered", 200), ("qualified", 200)]
    assert [theirs.referrer for theirs in kit.sandbox.referrals] == [str(alice.pk)]
    assert kit.deliver() == NOTHING


def test_an_async_view_is_tested_like_any_other(kit: MMOLove) -> None:
    browser = AsyncClient()

    async def sign_up() -> None:
        await browser.get("/page/", {"mmref": kit.mint()})
        await browser.post("/aregister/", {"name": "bob@example.com", "login": "1"})
        await browser.post("/amilestone/")

    async_to_sync(sign_up)()
    bob = Referral.objects.get().user
    assert kit.deliver().accepted == 2
    kit.assert_qualified(bob)


# Settings


def test_the_portals_own_keys_hold_and_everything_is_put_back(settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = {
        **django_settings.MMOLOVE_REFERRAL,
        "REFERRER_CODE": "username",
        "PAUSE_AFTER": 2,
        "KEY_ID": "k1",
        "TRUST_ENV": True,
    }
    before = settings.MMOLOVE_REFERRAL
    with MMOLove() as kit:
        assert (conf.pause_after, conf.referrer_code_field, conf.trust_env) == (2, "username", False)
        credentials = conf.server("default").credentials()
        assert credentials.endpoint == f"{kit.url}/api/referral/events"
        assert (credentials.server_id, credentials.key_id) == ("test-default", "k1")
        assert conf.server("default").share_url == f"{kit.url}/r/test-default"
        kit.configure(PAUSE_AFTER=3)
        assert (conf.pause_after, conf.server("default").server_id) == (3, "test-default")
    assert django_settings.MMOLOVE_REFERRAL is before
    assert conf.pause_after == 2
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(kit.url, timeout=5)


@pytest.mark.django_db
def test_a_portal_without_any_setting_can_be_tested(settings: Any) -> None:
    del settings.MMOLOVE_REFERRAL
    with MMOLove() as kit:
        bob = create("bob@example.com")
        attach_referral(bob, kit.mint())
        kit.deliver()
        kit.assert_registered(bob)
    assert not hasattr(django_settings, "MMOLOVE_REFERRAL")


@pytest.mark.parametrize("dispatch", ["thread", "celery"])
def test_nothing_delivers_but_the_test_whatever_the_portals_dispatcher(
    kit: MMOLove, settings: Any, dispatch: str
) -> None:
    with (
        override_settings(MMOLOVE_REFERRAL={**django_settings.MMOLOVE_REFERRAL, "DISPATCH": dispatch}),
        MMOLove() as own,
    ):
        bob = create("bob@example.com")
        attach_referral(bob, own.mint())
        assert not thread.running
        assert not celery.running
        assert own.sent == []
        assert own.deliver().accepted == 1


def test_a_setting_that_cannot_be_read_is_named(settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = {"SERVERS": {"eu": None}}
    with pytest.raises(ConfigError, match=r"\['eu'\] must be a dict with SERVER_ID and SECRET"), MMOLove():
        pytest.fail("started")


def test_each_of_several_servers_is_pointed_at(kit: MMOLove) -> None:
    servers = {alias: {"SERVER_ID": "srv_x", "SECRET": "x", "KEY_ID": f"key-{alias}"} for alias in ("eu", "us")}
    bob = create("bob@example.com")
    with override_settings(MMOLOVE_REFERRAL={"SERVERS": servers, "PAUSE_AFTER": 2}), MMOLove() as own:
        assert [conf.server(alias).credentials().key_id for alias in conf.servers] == ["key-eu", "key-us"]
        for alias in conf.servers:
            attach_referral(bob, own.mint(server=alias), server=alias)
        assert own.deliver().accepted == 2
        own.assert_registered(bob, server="eu")
        assert own.assert_registered(bob, server="us").server == "us"
        assert {theirs.server_id for theirs in own.sandbox.referrals} == {"test-eu", "test-us"}
        several = r"^This account has referrals on several servers; say which with server=…: 'eu', 'us'\.$"
        with pytest.raises(ValueError, match=several):
            own.assert_registered(bob)
        with pytest.raises(ConfigError, match="There is no server 'default'"):
            own.mint()


def test_one_test_knows_nothing_of_the_faults_of_another(kit: MMOLove) -> None:
    lane.lane("default").streak = 4
    with MMOLove():
        assert lane.lane("default").streak == 0
        lane.lane("default").streak = 3
    assert lane.lane("default").streak == 0


def test_no_event_leaves_for_servers_that_the_test_put_in_later(kit: MMOLove) -> None:
    bob = create("bob@example.com")
    attach_referral(bob, kit.mint())
    said = (
        r"^MMOLOVE_REFERRAL\['SERVERS'\]\['eu'\] does not lead to this test's MMOLove any more\. Change single keys "
        r"with mmolove\.configure\(…\); set servers before the kit starts, in a fixture named before mmolove\.$"
    )
    kit.configure(SERVERS={"eu": {"SERVER_ID": "srv_eu", "SECRET": "x"}})
    for attempt in (kit.deliver, lambda: kit.mint(server="eu")):
        with pytest.raises(RuntimeError, match=said):
            attempt()
    assert kit.sent == []


# What waits for the commit


def test_what_waits_for_the_commit_runs_once(kit: MMOLove, hear: Hear) -> None:
    captured, registered = hear(signals.referral_captured), hear(signals.referral_registered)
    bob = create("bob@example.com")
    told: list[str] = []
    with transaction.atomic():
        attach_referral(bob, kit.mint())
        transaction.on_commit(lambda: told.append("welcome"))
    kit.deliver()
    kit.deliver()
    assert (len(captured), len(registered), told) == (1, 1, ["welcome"])


def test_what_a_rolled_back_block_left_to_the_commit_does_not_run(kit: MMOLove) -> None:
    bob = create("bob@example.com")

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError), transaction.atomic():  # noqa: PT011, PT012
        transaction.on_commit(fail)
        attach_referral(bob, kit.mint())
        raise ValueError
    assert kit.deliver() == NOTHING
    kit.assert_not_referred(bob)


def test_a_milestone_reported_after_the_commit_is_delivered_too(kit: MMOLove) -> None:
    bob = create("bob@example.com")
    attach_referral(bob, kit.mint())
    transaction.on_commit(lambda: transaction.on_commit(lambda: mark_qualified(bob) and None))
    assert kit.deliver().accepted == 2
    kit.assert_qualified(bob)


def test_a_receiver_that_reports_the_milestone_is_followed(kit: MMOLove) -> None:
    bob = create("bob@example.com")
    attach_referral(bob, kit.mint())

    def at_once(referral: Referral, **kwargs: Any) -> None:
        mark_qualified(referral.user)

    signals.referral_registered.connect(at_once)
    try:
        assert kit.deliver().accepted == 2
    finally:
        signals.referral_registered.disconnect(at_once)
    kit.assert_qualified(bob)


@pytest.mark.django_db
def test_an_on_commit_function_that_fails_fails_the_test_unless_it_is_robust(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise LookupError("no such guild")

    with MMOLove() as kit:
        transaction.on_commit(fail, robust=True)
        kit.deliver()
        assert "The on_commit function" in caplog.text
        transaction.on_commit(fail)
        with pytest.raises(LookupError, match="no such guild"):
            kit.deliver()
        kit.deliver()


@pytest.mark.django_db
def test_a_capture_of_the_commit_around_it_finds_its_own() -> None:
    told: list[str] = []
    with MMOLove() as kit, TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
        transaction.on_commit(lambda: told.append("first"))
        kit.deliver()
        transaction.on_commit(lambda: told.append("second"))
    assert told == ["first", "second"]
    assert len(callbacks) == 2


@pytest.mark.django_db
def test_what_waited_before_the_kit_started_is_left_alone() -> None:
    told: list[str] = []
    transaction.on_commit(lambda: told.append("the test class's"))
    with MMOLove() as kit:
        kit.deliver()
    assert told == []


def test_delivering_inside_a_transaction_says_what_to_do(kit: MMOLove) -> None:
    said = (
        r"^deliver\(\) was called inside transaction\.atomic\(\); call it after that block, "
        r"as delivery comes after the commit\.$"
    )
    with transaction.atomic(), pytest.raises(RuntimeError, match=said):
        kit.deliver()


# Visits


def test_a_visit_looks_for_the_token_where_the_portal_does(kit: MMOLove, client: Client) -> None:
    kit.configure(QUERY_PARAM="invite")
    assert "invite=" in kit.visit(client, "/page/").request["QUERY_STRING"]


def test_a_share_link_that_does_not_lead_to_mmolove_is_told(kit: MMOLove, client: Client, settings: Any) -> None:
    alice = create("alice@example.com")
    with override_settings(SECURE_SSL_REDIRECT=True):
        said = (
            rf"^The share link /join/{alice.pk}/ did not lead to MMOLove: HTTP 301 to "
            rf"https://testserver/join/{alice.pk}/\. \(A portal that redirects to https wants secure=True\.\)$"
        )
        with pytest.raises(RuntimeError, match=said):
            kit.visit(client, "/page/", referrer=alice)
        assert kit.visit(client, "/page/", referrer=alice, secure=True).status_code == 200


def test_the_share_link_can_be_followed_over_the_socket(kit: MMOLove) -> None:
    share_url = conf.server("default").share_url + "?ref=alice"
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(share_url, timeout=5)
    refused.value.close()
    kit.lead_to(f"{kit.url}/?from=mmolove")  # whatever answers there
    with urllib.request.urlopen(share_url, timeout=5) as page:
        assert page.url.startswith(f"{kit.url}/?from=mmolove&mmref=")


# Faults and time


@pytest.fixture
def bob(kit: MMOLove) -> Any:
    user = create("bob@example.com")
    attach_referral(user, kit.mint())
    return user


def test_a_fault_is_retried_when_its_time_has_come(kit: MMOLove, bob: Any) -> None:
    kit.answer(503, times=2)
    assert kit.deliver() == Tally(postponed=1)
    assert kit.deliver() == NOTHING
    kit.later(30)
    assert kit.deliver() == Tally(postponed=1)
    kit.later(timedelta(minutes=2))
    assert kit.deliver() == Tally(accepted=1)
    assert [entry.status for entry in kit.sent] == [503, 503, 200]


@pytest.mark.parametrize("lose", [True, False])
def test_a_dropped_connection_is_retried_and_counts_once(kit: MMOLove, bob: Any, lose: bool) -> None:
    kit.lose_answer() if lose else kit.drop()
    assert kit.deliver() == Tally(postponed=1)
    kit.later(30)
    assert kit.deliver() == Tally(accepted=1)
    assert OutboundEvent.objects.get().outcome == ("duplicate" if lose else "advanced")
    assert len(kit.sandbox.referrals) == 1


def test_a_refusal_of_the_event_ends_it(kit: MMOLove, bob: Any) -> None:
    kit.answer(422, error="expired")
    assert kit.deliver() == Tally(refused=1)
    assert OutboundEvent.objects.get().last_error == "HTTP 422: expired"


def test_a_refusal_that_a_dry_run_does_not_confirm_is_put_again(kit: MMOLove, bob: Any) -> None:
    kit.answer(401)
    assert kit.deliver() == Tally(accepted=1)
    assert [entry.status for entry in kit.sent] == [401, 200]
    assert [entry.status for entry in kit.sandbox.events(test=True)] == [200]


def test_an_outage_pauses_the_server_until_it_recovers(kit: MMOLove, bob: Any) -> None:
    kit.configure(PAUSE_AFTER=1)
    kit.outage()
    assert kit.deliver() == Tally(postponed=1)
    kit.later(60)
    assert kit.deliver() == NOTHING  # a dry run, which fails
    assert [entry.status for entry in kit.sandbox.events(test=True)] == [503]
    kit.recover()
    assert kit.deliver() == NOTHING
    kit.later(600)
    assert kit.deliver() == Tally(accepted=1)


def test_a_wait_that_mmolove_asks_for_is_kept(kit: MMOLove, bob: Any) -> None:
    kit.answer(429, retry_after=1800)
    kit.deliver()
    kit.later(1700)
    assert kit.deliver() == NOTHING
    kit.later(200)
    assert kit.deliver() == Tally(accepted=1)


def test_a_wrong_secret_burns_no_event(kit: MMOLove, bob: Any) -> None:
    kit.sandbox.rotate_secret("test-default", "another")
    kit.deliver()
    assert OutboundEvent.objects.get().state == "pending"


def test_mmolove_can_be_silent(kit: MMOLove, bob: Any) -> None:
    kit.configure(DEADLINE=0.2)
    kit.sandbox.script(Fault(delay=60))
    assert kit.deliver() == Tally(postponed=1)


def test_another_referrer_was_first(kit: MMOLove, bob: Any, granted: Granted) -> None:
    kit.answer(503)  # meant for the portal's event
    kit.already_referred(bob)
    mark_qualified(bob)
    kit.deliver()
    kit.later(60)
    kit.deliver()
    kit.assert_conflict(bob)
    assert [(entry.kind, entry.status) for entry in kit.sent] == [("registered", 503), ("registered", 200)]
    assert granted == []
    with pytest.raises(RuntimeError, match=r"^MMOLove did not take [\w-]+ for carol's: \{'ok': True, 'ignored'"):
        kit.already_referred(bob, by="carol")
