"""Launchers and games that register through an API: the documentation's views, and clients without any cookies."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from .pages import code
from .visitors import OWN_USER_MODEL, Browser, accounts, referred, urls, written

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(OWN_USER_MODEL, reason="UserCreationForm is about auth.User"),
]

PASSWORD = "correct-horse-9"
OURS = "django_mmolove_referral.middleware.ReferralMiddleware"

either_interface = pytest.mark.parametrize("asgi", [False, True], ids=["WSGI", "ASGI"])


@pytest.fixture(autouse=True)
def portal(yourapp: Callable[[str, str], ModuleType], settings: Any) -> ModuleType:
    """The documentation's API, and the page that starts the launcher."""
    api = yourapp("api", code("integrations/game-clients.md", "# yourapp/api.py"))
    views = yourapp("views", code("integrations/game-clients.md", "# yourapp/views.py"))
    settings.ROOT_URLCONF = urls(api=api.register, play=views.play)
    return api


def register(launcher: Browser | None = None, name: str = "bob", **data: Any) -> Any:
    """One request of a launcher, which keeps nothing from the last one."""
    body = {"username": name, "password": PASSWORD, **data}
    return (launcher or Browser()).ask("post", "/api/", body, content_type="application/json")


@either_interface
@pytest.mark.parametrize("middleware", ["all", "CSRF, too", "ours alone"])
def test_an_account_of_a_launchers_is_referred(middleware: str, asgi: bool, settings: Any) -> None:
    if middleware == "CSRF, too":
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.csrf.CsrfViewMiddleware"]
    elif middleware == "ours alone":
        settings.MIDDLEWARE = [OURS]
    launcher = Browser(asgi=asgi)
    launcher.client.handler.enforce_csrf_checks = True  # as outside of tests
    answer = register(launcher, mmref="tok-1")
    assert (answer.status_code, answer.json()) == (201, {"id": User.objects.get().pk})
    assert not answer.cookies
    assert (referred(), written()) == ({"bob": "tok-1"}, [("bob", "registered")])


@pytest.mark.parametrize("data", [{}, {"mmref": None}, {"mmref": ""}])
def test_an_account_without_a_token_is_an_account(data: dict[str, Any]) -> None:
    assert register(**data).status_code == 201
    assert (accounts(), referred()) == ({"bob"}, {})


@pytest.mark.parametrize(
    "rubbish", [5, 1.5, True, [], ["tok-1"], {}, {"token": "tok-1"}, "a b", "tök", "\u0000", "a" * 1025, "\ud800"]
)
def test_rubbish_instead_of_a_token_costs_the_player_nothing(rubbish: object) -> None:
    assert register(mmref=rubbish).status_code == 201
    assert (accounts(), referred()) == ({"bob"}, {})


@pytest.mark.parametrize("body", ["", "{", "[]", "5", "null", '"text"', "{}", '{"username": "bob"}', "\xff"])
def test_a_body_that_is_none_is_told_what_to_send(body: str) -> None:
    answer = Browser().client.generic("POST", "/api/", body.encode("latin-1"), content_type="application/json")
    assert answer.status_code == 400  # type: ignore[union-attr]
    assert accounts() == set()


def test_a_refused_registration_uses_no_token_up() -> None:
    answer = register(name="b b", mmref="tok-1")
    assert answer.status_code == 400
    assert "username" in answer.json()["errors"]
    assert not answer.cookies
    register(mmref="tok-1")
    assert referred() == {"bob": "tok-1"}


def test_a_registration_that_is_rolled_back_uses_no_token_up(portal: ModuleType, settings: Any) -> None:
    class Full(Exception):
        pass

    def overbooked(request: Any) -> Any:
        with transaction.atomic():
            portal.register(request)
            raise Full

    overbooked.csrf_exempt = True  # type: ignore[attr-defined]
    settings.ROOT_URLCONF = urls(api=overbooked)
    assert register(mmref="tok-1").status_code == 500
    assert (accounts(), referred()) == (set(), {})
    settings.ROOT_URLCONF = urls(api=portal.register)
    register(mmref="tok-1")
    assert referred() == {"bob": "tok-1"}


def test_a_launcher_may_register_two_friends_with_one_link() -> None:
    for name in ("bob", "carol"):
        register(name=name, mmref="tok-1")
    assert referred() == {"bob": "tok-1", "carol": "tok-1"}


# -- the deep link


@either_interface
def test_the_portals_page_hands_the_token_on_to_the_launcher(asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    browser.ask("get", "/page/", {"mmref": "tok+/=&1"})
    answer = browser.get("/play/")
    link = urlsplit(answer["Location"])
    assert (answer.status_code, link.scheme, link.netloc) == (302, "emberfall", "register")
    assert "private" in answer["Cache-Control"]
    (token,) = parse_qs(link.query)["mmref"]
    register(Browser(asgi=asgi), mmref=token)
    assert referred() == {"bob": "tok+/=&1"}


def test_the_page_that_mmolove_leads_to_may_be_that_one() -> None:
    answer = Browser().get("/play/?mmref=tok-1")
    assert answer["Location"] == "emberfall://register?mmref=tok-1"


def test_who_has_no_token_plays_without_one() -> None:
    answer = Browser().get("/play/")
    assert answer["Location"] == "emberfall://register?mmref="
    assert "Cache-Control" not in answer


# -- outside of a request


@pytest.mark.parametrize(
    ("token", "expected"), [("tok-1", {"bob": "tok-1"}), ("", {}), (None, {}), ("a b", {}), (5, {}), (["tok-1"], {})]
)
def test_a_socket_server_binds_the_token_itself(
    token: object, expected: dict[str, str], yourapp: Callable[[str, str], ModuleType]
) -> None:
    server = yourapp("server", code("integrations/game-clients.md", "# yourapp/server.py"))
    user = server.on_register("bob", PASSWORD, token)
    assert user == User.objects.get()
    assert user.check_password(PASSWORD)
    assert referred() == expected
    assert written() == [(name, "registered") for name in expected]
