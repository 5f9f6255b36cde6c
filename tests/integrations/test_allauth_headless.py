"""django-allauth's API: single-page applications with the session cookie, apps with a session token of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import requests
from django.core.mail import EmailMessage

from tests.documented import names
from tests.pages import code
from tests.visitors import accounts, referred, written

from .browser import Browser
from .provider import CLIENT_ID, CLIENT_SECRET, Provider
from .test_allauth import REGISTERED, confirmed_only
from .test_allauth_social import member

__all__ = ["confirmed_only"]

BOB = {"username": "bob", "email": "bob@example.com", "password": "dragon-9!"}


class SinglePage(Browser):
    """A front end that Django does not serve: it only calls the API, with the session cookie."""

    def call(self, method: str, path: str, query: str = "", **data: Any) -> requests.Response:
        csrf = {"X-CSRFToken": self.session.cookies.get("csrftoken", ""), "Referer": self.portal}
        return self.ask(method, f"/_allauth/browser/v1/{path}{query}", json=data or None, headers=csrf)

    def start(self, query: str = "") -> None:
        """The request that the page makes as it starts: is anybody logged in?"""
        assert self.call("GET", "auth/session", query).json()["meta"]["is_authenticated"] is False


class App:
    """A game launcher: no cookies, only the session token that the portal hands out."""

    def __init__(self, portal: str) -> None:
        self.portal = portal
        self.token = ""

    def call(self, method: str, path: str, query: str = "", **data: Any) -> requests.Response:
        headers = {"X-Session-Token": self.token} if self.token else {}
        url = f"{self.portal}/_allauth/app/v1/{path}{query}"
        answer = requests.request(method, url, json=data or None, headers=headers, timeout=30)
        self.token = answer.json().get("meta", {}).get("session_token") or self.token
        return answer

    @property
    def who(self) -> str:
        answer = self.call("GET", "auth/session").json()
        return str(answer["data"]["user"]["username"]) if answer["meta"]["is_authenticated"] else ""


def key_in(mail: EmailMessage) -> str:
    found = re.search(r"/accounts/confirm-email/([^/\s]+)", str(mail.body))
    assert found
    return unquote(found[1])


# -- browser clients


@pytest.fixture
def page(portal: str, transactional_db: None) -> Iterator[SinglePage]:
    with closing(SinglePage(portal)) as page:
        yield page


def test_a_single_page_passes_the_token_on_as_it_starts(page: SinglePage) -> None:
    page.start("?mmref=tok-1")
    assert page.call("POST", "auth/signup", **BOB).json()["data"]["user"]["username"] == "bob"
    assert page.get("/home/").text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_a_single_page_passes_the_token_on_with_the_sign_up(page: SinglePage) -> None:
    page.start()
    assert page.call("POST", "auth/signup", "?mmref=tok-1", **BOB).status_code == 200
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_a_single_pages_social_login_takes_the_token_along(page: SinglePage, provider: Provider) -> None:
    page.start("?mmref=tok-1")
    form = {
        "provider": "guild",
        "process": "login",
        "callback_url": f"{page.portal}/home/",
        "csrfmiddlewaretoken": page.session.cookies["csrftoken"],
    }
    answer = page.ask("POST", "/_allauth/browser/v1/auth/provider/redirect", data=form)
    assert answer.text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


# -- app clients


@pytest.fixture
def apps(portal: str, transactional_db: None, settings: Any) -> Callable[[], App]:
    """``apps()`` is one more player's app."""
    if settings.SESSION_ENGINE.endswith("signed_cookies"):
        pytest.skip("allauth looks an app's session up by its key: it needs sessions that are kept on the server")
    return lambda: App(portal)


@pytest.fixture
def app(apps: Callable[[], App]) -> App:
    return apps()


def test_an_app_sends_the_token_with_the_sign_up(app: App) -> None:
    sign_up = names(code("integrations/allauth.md", "def sign_up"))["sign_up"]
    app.token = sign_up(app.portal, "tok-1", **BOB)
    assert app.who == "bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


@pytest.mark.parametrize("token", ["tok-1", "not a token", "", None])
def test_an_app_posts_the_token_beside_its_other_answers(app: App, token: str | None) -> None:
    answer = app.call("POST", "auth/signup", **BOB, mmref=token)
    assert answer.status_code == 200, answer.text
    assert (app.who, referred()) == ("bob", {"bob": "tok-1"} if token == "tok-1" else {})


def test_an_app_without_a_token_makes_nobodys_referral(app: App) -> None:
    assert app.call("POST", "auth/signup", **BOB).status_code == 200
    assert (app.who, accounts(), referred()) == ("bob", {"bob"}, {})


def test_two_apps_at_one_address_each_bring_their_own_token(apps: Callable[[], App]) -> None:
    for name in ("bob", "carol"):
        player = {**BOB, "username": name, "email": f"{name}@example.com"}
        assert apps().call("POST", "auth/signup", f"?mmref=tok-{name}", **player).status_code == 200
    assert referred() == {"bob": "tok-bob", "carol": "tok-carol"}


def test_an_app_that_logs_a_member_in_refers_nobody(app: App) -> None:
    member()
    login = {"username": "bob", "password": "dragon-9!"}
    assert app.call("POST", "auth/login", "?mmref=tok-1", **login).status_code == 200
    assert (app.who, referred()) == ("bob", {})


def test_an_app_confirms_the_address_later(
    app: App, settings: Any, mailoutbox: list[EmailMessage], confirmed_only: None
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    assert app.call("POST", "auth/signup", "?mmref=tok-1", **BOB).status_code == 401
    assert (referred(), written()) == ({"bob": "tok-1"}, [])
    confirmed = app.call("POST", "auth/email/verify", key=key_in(mailoutbox[0]))
    assert confirmed.status_code == 401, confirmed.text  # and now to log in
    assert written() == REGISTERED


def id_token(provider: Provider) -> dict[str, str]:
    """What an app has after a login at the provider, done with the provider's own software."""
    query = {"client_id": CLIENT_ID, "response_type": "code", "redirect_uri": "game://back"}
    leave = requests.get(f"{provider.url}/authorize", params=query, allow_redirects=False, timeout=30)
    back = dict(parse_qsl(urlsplit(leave.headers["Location"]).query))
    form = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "redirect_uri": "game://back", **back}
    answer = requests.post(f"{provider.url}/token", data=form, timeout=30).json()
    return {"client_id": CLIENT_ID, "id_token": answer["id_token"]}


def test_an_apps_social_login_sends_the_token_with_the_providers(apps: Callable[[], App], provider: Provider) -> None:
    app = apps()
    login = {"provider": "guild", "process": "login"}
    answer = app.call("POST", "auth/provider/token", "?mmref=tok-1", **login, token=id_token(provider))
    assert answer.status_code == 200, answer.text
    assert app.who == "bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)
    # And once more, from another device: now the account exists.
    again = apps()
    again.call("POST", "auth/provider/token", "?mmref=tok-2", **login, token=id_token(provider))
    assert (again.who, referred()) == ("bob", {"bob": "tok-1"})


def test_an_app_that_has_to_ask_for_more_sends_the_token_with_the_last_answer(
    app: App, provider: Provider, settings: Any
) -> None:
    settings.SOCIALACCOUNT_AUTO_SIGNUP = False
    login = {"provider": "guild", "process": "login", "token": id_token(provider)}
    assert app.call("POST", "auth/provider/token", "?mmref=tok-1", **login).status_code == 401
    assert accounts() == set()
    more = {"username": "dragon", "email": "bob@example.com"}
    assert app.call("POST", "auth/provider/signup", "?mmref=tok-1", **more).status_code == 200
    assert referred() == {"dragon": "tok-1"}
