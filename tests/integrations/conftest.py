"""The portal on real sockets, in each way that it may be run; a provider for social logins; browsers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from pytest_django.live_server_helper import LiveServer

from tests.served import served

from .browser import Browser
from .provider import CLIENT_ID, CLIENT_SECRET, Person, Provider, running

WAYS: dict[str, dict[str, Any]] = {
    "WSGI": {},
    "ATOMIC_REQUESTS": {},
    "signed cookies": {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"},
    "ASGI": {},
}


@pytest.fixture(scope="session", params=WAYS)
def portal(request: pytest.FixtureRequest, django_db_setup: None) -> Iterator[str]:
    """The portal's address. All of the portal runs in this process: settings changed by a test hold for it."""
    way = request.param
    with override_settings(**WAYS[way]), ExitStack() as stack:
        if way == "ATOMIC_REQUESTS":
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        if way == "ASGI":
            yield stack.enter_context(served("localhost"))
        else:
            server = LiveServer("localhost")
            stack.callback(server.stop)
            yield server.url


@pytest.fixture
def browsers(portal: str, transactional_db: None) -> Iterator[Callable[[], Browser]]:
    """``browsers()`` is one more visitor's browser."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Browser(portal)))


@pytest.fixture
def browser(browsers: Callable[[], Browser]) -> Browser:
    return browsers()


@pytest.fixture(scope="session")
def running_provider() -> Iterator[Provider]:
    with running() as provider:
        yield provider


@pytest.fixture
def provider(running_provider: Provider, settings: Any) -> Provider:
    """The provider, known to the portal's libraries, with bob before its page."""
    provider = running_provider
    provider.person = Person("1", "bob", "bob@example.com")
    app: dict[str, Any] = {"provider_id": "guild", "name": "Guild", "client_id": CLIENT_ID, "secret": CLIENT_SECRET}
    app["settings"] = {"server_url": f"{provider.url}/.well-known/openid-configuration"}
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}}
    settings.SOCIAL_AUTH_GUILD_AUTHORIZATION_URL = f"{provider.url}/authorize"
    settings.SOCIAL_AUTH_GUILD_ACCESS_TOKEN_URL = f"{provider.url}/token"
    settings.SOCIAL_AUTH_GUILD_USERINFO_URL = f"{provider.url}/userinfo"
    return provider
