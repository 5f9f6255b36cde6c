"""Clients of an API."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings

from tests.visitors import Browser

# Their apps are in settings of their own: --ds=tests.integrations.rest.settings
collect_ignore_glob = [] if "djoser" in django_settings.INSTALLED_APPS else ["test_*"]

PASSWORD = "correct-horse-9"
OURS = "django_mmolove_referral.middleware.ReferralMiddleware"


@pytest.fixture(params=[False, True], ids=["WSGI", "ASGI"])
def browser(request: pytest.FixtureRequest) -> Browser:
    return Browser(asgi=request.param)


@pytest.fixture(params=["all", "ours alone"])
def middleware(request: pytest.FixtureRequest, settings: Any) -> str:
    """With sessions, and without."""
    if request.param == "ours alone":
        settings.MIDDLEWARE = [OURS]
    return str(request.param)


def send(browser: Browser, url: str, name: str = "bob", *, headers: dict[str, str] | None = None, **data: Any) -> Any:
    """``POST`` an account as JSON."""
    body = {"username": name, "password": PASSWORD, **data}
    return browser.ask("post", url, body, content_type="application/json", headers=headers or {})
