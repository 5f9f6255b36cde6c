"""People in front of a browser."""

from __future__ import annotations

import time
from typing import NamedTuple

from playwright.sync_api import APIResponse, Browser, Locator, Page, expect

from .portal import PASSWORD, PATIENCE
from .watch import Watch

expect.set_options(timeout=PATIENCE * 1000)


class Look(NamedTuple):
    """How a visitor sees the pages."""

    device: str
    scheme: str

    def __str__(self) -> str:
        return f"{self.device}-{self.scheme}"


DEVICES: dict[str, dict[str, object]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}
DESKTOP, PHONE = Look("desktop", "light"), Look("phone", "dark")


class Visitor:
    """A browser window of somebody's own: nothing is shared with other visitors."""

    def __init__(self, browser: Browser, home: str, look: Look, *, scripts: bool = True) -> None:
        device: dict[str, object] = DEVICES[look.device]
        self.context = browser.new_context(
            base_url=home,
            color_scheme="dark" if look.scheme == "dark" else "light",
            java_script_enabled=scripts,
            permissions=["clipboard-read", "clipboard-write"],
            **device,  # type: ignore[arg-type]  # as Playwright's own device descriptors are passed
        )
        self.context.set_default_timeout(PATIENCE * 1000)
        self.watch = Watch(self.context)
        self.page: Page = self.context.new_page()

    # -- in the portal

    def open(self, path: str) -> None:
        self.page.goto(path)

    def register(self, name: str) -> None:
        """Fill in the form of the page that is open."""
        page = self.page
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password:", exact=True).fill(PASSWORD)
        page.get_by_label("Password confirmation").fill(PASSWORD)
        self.main.get_by_role("button", name="Register").click()
        page.wait_for_url("**/character/")

    def train(self) -> None:
        self.page.get_by_role("button", name="Train to level 10").click()
        expect(self.page.locator("#level")).to_have_text("10")

    @property
    def main(self) -> Locator:
        return self.page.get_by_role("main")

    @property
    def invite_link(self) -> str:
        return self.page.get_by_label("Your invite link").input_value()

    @property
    def strip(self) -> Locator:
        return self.page.get_by_role("complementary", name="Guided tour")

    # -- in the admin

    def log_in(self, name: str) -> None:
        """As staff."""
        self.open("/admin/")
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_text("Welcome")).to_be_visible()

    def open_list(self, model: str) -> None:
        self.open(f"/admin/mmolove_referral/{model}/")

    def row(self, cell: str) -> Locator:
        """The line of the open list that holds ``cell``."""
        return self.page.locator("#result_list tbody tr", has=self.page.get_by_text(cell, exact=True))

    def act(self, model: str, row: str, action: str) -> None:
        """Tick a line of a list, choose what to do, and send it off."""
        self.open_list(model)
        self.row(row).get_by_role("checkbox").check()
        self.page.locator("select[name=action]").select_option(label=action)
        self.page.locator("button[name=index]").click()

    def see(self, model: str, row: str, text: str) -> None:
        """Wait until a line of a list shows ``text``."""
        self.open_list(model)
        self.reload_until(self.row(row).get_by_text(text, exact=True))

    def reload_until(self, shown: Locator) -> None:
        until = time.monotonic() + PATIENCE
        while not shown.count():
            assert time.monotonic() < until, f"not to be seen: {shown}"
            self.page.reload()

    def post(self, path: str, **fields: str) -> APIResponse:
        """A form that no page offers, sent with all the cookies and tokens of this visitor."""
        cookies = {cookie["name"]: cookie["value"] for cookie in self.context.cookies()}
        return self.context.request.post(
            path, form={"csrfmiddlewaretoken": cookies.get("csrftoken", ""), **fields}, max_redirects=0
        )
