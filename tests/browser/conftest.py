"""A browser, and portals to visit with it.

The browser is the system's Chromium: Playwright's own download is not needed. ``--screenshots`` renews
``docs/images/`` along the way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, sync_playwright

from django_mmolove_referral.sandbox import Sandbox
from django_mmolove_referral.sandbox.server import SandboxServer

from .portal import ROOT, Portal
from .visitor import DESKTOP, Look, Visitor

IMAGES = ROOT / "docs" / "images"
WANTED = {
    "landing-desktop-light",
    "landing-phone-dark",
    "character-desktop-light",
    "character-phone-dark",
    "rewards-desktop-dark",
    "behind-the-scenes-desktop-light",
    "behind-the-scenes-desktop-dark",
    "admin-event-desktop-light",
    "admin-events-desktop-light",
    "admin-user-desktop-light",
    "admin-overview-desktop-light",
    "admin-overview-phone-dark",
    "admin-servers-desktop-light",
    "admin-servers-phone-dark",
}
"""The README's pictures."""

SERVER_ID, SECRET = "emberfall", "ninety-nine-secrets"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
Visit = Callable[..., Visitor]
Shoot = Callable[[Visitor, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="renew the README's pictures in docs/images/")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.fail("No Chromium: install it (Debian: apt-get install chromium), or name it in CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """``visit(portal)`` is a new visitor. At the end nobody's browser may have complained of anything."""
    visitors: list[Visitor] = []

    def arrive(portal: Portal, look: Look = DESKTOP, *, home: str = "", scripts: bool = True) -> Visitor:
        visitor = Visitor(browser, home or portal.url, look, scripts=scripts)
        visitors.append(visitor)
        return visitor

    yield arrive
    for visitor in visitors:
        visitor.context.close()
    assert [complaint for visitor in visitors for complaint in visitor.watch.complaints] == []


@pytest.fixture(
    params=[Look(device, scheme) for device in ("desktop", "phone") for scheme in ("light", "dark")], ids=str
)
def look(request: pytest.FixtureRequest) -> Look:
    looked: Look = request.param
    return looked


@pytest.fixture
def shoot(request: pytest.FixtureRequest) -> Shoot:
    """``shoot(visitor, "landing-desktop-light")`` takes that picture if it is wanted and asked for."""

    def take(visitor: Visitor, name: str) -> None:
        if name in WANTED and request.config.getoption("--screenshots"):
            from PIL import Image

            picture = Image.open(BytesIO(visitor.page.screenshot(animations="disabled"))).convert("RGB")
            few_colours = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
            file = IMAGES / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            few_colours.save(file, optimize=True)
            assert file.stat().st_size < 150_000

    return take


# -- portals


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portal's directory, with tables and staff, to start from."""
    directory = tmp_path_factory.mktemp("prepared")
    Portal(directory).prepare()
    return directory


@pytest.fixture(scope="session")
def portal(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """The portal as it runs without credentials: the sandbox among its own pages, and the guided tour."""
    directory = tmp_path_factory.mktemp("portals") / "with-sandbox"
    shutil.copytree(prepared, directory)
    with Portal(directory) as portal:
        yield portal


class Deployment(NamedTuple):
    """A portal with credentials, and the MMOLove that they are for."""

    portal: Portal
    mmolove: Sandbox


@pytest.fixture(scope="session")
def deploy(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Deployment]]:
    """``deploy(secret)`` is a deployment whose portal does not run yet."""
    with ExitStack() as servers:

        def make(secret: str = SECRET) -> Deployment:
            directory = tmp_path_factory.mktemp("deployed") / "var"
            shutil.copytree(prepared, directory)
            portal = Portal(directory, MMOLOVE_SERVER_ID=SERVER_ID, MMOLOVE_REFERRAL_SECRET=secret)
            mmolove = Sandbox({SERVER_ID: SECRET}, register_url=f"{portal.url}register/")
            server = servers.enter_context(SandboxServer(mmolove))
            portal.environment["MMOLOVE_ENDPOINT"] = server.endpoint
            portal.environment["MMOLOVE_SHARE_URL"] = server.share_url(SERVER_ID)
            return Deployment(portal, mmolove)

        yield make


@pytest.fixture(scope="session")
def deployed(deploy: Callable[..., Deployment]) -> Iterator[Deployment]:
    """A portal that runs with the right secret."""
    deployment = deploy()
    with deployment.portal:
        yield deployment
