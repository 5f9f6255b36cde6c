"""The portal's owner, with credentials of MMOLove's: what the admin shows, offers, and refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from django_mmolove_referral.sandbox import Fault, only_real

from .conftest import SECRET, Deployment, Shoot, Visit
from .portal import Portal
from .visitor import DESKTOP, PHONE, Look, Visitor

MODELS = ("referral", "outboundevent", "reward", "serverhealth")
SERVERS = "/admin/mmolove_referral/serverhealth/"

pytestmark = pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=str)


def invite(visit: Visit, portal: Portal, referrer: str, friend: str) -> Visitor:
    """``friend`` registers by the link of ``referrer``, and is returned."""
    alice = visit(portal)
    alice.open("/register/")
    alice.register(referrer)
    bob = visit(portal)
    bob.open(alice.invite_link)
    bob.register(friend)
    return bob


def test_a_wrong_secret_is_understood_corrected_and_costs_nothing(
    deploy: Callable[..., Deployment], visit: Visit, shoot: Shoot, look: Look
) -> None:
    portal, mmolove = deploy("a-secret-of-yesterday")
    owner = visit(portal, look)
    page = owner.page
    with portal:
        bob = invite(visit, portal, "alice", "bob")
        bob.train()
        owner.log_in("owner")
        owner.see("outboundevent", "registered", "pending")
        owner.open(SERVERS)
        owner.reload_until(page.get_by_text("paused", exact=True))
        expect(page.get_by_text("MMOLove refuses the signature: HTTP 401: bad_signature.")).to_be_visible()
        expect(page.get_by_text("Copy the current secret of server 'emberfall'")).to_be_visible()
        shoot(owner, f"admin-servers-{look}")
        owner.open_list("outboundevent")
        owner.row("registered").get_by_role("link").first.click()
        expect(page.locator(".mmolove-advice", has_text="MMOLove refuses the signature")).to_be_visible()
        shoot(owner, f"admin-event-{look}")
        owner.open(SERVERS)
        page.get_by_role("button", name="Send test event").click()
        expect(page.get_by_text("failed", exact=True)).to_be_visible()
        page.get_by_role("button", name="Send another").click()
        expect(page.get_by_text("failed", exact=True)).to_be_visible()
        assert not mmolove.referrals
    portal.environment["MMOLOVE_REFERRAL_SECRET"] = SECRET
    with portal:
        owner.open(SERVERS)
        expect(page.get_by_text("paused", exact=True)).to_be_visible()
        page.get_by_role("button", name="Send test event").click()
        expect(page.get_by_text("MMOLove accepted the test event")).to_be_visible()
        owner.see("outboundevent", "registered", "accepted")
        owner.see("outboundevent", "qualified", "accepted")
        owner.see("reward", "alice", "granted")
        owner.open(SERVERS)
        expect(page.get_by_text("open", exact=True)).to_be_visible()
        page.get_by_role("button", name="Send test event").click()
        page.get_by_role("button", name="Send another").click()
        expect(page.get_by_text("passed", exact=True)).to_be_visible()
        assert [referral.state for referral in mmolove.referrals] == ["qualified"]


@pytest.fixture
def owner(deployed: Deployment, visit: Visit, look: Look) -> Visitor:
    owner = visit(deployed.portal, look)
    owner.log_in("owner")
    return owner


@pytest.fixture
def healthy(deployed: Deployment) -> Iterator[None]:
    yield
    deployed.mmolove.clear_faults()


def said(owner: Visitor) -> str:
    return owner.page.locator(".messagelist").inner_text()


def test_a_rejected_event_is_redelivered(deployed: Deployment, visit: Visit, owner: Visitor, look: Look) -> None:
    deployed.mmolove.script(Fault(400, {"error": "malformed: a bad day"}, when=only_real))
    friend = f"friend-of-redelivery-{look}"
    invite(visit, deployed.portal, f"redelivery-{look}", friend)
    owner.see("outboundevent", friend, "rejected")
    owner.row(friend).get_by_role("link").first.click()
    told = owner.page.locator(".mmolove-advice")
    expect(told).to_contain_text("MMOLove calls the request malformed: HTTP 400: malformed: a bad day")
    expect(owner.page.get_by_text("Then redeliver this event.")).to_be_visible()
    owner.act("outboundevent", friend, "Redeliver")
    assert "1 will be sent again." in said(owner)
    owner.see("outboundevent", friend, "accepted")
    owner.act("outboundevent", friend, "Redeliver")
    assert "1 was left alone" in said(owner)


@pytest.mark.usefixtures("healthy")
def test_an_event_on_its_way_is_cancelled(deployed: Deployment, visit: Visit, owner: Visitor, look: Look) -> None:
    deployed.mmolove.outage()
    friend = f"friend-of-cancelling-{look}"
    invite(visit, deployed.portal, f"cancelling-{look}", friend)
    owner.see("outboundevent", friend, "503")
    owner.act("outboundevent", friend, "Cancel")
    assert "1 will not be sent." in said(owner)
    owner.see("outboundevent", friend, "cancelled")
    deployed.mmolove.clear_faults()
    owner.act("outboundevent", friend, "Redeliver")
    owner.see("outboundevent", friend, "accepted")


def test_a_reward_that_could_not_be_granted_is_retried(
    deployed: Deployment, visit: Visit, owner: Visitor, look: Look
) -> None:
    friend = f"friend-of-rewards-{look}"
    with deployed.portal.closed_bank():
        invite(visit, deployed.portal, f"rewards-{look}", friend).train()
        owner.see("reward", friend, "due")
        owner.see("reward", friend, "IntegrityError: the bank is closed")
        owner.row(friend).get_by_role("link").first.click()
        expect(owner.page.get_by_text("It could not be granted")).to_be_visible()
    owner.act("reward", friend, "Retry reward")
    assert "1 will be tried at once." in said(owner)
    owner.see("reward", friend, "granted")
    owner.act("reward", friend, "Retry reward")
    assert "1 was left alone" in said(owner)


@pytest.fixture
def delivered(deployed: Deployment, visit: Visit) -> None:
    """A row in every table."""
    friend = f"friend-{len(deployed.mmolove.log)}"
    invite(visit, deployed.portal, f"of-{friend}", friend).train()
    owner = visit(deployed.portal)
    owner.log_in("owner")
    owner.see("reward", friend, "granted")


@pytest.mark.usefixtures("delivered")
def test_who_may_look_and_no_more_gets_no_button_and_no_way_round_it(
    deployed: Deployment, visit: Visit, look: Look
) -> None:
    viewer = visit(deployed.portal, look)
    viewer.log_in("viewer")
    for model in MODELS:
        viewer.open_list(model)
        expect(viewer.page.get_by_role("main")).to_be_visible()
        assert viewer.page.locator("select[name=action], #content button[name=index], .addlink").count() == 0
        assert viewer.page.get_by_role("button", name="Send test event").count() == 0
    for model in MODELS[:3]:
        viewer.open_list(model)
        viewer.page.locator("#result_list tbody th a").first.click()
        viewer.page.wait_for_url("**/change/")
        assert viewer.page.locator("#content input[type=submit], #content .deletelink").count() == 0
        for forbidden in ("change/", "delete/"):
            answer = viewer.post(viewer.page.url.replace("change/", forbidden), post="yes")
            assert (answer.status, "This fire is not yours" in answer.text()) == (403, True)
    answer = viewer.post(f"{SERVERS}default/test/")
    assert (answer.status, "This fire is not yours" in answer.text()) == (403, True)

    viewer.open_list("outboundevent")
    before = viewer.page.locator("#result_list").inner_text()
    for action in ("redeliver", "cancel"):
        viewer.post(viewer.page.url, action=action, _selected_action="1")
    viewer.page.reload()
    assert viewer.page.locator("#result_list").inner_text() == before
    with viewer.watch.expecting(403):
        viewer.open("/admin/mmolove_referral/referral/add/")
        expect(viewer.page.get_by_role("heading", name="This fire is not yours")).to_be_visible()


def test_nobody_looks_without_logging_in(deployed: Deployment, visit: Visit, look: Look) -> None:
    visitor = visit(deployed.portal, look)
    for path in ("/admin/", *(f"/admin/mmolove_referral/{model}/" for model in MODELS)):
        visitor.open(path)
        expect(visitor.page.get_by_role("button", name="Log in")).to_be_visible()
    answer = visitor.post(f"{SERVERS}default/test/")
    assert (answer.status, answer.headers["location"].split("?")[0]) == (302, "/admin/login/")


@pytest.mark.usefixtures("delivered")
def test_with_the_real_mmolove_there_is_no_tour_and_the_log_is_for_staff(
    deployed: Deployment, visit: Visit, owner: Visitor, look: Look
) -> None:
    player = visit(deployed.portal, look)
    player.open("/register/")
    player.register(f"curious-{look}")
    assert player.strip.count() == 0
    assert player.page.get_by_role("link", name="Behind the scenes").count() == 0
    with player.watch.expecting(404):
        for path in ("/behind-the-scenes/", "/behind-the-scenes/strip/", "/sandbox/"):
            player.open(path)
            expect(player.page.get_by_role("heading", name="This beacon is cold")).to_be_visible()
    owner.open("/")
    owner.page.get_by_role("link", name="Behind the scenes").click()
    expect(owner.page.get_by_role("region", name="The portal's log").get_by_role("listitem").first).to_be_visible()
    assert owner.page.get_by_role("region", name="MMOLove's log").count() == 0
