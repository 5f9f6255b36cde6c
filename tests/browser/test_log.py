"""The log's pages in the owner's browser: filters, the event's page, the account's, every button and its refusal."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from django_mmolove_referral.sandbox import Fault, only_real

from . import axe
from .conftest import Deployment, Shoot, Visit
from .test_owner import invite, said
from .visitor import DESKTOP, PHONE, Look, Visitor

LOG = "/admin/mmolove_referral/"
DJANGOS_OWN = 'class="help-tooltip'
"""In the choice of permissions on an account's page, where axe-core finds something."""

both = pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=str)


@pytest.fixture
def owner(deployed: Deployment, visit: Visit, look: Look) -> Visitor:
    owner = visit(deployed.portal, look)
    owner.log_in("owner")
    return owner


@pytest.fixture
def healthy(deployed: Deployment) -> Iterator[None]:
    yield
    deployed.mmolove.clear_faults()


def accessible(page: Page) -> None:
    assert [line for line in axe.serious(page) if DJANGOS_OWN not in line] == []


def tool(owner: Visitor, name: str) -> None:
    """Press one of the buttons above a row's page."""
    owner.page.locator(".object-tools").get_by_role("link", name=name).click()


def confirm(owner: Visitor, name: str) -> None:
    owner.page.get_by_role("main").get_by_role("button", name=name).click()


@both
def test_an_owner_finds_what_failed_and_sends_it_again(
    deployed: Deployment, visit: Visit, owner: Visitor, look: Look, shoot: Shoot, tmp_path: Path
) -> None:
    page = owner.page
    friend = f"friend-to-be-found-{look}"
    deployed.mmolove.script(Fault(400, {"error": "<b>malformed</b>"}, when=only_real))
    invite(visit, deployed.portal, f"finder-{look}", friend)
    owner.see("outboundevent", friend, "rejected")
    page.get_by_role("link", name=re.compile(r"Needs attention \(\d+\)")).click()
    page.get_by_role("link", name="4xx").click()
    page.get_by_label("From").fill("2020-01-01")
    page.get_by_role("button", name="Show", exact=True).click()
    page.locator("#searchbar").fill(friend)
    page.locator("#searchbar").press("Enter")
    expect(page.get_by_text("1 outbound event")).to_be_visible()
    asked = dict(pair.split("=") for pair in urlsplit(page.url).query.split("&"))
    assert asked == {"attention": "1", "status": "4xx", "created_from": "2020-01-01", "created_to": "", "q": friend}
    accessible(page)
    shoot(owner, f"admin-events-{look}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    download.value.save_as(tmp_path / "events.csv")
    with (tmp_path / "events.csv").open(encoding="utf-8-sig", newline="") as file:
        [line] = csv.DictReader(file)
    assert (line["account"], line["last_error"]) == (friend, "HTTP 400: <b>malformed</b>")

    owner.row(friend).get_by_role("link").first.click()
    expect(page.get_by_text("Then redeliver this event.")).to_be_visible()
    steps = page.locator(".mmolove-timeline").get_by_role("listitem")
    expect(steps).to_have_count(3)
    steps.nth(1).get_by_text("The answer").click()
    expect(steps.nth(1).get_by_text('{"error": "<b>malformed</b>"}')).to_be_visible()
    accessible(page)
    event = page.url
    tool(owner, "Redeliver now")
    expect(page.get_by_text("The event is sent again")).to_be_visible()
    accessible(page)
    shoot(owner, f"admin-redeliver-{look}")
    page.get_by_role("link", name="Leave it").click()
    tool(owner, "Redeliver now")
    confirm(owner, "Redeliver now")
    assert said(owner) == "It leaves with the next delivery run."
    assert page.url == event
    owner.reload_until(page.get_by_text("MMOLove accepted it.").first)
    assert page.locator(".object-tools").get_by_role("link", name="Redeliver now").count() == 0
    owner.open(urlsplit(event).path.replace("/change/", "/redeliver/"))
    assert "It was not redelivered" in said(owner)
    page.get_by_role("link", name="History").click()
    expect(page.get_by_text("Redelivered.")).to_be_visible()
    owner.open(urlsplit(event).path)
    page.get_by_role("link", name=re.compile("^Referral ")).click()
    expect(page.get_by_text("MMOLove knows the account.")).to_be_visible()
    accessible(page)


@both
def test_an_owner_marks_an_account_qualified_and_mends_its_reward(
    deployed: Deployment, visit: Visit, owner: Visitor, look: Look, shoot: Shoot
) -> None:
    page = owner.page
    friend = f"friend-to-qualify-{look}"
    invite(visit, deployed.portal, f"qualifier-{look}", friend)
    owner.see("referral", friend, "registered")
    owner.row(friend).get_by_role("link", name=friend).click()
    inline = page.locator("#mmolove_referrals-group")
    expect(inline.get_by_role("link", name=f"qualifier-{look}")).to_be_visible()
    inline.scroll_into_view_if_needed()
    shoot(owner, f"admin-user-{look}")
    accessible(page)
    with deployed.portal.closed_bank():
        inline.get_by_role("link", name="Mark qualified").click()
        accessible(page)
        confirm(owner, "Mark qualified")
        assert said(owner).startswith("“qualified” has been written.")
        owner.see("reward", friend, "IntegrityError: the bank is closed")
        page.get_by_role("link", name=re.compile(r"Needs attention \(\d+\)")).click()
        owner.row(friend).get_by_role("link").first.click()
        expect(page.get_by_text("It could not be granted")).to_be_visible()
        accessible(page)
    tool(owner, "Retry now")
    accessible(page)
    confirm(owner, "Retry now")
    assert said(owner) == "It is tried with the next delivery run."
    owner.reload_until(page.get_by_text(re.compile(r"^It has been granted")))
    reward = urlsplit(page.url).path
    owner.open(reward.replace("/change/", "/retry/"))
    assert "It was not tried again" in said(owner)
    page.get_by_role("link", name=re.compile("^Referral ")).click()
    referral = urlsplit(page.url).path
    assert page.locator(".object-tools").get_by_role("link", name="Mark qualified").count() == 0
    owner.open(referral.replace("/change/", "/qualify/"))
    assert "It was not marked" in said(owner)


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("look", [DESKTOP], ids=str)
def test_an_event_is_cancelled_without_any_script(deployed: Deployment, visit: Visit, look: Look) -> None:
    deployed.mmolove.outage()
    friend = "friend-without-scripts"
    invite(visit, deployed.portal, "without-scripts", friend)
    owner = visit(deployed.portal, look, scripts=False)
    owner.log_in("owner")
    page = owner.page
    owner.see("outboundevent", friend, "503")
    owner.row(friend).get_by_role("link").first.click()
    tool(owner, "Cancel")
    confirm(owner, "Cancel")
    assert said(owner) == "It will not be sent."
    expect(page.get_by_text("A member of staff cancelled it.")).to_be_visible()
    owner.open(urlsplit(page.url).path.replace("/change/", "/cancel/"))
    assert "It was not cancelled" in said(owner)
    deployed.mmolove.clear_faults()
    tool(owner, "Redeliver now")
    confirm(owner, "Redeliver now")
    owner.reload_until(page.get_by_text("MMOLove accepted it.").first)


@pytest.mark.parametrize("look", [PHONE], ids=str)
def test_who_may_only_look_finds_no_button_and_no_way_round(
    deployed: Deployment, visit: Visit, owner: Visitor, look: Look
) -> None:
    friend = "friend-to-look-at"
    invite(visit, deployed.portal, "looked-at", friend).train()
    owner.see("reward", friend, "granted")
    viewer = visit(deployed.portal, look)
    viewer.log_in("viewer")
    for model, names in {
        "outboundevent": ("redeliver", "cancel"),
        "referral": ("qualify",),
        "reward": ("retry",),
    }.items():
        viewer.open(f"{LOG}{model}/?q={friend}")
        viewer.page.locator("#result_list tbody th a").first.click()
        viewer.page.wait_for_url("**/change/**")
        tools = viewer.page.locator(".object-tools").get_by_role("link")
        expect(tools).to_have_text(["History"], ignore_case=True)
        for name in names:
            path = urlsplit(viewer.page.url).path.replace("/change/", f"/{name}/")
            answer = viewer.post(path)
            assert (answer.status, "This fire is not yours" in answer.text()) == (403, True)
            assert viewer.context.request.get(path).status == 403
