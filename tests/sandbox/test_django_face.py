"""The Django-URLs face."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.test.utils import override_settings
from django.urls import reverse

from django_mmolove_referral.protocol import SIGNATURE_HEADER
from django_mmolove_referral.sandbox import Fault, Server
from django_mmolove_referral.sandbox.views import current_sandbox

from .portal import SECRET, SERVER, event, sign

MIDDLEWARE = ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
CONFIG = {"SERVERS": {SERVER: SECRET}, "REGISTER_URL": "/signup/"}
EVENTS = "/mmolove/api/referral/events"


@pytest.fixture(autouse=True)
def _configured() -> Iterator[None]:
    with override_settings(ROOT_URLCONF="tests.sandbox.urls", MIDDLEWARE=MIDDLEWARE, MMOLOVE_SANDBOX=CONFIG):
        yield


@pytest.fixture
def portal_client() -> Client:
    return Client(enforce_csrf_checks=True)


def post(client: Client, token: str, kind: str = "registered", **fields: Any) -> Any:
    body = json.dumps(event(kind, token, **fields)).encode()
    signature = sign(SECRET, body, int(time.time()))
    return client.post(EVENTS, body, content_type="application/json", headers={SIGNATURE_HEADER: signature})


def test_the_journey(portal_client: Client) -> None:
    answer = portal_client.get(f"/mmolove/r/{SERVER}?ref=alice")
    assert answer.status_code == 302
    assert not answer.cookies, "MMOLove's own cookie lies on MMOLove's domain"
    assert answer.headers["Cache-Control"] == "no-store"
    location = urlsplit(answer.headers["Location"])
    assert location.path == "/signup/"
    (token,) = parse_qs(location.query)["mmref"]
    assert post(portal_client, token).json()["state"] == "registered"
    assert post(portal_client, token, "qualified").json()["state"] == "qualified"
    assert current_sandbox().referrals[0].referrer == "alice"


@pytest.mark.parametrize("path", [f"r/{SERVER}", f"r/{SERVER}/", "r/srv%5F1/"])
def test_share_links_with_and_without_a_slash(portal_client: Client, path: str) -> None:
    assert portal_client.get(f"/mmolove/{path}?ref=alice").status_code == 302


def test_names(portal_client: Client) -> None:
    assert reverse("mmolove_sandbox:share", kwargs={"server_id": "a b"}) == "/mmolove/r/a%20b"
    assert reverse("mmolove_sandbox:events") == EVENTS
    assert reverse("mmolove_sandbox:log") == "/mmolove/"


def test_refusals(portal_client: Client) -> None:
    assert portal_client.get(EVENTS).status_code == 405
    assert portal_client.post(EVENTS, {"event": "registered"}).status_code == 400
    assert portal_client.post(EVENTS, b"x" * 70_000, content_type="application/json").status_code == 413
    assert portal_client.get("/mmolove/r/nobody?ref=a").status_code == 404
    assert portal_client.head("/mmolove/").status_code == 200


def test_a_register_url_beyond_ascii(portal_client: Client) -> None:
    with override_settings(MMOLOVE_SANDBOX={**CONFIG, "REGISTER_URL": "/anmeldung/für/"}):
        location = portal_client.get(f"/mmolove/r/{SERVER}?ref=a").headers["Location"]
    assert location.startswith("/anmeldung/f%C3%BCr/?mmref=")


def test_faults(portal_client: Client) -> None:
    sandbox = current_sandbox()
    sandbox.script(Fault(429, {"error": "later"}, {"Retry-After": "60"}))
    answer = post(portal_client, "probe")
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (429, {"error": "later"}, "60")
    for fault in (Fault(drop=True), Fault(truncate=True)):
        sandbox.script(fault)
        assert post(portal_client, "probe").status_code == 503
    sandbox.script(Fault(delay=3600, drip=3600))
    assert post(portal_client, "probe").status_code == 404


def test_the_page(portal_client: Client) -> None:
    nasty = "<script>alert(1)</script>&\"'"
    token = parse_qs(urlsplit(portal_client.get(f"/mmolove/r/{SERVER}", {"ref": nasty}).headers["Location"]).query)[
        "mmref"
    ][0]
    post(portal_client, token, referee_identity=nasty)
    post(portal_client, token, "qualified", test=True)
    current_sandbox().script(Fault(500, processed=True))
    post(portal_client, token, "qualified")
    portal_client.post(EVENTS, b"no json", content_type="application/json")
    answer = portal_client.get("/mmolove/")
    page = answer.content.decode()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "&lt;script&gt;alert(1)" in page
    assert token not in page
    assert SECRET not in page
    assert "qualified (dry run)" in page
    assert "answer lost, HTTP 500" in page
    # What a policy of default-src 'self' would block.
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|https?:|data:", page)


def test_an_empty_page(portal_client: Client) -> None:
    page = portal_client.get("/mmolove/").content.decode()
    assert "None yet" in page
    (style,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', page)
    sheet = portal_client.get(f"/mmolove/{style}")
    assert (sheet.status_code, sheet.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert b"table" in sheet.content


def test_a_restart_forgets_nothing(portal_client: Client, tmp_path: Path) -> None:
    config = {**CONFIG, "STATE": tmp_path / "sandbox.json"}
    with override_settings(MMOLOVE_SANDBOX=config):
        post(portal_client, current_sandbox().mint(SERVER, "alice"))
        before = current_sandbox()
    with override_settings(MMOLOVE_SANDBOX=config):
        assert current_sandbox() is not before
        assert current_sandbox().referrals == before.referrals != []


def test_one_sandbox_until_the_setting_changes() -> None:
    before = current_sandbox()
    with override_settings(USE_TZ=True):
        assert current_sandbox() is before
    with override_settings(MMOLOVE_SANDBOX={**CONFIG, "SERVERS": {"x": Server("s", register_url="/x/")}}):
        assert current_sandbox().click("x", "alice").startswith("/x/?mmref=")


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (None, 'MMOLOVE_SANDBOX must be a dict with "SERVERS" and "REGISTER_URL"'),
        ({"REGISTER_URL": "/"}, 'MMOLOVE_SANDBOX["SERVERS"]'),
        ({"REGISTER_URL": "/", "SERVERS": {}}, 'MMOLOVE_SANDBOX["SERVERS"]'),
        ({"REGISTER_URL": "/", "SERVERS": "x"}, 'MMOLOVE_SANDBOX["SERVERS"]'),
        ({"REGISTER_URL": "/", "SERVERS": {"x": None}}, 'MMOLOVE_SANDBOX["SERVERS"]["x"]'),
        ({"SERVERS": {"x": "s"}}, 'MMOLOVE_SANDBOX["REGISTER_URL"]'),
        ({**CONFIG, "REGISTERURL": "/"}, "unknown keys: REGISTERURL"),
    ],
)
def test_what_is_missing_is_named(portal_client: Client, config: Any, key: str) -> None:
    with override_settings(MMOLOVE_SANDBOX=config), pytest.raises(ImproperlyConfigured, match=re.escape(key)):
        portal_client.get("/mmolove/")
