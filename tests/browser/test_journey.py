"""The journey as its players see it, on the portal that anybody can start: from the invite link to the reward."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .conftest import Shoot, Visit
from .portal import Portal
from .visitor import DESKTOP, Look

PLAYERS = {
    "desktop-light": ("alice", "bob"),
    "desktop-dark": ("mirelle", "tamsin"),
    "phone-light": ("oskar", "ida"),
    "phone-dark": ("nadia", "yun"),
}


def test_a_friend_follows_the_invite_link_and_the_referrer_is_rewarded(
    portal: Portal, visit: Visit, shoot: Shoot, look: Look
) -> None:
    referrer, friend = PLAYERS[str(look)]

    alice = visit(portal, look)
    alice.open("/")
    shoot(alice, f"landing-{look}")
    alice.main.get_by_role("link", name="Register").click()
    alice.register(referrer)
    expect(alice.main.get_by_text("Nobody has come by your link yet.")).to_be_visible()
    expect(alice.strip).to_contain_text("Next: Copy your invite link, open it in a private window")
    alice.page.get_by_role("button", name="Copy").click()
    expect(alice.page.get_by_text("Copied.")).to_be_visible()
    link = alice.page.evaluate("navigator.clipboard.readText()")
    assert link == alice.invite_link

    bob = visit(portal, look)
    bob.open(link)
    expect(bob.page.get_by_role("heading", name="Register")).to_be_visible()
    expect(bob.strip).to_contain_text("MMOLove sent this visit back with a token")
    bob.register(friend)
    expect(bob.page.get_by_text("Invited by").locator("..")).to_contain_text(referrer)
    expect(bob.strip).to_contain_text("200")  # appears by itself
    expect(bob.strip).to_contain_text("Next: Train to level 10")
    bob.page.get_by_role("button", name="Level up").click()
    expect(bob.page.locator("#level")).to_have_text("2")
    bob.page.get_by_role("button", name="Train to level 10").click()
    expect(bob.page.get_by_text("You keep a beacon of your own.")).to_be_visible()
    expect(bob.strip).to_contain_text("reward granted")

    alice.open("/character/")
    expect(alice.page.locator("#gold")).to_have_text("500")
    expect(alice.page.get_by_role("row", name=friend)).to_contain_text("qualified")
    shoot(alice, f"character-{look}")
    alice.strip.get_by_role("link", name="Rewards").click()
    expect(alice.page.get_by_role("row", name=f"{referrer} {friend} 500")).to_be_visible()
    shoot(alice, f"rewards-{look}")
    alice.strip.get_by_role("link", name="Behind the scenes").click()
    ours, theirs = (
        alice.page.get_by_role("region", name=name).get_by_role("listitem")
        for name in ("The portal's log", "MMOLove's log")
    )
    for side in (ours, theirs):
        expect(side.nth(0)).to_contain_text('"state": "qualified"')
        expect(side.nth(1)).to_contain_text('"state": "registered"')
    expect(ours.first).to_contain_text("reward granted")
    expect(theirs.nth(2)).to_contain_text("clicked")
    shoot(alice, f"behind-the-scenes-{look}")
    alice.main.get_by_role("link", name="Its own page").click()
    expect(alice.page.get_by_role("heading", name="MMOLove sandbox")).to_be_visible()
    alice.page.go_back()
    alice.strip.get_by_role("link", name="Admin").click()
    expect(alice.page.get_by_text("not authorized to access this page")).to_be_visible()


def test_the_strip_tells_what_is_so_and_when_it_changes(prepared: Path, tmp_path: Path, visit: Visit) -> None:
    directory = shutil.copytree(prepared, tmp_path / "var")
    with Portal(directory, MMOLOVE_DISPATCH="manual") as portal:
        alice, bob = visit(portal), visit(portal)
        alice.open("/register/")
        alice.register("alice")
        bob.open(alice.invite_link)
        bob.register("bob")
        bob.train()
        expect(bob.strip).to_contain_text("registered is written, and leaves with the next delivery")
        expect(bob.strip).to_contain_text("qualified waits until registered is accepted")
        portal.manage("mmolove_deliver", "--once")
        for event in ("registered", "qualified"):
            expect(bob.strip).to_contain_text(re.compile(rf"{event}\s+sent at [\d:]+, \d+ ms, 200"))
        expect(bob.strip).to_contain_text("reward granted")
        expect(bob.strip).to_contain_text("Next: See who earned what.")


def test_it_works_without_javascript(portal: Portal, visit: Visit) -> None:
    alice = visit(portal, scripts=False)
    alice.open("/register/")
    alice.register("alba")
    assert not alice.page.get_by_role("button", name="Copy").is_visible()
    assert alice.page.get_by_label("Your invite link").get_attribute("readonly") is not None

    bob = visit(portal, scripts=False)
    bob.open(alice.invite_link)
    bob.register("benno")
    bob.train()
    expect(bob.page.get_by_text("Invited by").locator("..")).to_contain_text("alba")


def test_a_visitor_on_localhost_stays_there(portal: Portal, visit: Visit) -> None:
    home = portal.url.replace("127.0.0.1", "localhost")
    alice = visit(portal, home=home)
    alice.open("/register/")
    alice.register("carla")
    assert alice.invite_link.startswith(home)

    bob = visit(portal, home=home)
    bob.open(alice.invite_link)
    assert bob.page.url.startswith(f"{home}register/?mmref=")
    bob.register("doris")
    expect(bob.page.get_by_text("Invited by").locator("..")).to_contain_text("carla")


def test_names_as_long_as_they_may_be_break_no_page(portal: Portal, visit: Visit, look: Look) -> None:
    alice = visit(portal, look)
    alice.open("/register/")
    alice.register(f"{look}-".ljust(150, "w"))
    bob = visit(portal, look)
    bob.open(alice.invite_link)
    bob.register(f"{look}-".ljust(150, "m"))
    expect(bob.strip).to_contain_text("200")
    bob.train()
    expect(bob.strip).to_contain_text("reward granted")
    for path in ("/character/", "/rewards/", "/behind-the-scenes/", "/"):
        for visitor in (alice, bob):
            visitor.open(path)  # what is wider than the window is a complaint

    owner = visit(portal, look)
    owner.log_in("owner")
    for model in ("referral", "outboundevent", "reward"):
        owner.open(f"/admin/mmolove_referral/{model}/")
        owner.page.locator("#result_list tbody th a").first.click()
        owner.page.wait_for_url("**/change/")


def test_what_is_wrong_in_a_form_is_said_at_its_field(portal: Portal, visit: Visit, look: Look) -> None:
    visitor = visit(portal, look)
    visitor.open("/register/")
    page = visitor.page
    page.get_by_label("Username").fill("two words")
    page.get_by_label("Password:", exact=True).fill("one")
    page.get_by_label("Password confirmation").fill("another")
    visitor.main.get_by_role("button", name="Register").click()
    for label, error in {"Username": "Enter a valid username", "Password confirmation": "didn\u2019t match"}.items():
        field = page.get_by_label(label)
        assert field.get_attribute("aria-invalid") == "true"
        described = (field.get_attribute("aria-describedby") or "").split()
        assert any(error in page.locator(f"#{name}").inner_text() for name in described)


def test_the_keyboard_begins_at_a_way_past_the_navigation(portal: Portal, visit: Visit) -> None:
    visitor = visit(portal, DESKTOP)
    visitor.open("/rewards/")
    visitor.page.keyboard.press("Tab")
    skip = visitor.page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    visitor.page.keyboard.press("Enter")
    expect(visitor.main).to_be_focused()


@pytest.mark.parametrize("path", ["/", "/login/", "/character/", "/behind-the-scenes/", "/sandbox/", "/admin/"])
def test_pages_follow_the_visitors_colour_scheme(portal: Portal, visit: Visit, path: str) -> None:
    paper = {}
    for scheme in ("light", "dark"):
        visitor = visit(portal, Look("desktop", scheme))
        visitor.open(path)
        colour = visitor.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        paper[scheme] = sum(colour[:3])
    assert paper["dark"] < 150 < 600 < paper["light"]


def test_a_page_that_is_not_there_is_the_portals_own(portal: Portal, visit: Visit, look: Look) -> None:
    visitor = visit(portal, look)
    with visitor.watch.expecting(404):
        visitor.open("/nowhere/")
    expect(visitor.page.get_by_role("heading", name="This beacon is cold")).to_be_visible()
    missing = visitor.context.request.get("/static/nowhere.css")
    assert (missing.status, "This beacon is cold" in missing.text()) == (404, True)
    visitor.page.get_by_role("link", name="Back to the ridge").click()
    expect(visitor.page.get_by_role("heading", name="The fires are going out.")).to_be_visible()
