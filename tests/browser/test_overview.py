"""The overview as the portal's owner sees it, at two in the morning and otherwise; and the admin without a mouse."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .axe import serious
from .conftest import SECRET, Deployment, Shoot, Visit
from .portal import Portal
from .test_owner import invite
from .visitor import DESKTOP, PHONE, Look, Visitor

OVERVIEW = "/admin/mmolove_referral/serverhealth/overview/"
INDEX = "/admin/mmolove_referral/"


@pytest.fixture(scope="session")
def season(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """A portal that has seen a month."""
    directory = shutil.copytree(prepared, tmp_path_factory.mktemp("season") / "var")
    with Portal(directory, MMOLOVE_DISPATCH="manual") as portal:
        portal.manage("shell", "--verbosity", "0", "--command", "from tests.browser.season import fill; fill()")
        yield portal


@pytest.fixture(scope="session")
def strained(season: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """The same with long keys and long errors."""
    directory = shutil.copytree(season.directory, tmp_path_factory.mktemp("strained") / "var")
    with Portal(directory, MMOLOVE_DISPATCH="manual") as portal:
        portal.manage("shell", "--verbosity", "0", "--command", "from tests.browser.season import strain; strain()")
        yield portal


def staff(visit: Visit, portal: Portal, name: str, look: Look = DESKTOP, *, scripts: bool = True) -> Visitor:
    visitor = visit(portal, look, scripts=scripts)
    visitor.log_in(name)
    return visitor


def test_it_tells_at_a_glance(season: Portal, visit: Visit, shoot: Shoot, look: Look) -> None:
    owner = staff(visit, season, "owner", look)
    page = owner.page
    owner.open(INDEX)
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    shoot(owner, f"admin-overview-{look}")
    assert serious(page) == []
    expect(page.get_by_text("needs attention")).to_be_visible()
    expect(page.get_by_text("1 event was rejected by MMOLove.")).to_be_visible()
    for chart in ("Sign-ups by a share link", "Requests to MMOLove"):
        drawn = page.get_by_role("img", name=re.compile(f"^{chart} by day: "))
        expect(drawn).to_be_visible()
        assert drawn.locator("> g").count() == 30
    for step in ("Captured", "Registered", "Qualified", "Rewarded"):
        expect(page.get_by_role("img", name=re.compile(f"^{step}: [\\d,]+ of [\\d,]+$"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^oskar"))).to_be_visible()
    card = page.get_by_role("region", name="default")
    expect(card).to_contain_text("Delivery works as far as is known.")
    for table in page.get_by_text("As a table").all():
        table.click()
    expect(page.get_by_role("table", name="Requests to MMOLove").get_by_role("row")).to_have_count(31)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert serious(page) == []


def test_every_link_leads_somewhere(season: Portal, visit: Visit) -> None:
    owner = staff(visit, season, "owner")
    owner.open(OVERVIEW)
    links = {str(link.get_attribute("href")) for link in owner.page.locator("#content a").all()}
    assert len(links) >= 7  # the rejected event's list and six players
    for link in sorted(links):
        answer = owner.page.goto(link)
        assert answer is not None
        assert answer.status == 200
    owner.open(OVERVIEW)
    owner.page.get_by_role("link", name="Show these events").click()
    expect(owner.page.get_by_text("rejected", exact=True).first).to_be_visible()
    assert owner.page.locator("#result_list tbody tr").count() == 1
    owner.page.get_by_role("link", name="Overview").click()
    expect(owner.page.get_by_text("1 event was rejected by MMOLove.")).to_be_visible()


def test_it_needs_neither_mouse_nor_script(season: Portal, visit: Visit) -> None:
    owner = staff(visit, season, "owner", scripts=False)
    page = owner.page
    owner.open(OVERVIEW)
    page.get_by_text("As a table").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="Sign-ups by a share link")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="Requests to MMOLove")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # on the first of the referrers
    page.wait_for_url("**/auth/user/*/change/")
    owner.open(OVERVIEW)
    page.get_by_role("button", name="Send test event").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Test event to default")).to_be_visible()


@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=str)
def test_who_may_look_and_no_more_gets_no_button(season: Portal, visit: Visit, look: Look) -> None:
    viewer = staff(visit, season, "viewer", look)
    viewer.open(OVERVIEW)
    expect(viewer.page.get_by_text("1 event was rejected by MMOLove.")).to_be_visible()
    assert viewer.page.locator("#content form, #content button, #content input").count() == 0
    assert serious(viewer.page) == []


@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=str)
def test_who_may_not_look_is_refused(season: Portal, visit: Visit, look: Look) -> None:
    clerk = staff(visit, season, "clerk", look)
    clerk.open(INDEX)
    expect(clerk.page.get_by_role("link", name="Referrals", exact=True).first).to_be_visible()
    assert clerk.page.get_by_role("link", name="Overview").count() == 0
    with clerk.watch.expecting(403):
        clerk.open(OVERVIEW)
        expect(clerk.page.get_by_role("heading", name="This fire is not yours")).to_be_visible()
    stranger = visit(season, look)
    stranger.open(OVERVIEW)
    expect(stranger.page.get_by_role("button", name="Log in")).to_be_visible()


@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=str)
def test_a_wrong_secret_is_told_first_and_mended_from_here(
    deploy: Callable[..., Deployment], visit: Visit, look: Look
) -> None:
    portal, mmolove = deploy("a-secret-of-yesterday")
    owner = visit(portal, look)
    page = owner.page
    with portal:
        invite(visit, portal, "alice", "bob").train()
        owner.log_in("owner")
        owner.open(OVERVIEW)
        needs = page.get_by_role("region", name="needs attention")
        owner.reload_until(needs.get_by_text(re.compile("^Delivery has been paused")))
        assert serious(page) == []
        first = needs.get_by_role("listitem").first
        expect(first).to_contain_text("The secret here is not the one it has for this server.")
        expect(first).to_contain_text("Copy the current secret of server 'emberfall' from the MMOLove dashboard")
        page.get_by_role("link", name="Show the server").click()
        expect(page.get_by_role("heading", name="Server health", level=1)).to_be_visible()
        page.get_by_role("link", name="Overview").click()
        page.get_by_role("button", name="Send test event").click()
        expect(page.get_by_text("failed", exact=True)).to_be_visible()
    portal.environment["MMOLOVE_REFERRAL_SECRET"] = SECRET
    with portal:
        owner.open(OVERVIEW)
        page.get_by_role("button", name="Send test event").click()
        expect(page.get_by_text("MMOLove accepted the test event")).to_be_visible()
        assert serious(page) == []
        owner.open(OVERVIEW)
        owner.reload_until(page.get_by_text("All is well. Everything has been delivered."))
        owner.reload_until(page.get_by_role("img", name="Rewarded: 1 of 1"))  # granted after the delivery
        assert [referral.state for referral in mmolove.referrals] == ["qualified"]


def test_a_portal_without_a_secret_says_which_setting_to_set(
    deploy: Callable[..., Deployment], visit: Visit, look: Look
) -> None:
    portal, _mmolove = deploy("")
    with portal:
        owner = staff(visit, portal, "owner", look)
        owner.open(OVERVIEW)
        expect(owner.page.get_by_role("region", name="default")).to_contain_text("['SECRET'] is missing")
        assert serious(owner.page) == []
        owner.page.get_by_role("button", name="Send test event").click()
        expect(owner.page.locator(".messagelist")).to_contain_text("MMOLOVE_REFERRAL['SECRET'] is missing")


@pytest.mark.parametrize(
    "at", ["", "outboundevent/", "outboundevent/?state__exact=rejected", "referral/", "reward/", "serverhealth/"]
)
@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=str)
def test_axe_finds_nothing_serious(season: Portal, visit: Visit, look: Look, at: str) -> None:
    owner = staff(visit, season, "owner", look)
    owner.open(f"{INDEX}{at}")
    assert serious(owner.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "at", ["outboundevent/", "outboundevent/?state__exact=pending", "referral/", "reward/", "reward/?attention=1"]
)
def test_a_list_fits_beside_its_filters(strained: Portal, visit: Visit, scheme: str, at: str) -> None:
    owner = staff(visit, strained, "owner", Look("desktop", scheme))
    owner.open(f"{INDEX}{at}")
    page = owner.page
    assert page.locator("#result_list tbody tr").count() >= 3
    expect(page.locator(".object-tools").get_by_role("link", name="Overview")).to_be_visible()
    expect(page.locator(".mmolove-to-filter")).to_be_hidden()  # the filters are in view
    assert (
        page.evaluate(
            "(() => { const list = document.querySelector('.results'); return list.scrollWidth - list.clientWidth })()"
        )
        <= 0
    )
    highest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('#result_list tr')].map(row => row.offsetHeight))"
    )
    assert highest <= 60, "no row is inflated by a text of three lines"
    assert serious(page) == []


@pytest.mark.parametrize("at", ["outboundevent/", "reward/?attention=1"])
def test_a_list_on_a_phone(strained: Portal, visit: Visit, at: str) -> None:
    owner = staff(visit, strained, "owner", PHONE)
    owner.open(f"{INDEX}{at}")
    page = owner.page
    tools = [
        page.locator(".object-tools").get_by_role("link", name=name).bounding_box()
        for name in ("Overview", "Filter", "Export as CSV")
    ]
    assert len({box["y"] for box in tools if box}) == 1, "in a row"
    assert page.evaluate("getComputedStyle(document.querySelector('.results'), '::after').position") == "sticky"
    telling = page.locator(".field-error" if "reward" in at else ".field-status").first.bounding_box()
    assert telling is not None
    assert telling["x"] + telling["width"] <= 390, "what one came for is in view"
    page.get_by_role("link", name="Filter", exact=True).click()
    expect(page.get_by_role("heading", name="Filter", exact=True)).to_be_in_viewport()
    assert serious(page) == []


@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=str)
def test_a_long_error_leaves_the_overview_in_its_frame(strained: Portal, visit: Visit, look: Look) -> None:
    owner = staff(visit, strained, "owner", look)
    owner.open(OVERVIEW)
    needs = owner.page.get_by_role("region", name="needs attention")
    expect(needs).to_contain_text("The last tries of 3 events failed.")
    expect(needs).to_contain_text("game_goldentry_purse_id_8f1c2d_fk_game_purse_id")
    assert serious(owner.page) == []  # and that nothing is wider than the window is watched on every page


@pytest.mark.parametrize("model", ["referral", "reward"])
@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=str)
def test_axe_finds_nothing_serious_on_a_rows_page(season: Portal, visit: Visit, look: Look, model: str) -> None:
    owner = staff(visit, season, "owner", look)
    owner.open_list(model)
    owner.page.locator("#result_list tbody th a").first.click()
    owner.page.wait_for_url("**/change/")
    assert serious(owner.page) == []
