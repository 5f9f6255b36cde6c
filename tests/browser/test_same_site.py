"""What ``SESSION_COOKIE_SAMESITE = "Strict"`` does to those who come back from another site. To a browser
``localhost`` and ``127.0.0.1`` are two sites, as a portal and MMOLove are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import expect

from django_mmolove_referral.sandbox import Sandbox
from django_mmolove_referral.sandbox.server import SandboxServer

from .conftest import SECRET, SERVER_ID, Visit
from .portal import Portal
from .visitor import Visitor

Open = Callable[[str], Portal]


@pytest.fixture
def opened(prepared: Path, tmp_path: Path) -> Iterator[Open]:
    """``opened(settings)`` is a portal on ``localhost``, and an MMOLove on ``127.0.0.1``."""
    with ExitStack() as servers:

        def start(settings: str) -> Portal:
            shutil.copytree(prepared, tmp_path / "var")
            portal = Portal(tmp_path / "var", MMOLOVE_SERVER_ID=SERVER_ID, MMOLOVE_REFERRAL_SECRET=SECRET)
            portal.url = portal.url.replace("127.0.0.1", "localhost")
            mmolove = Sandbox({SERVER_ID: SECRET}, register_url=f"{portal.url}register/")
            server = servers.enter_context(SandboxServer(mmolove))
            portal.environment |= {
                "DJANGO_SETTINGS_MODULE": settings,
                "MMOLOVE_ENDPOINT": server.endpoint,
                "MMOLOVE_SHARE_URL": server.share_url(SERVER_ID),
            }
            servers.enter_context(portal)
            return portal

        yield start


def follow(visitor: Visitor, link: str) -> None:
    """Click ``link`` on a page of nobody's, which is another site than any."""
    visitor.page.goto("about:blank")
    visitor.page.set_content(f'<a href="{link}">Play with me!</a>')
    visitor.page.get_by_text("Play with me!").click()
    visitor.page.wait_for_url("http://localhost:*/*/**")


@pytest.mark.parametrize(
    ("settings", "kept"), [("portal.settings", True), ("tests.browser.strict", False)], ids=["Lax", "Strict"]
)
def test_sessions_that_stay_at_home_lose_the_referrer_and_the_login(
    settings: str, kept: bool, opened: Open, visit: Visit
) -> None:
    """A check warns of it. The token itself arrives either way: it comes with the address."""
    portal = opened(settings)
    alice, bob, carol = (visit(portal) for _ in range(3))
    alice.open("/register/")
    alice.register("alice")
    link = alice.invite_link

    follow(bob, link)
    bob.register("bob")
    invited_by = bob.page.get_by_text("Invited by").locator("..")
    expect(invited_by).to_contain_text("alice" if kept else "somebody unknown")

    carol.open(link)  # out of a message, say: no site leads there
    carol.register("carol")
    expect(carol.page.get_by_text("Invited by").locator("..")).to_contain_text("alice")

    follow(alice, link)
    alice.open("/character/")
    expect(alice.page.get_by_role("heading", name="alice" if kept else "Log in")).to_be_visible()
