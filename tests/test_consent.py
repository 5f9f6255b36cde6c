"""``CAPTURE_IF``: what is stored with a visitor who has not agreed to it (nothing), and what counts all the same."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest

from django_mmolove_referral import share_link
from django_mmolove_referral.models import Referral

from .factories import UserFactory
from .pages import code
from .test_offer import aoffer, offer
from .test_signup import TROUBLES, errors
from .visitors import Browser, accounts, referred, urls

pytestmark = pytest.mark.django_db(transaction=True)

BOB, CAROL = "bob@example.com", "carol@example.com"
OURS = "django_mmolove_referral.middleware.ReferralMiddleware"

either_interface = pytest.mark.parametrize("asgi", [False, True], ids=["WSGI", "ASGI"])


@pytest.fixture(autouse=True)
def banner(yourapp: Callable[[str, str], ModuleType], configure: Callable[..., None], settings: Any) -> None:
    """The documentation's portal with a consent banner."""
    yourapp("consent", code("integrations/consent.md", "# yourapp/consent.py"))
    views = yourapp("views", code("integrations/consent.md", "# yourapp/views.py"))
    keys: dict[str, Any] = {}
    exec(code("integrations/consent.md", '"CAPTURE_IF"'), keys)
    configure(**keys["MMOLOVE_REFERRAL"], SET_COOKIE=True)
    settings.ROOT_URLCONF = urls(offer=offer, aoffer=aoffer, withdraw=views.withdraw)


def agree(browser: Browser) -> None:
    browser.client.cookies["consent"] = "all"


def untouched(answer: Any) -> bool:
    request = getattr(answer, "wsgi_request", None) or answer.asgi_request
    headers = {name.lower() for name, _ in answer.items()}
    return not answer.cookies and not request.session.accessed and not {"vary", "cache-control"} & headers


# -- without consent


@either_interface
@pytest.mark.parametrize("how", ["query", "cookie"])
def test_nothing_is_stored_with_a_visitor_who_has_not_agreed(how: str, asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    if how == "cookie":
        browser.client.cookies["mmref"] = "tok-1"
    assert untouched(browser.get("/page/" if how == "cookie" else "/page/?mmref=tok-1"))
    browser.sign_up()
    assert (accounts(), referred()) == ({BOB}, {})


@either_interface
def test_nothing_is_written_into_a_session_that_is_there(asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    browser.begin_session()
    assert untouched(browser.visit("tok-1"))
    assert untouched(
        browser.get("/page/", cookie=f"mmref=tok-1; sessionid={browser.client.cookies['sessionid'].value}")
    )
    assert browser.record == {}


@pytest.mark.parametrize("url", ["/register/", "/aregister/"])
def test_the_address_of_the_sign_up_itself_does_not_count(url: str) -> None:
    browser = Browser()
    browser.sign_up(url=f"{url}?mmref=tok-1", login="1")
    assert (accounts(), referred(), browser.record) == ({BOB}, {}, {})


@either_interface
@pytest.mark.parametrize("middleware", ["all", "ours alone"])
def test_what_the_sign_up_posts_counts_and_is_stored_nowhere_else(asgi: bool, middleware: str, settings: Any) -> None:
    if middleware == "ours alone":
        settings.MIDDLEWARE = [OURS]
    answer = Browser(asgi=asgi).sign_up(url="/aoffer/" if asgi else "/offer/", mmref="tok-1")
    assert referred() == {BOB: "tok-1"}
    assert not answer.cookies


def test_not_even_trouble_stores_what_was_posted(caplog: pytest.LogCaptureFixture) -> None:
    for session in (False, True):
        browser = Browser()
        if session:
            browser.begin_session()
        with TROUBLES["identity raises"]():
            answer = browser.sign_up(f"{session}@example.com".lower(), url="/offer/", mmref="tok-1")
        assert answer.status_code == 200
        assert not answer.cookies
        assert browser.record == {}
    assert referred() == {}
    assert errors(caplog) == ["A referral could not be attached; it will be at the account's next login."]


def test_a_share_link_leads_on_and_notes_nothing() -> None:
    alice = UserFactory.create()
    browser = Browser()
    answer = browser.get(share_link(alice))
    assert (answer.status_code, answer["Location"]) == (302, f"https://mmolove.example/r/srv_test?ref={alice.pk}")
    assert not answer.cookies
    assert browser.record == {}
    agree(browser)
    browser.visit("tok-1")
    browser.sign_up()
    assert Referral.objects.get().referrer is None


# -- with it


@either_interface
@pytest.mark.parametrize("how", ["query", "cookie"])
def test_the_next_request_after_the_visitor_agreed_captures(how: str, asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    url = "/page/" if how == "cookie" else "/page/?mmref=tok-1"
    if how == "cookie":
        browser.client.cookies["mmref"] = "tok-1"
    browser.get(url)
    agree(browser)
    assert browser.get(url)["Cache-Control"] == "private"
    browser.sign_up()
    assert referred() == {BOB: "tok-1"}


def test_with_consent_a_share_link_is_noted() -> None:
    alice = UserFactory.create()
    browser = Browser()
    agree(browser)
    browser.get(share_link(alice))
    browser.visit("tok-1")
    browser.sign_up()
    assert Referral.objects.get().referrer == alice


def test_a_token_that_was_kept_with_consent_goes_to_the_account_without_asking_again() -> None:
    browser = Browser()
    agree(browser)
    browser.visit("tok-1")
    del browser.client.cookies["consent"]
    browser.sign_up()
    assert referred() == {BOB: "tok-1"}
    assert "token" not in browser.record


def test_who_withdraws_consent_leaves_nothing_behind() -> None:
    browser = Browser()
    agree(browser)
    browser.visit("tok-1")
    assert browser.client.cookies["mmref"].value == "tok-1"
    assert browser.post("/withdraw/").status_code == 302
    assert browser.record == {}
    assert {name for name, cookie in browser.client.cookies.items() if cookie.value} <= {"sessionid"}
    browser.sign_up()
    assert (accounts(), referred()) == ({BOB}, {})


# -- how it is asked


class Asked:
    """Counts; answers yes."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, request: HttpRequest) -> bool:
        self.paths.append(request.path)
        return True


@either_interface
def test_it_is_asked_once_where_a_token_is_and_nowhere_else(asgi: bool, configure: Callable[..., None]) -> None:
    asked = Asked()
    configure(CAPTURE_IF=asked, SET_COOKIE=False)
    browser = Browser(asgi=asgi)
    browser.get("/page/")
    browser.get("/page/?mmref=a+b", cookie="mmref=a b")
    browser.sign_up(CAROL)
    browser.sign_up("dave@example.com", url="/offer/", mmref="tok-2")
    assert asked.paths == []
    browser.visit("tok-1")
    browser.sign_up(BOB, login="1")
    browser.post("/signout/")
    browser.get("/join/7/")
    browser.get("/join/7/?mmref=tok-3")
    assert asked.paths == ["/page/", "/join/7/", "/join/7/"]
    assert referred() == {BOB: "tok-1", "dave@example.com": "tok-2"}


@either_interface
def test_it_may_query_the_database(asgi: bool, configure: Callable[..., None]) -> None:
    def known(request: HttpRequest) -> bool:
        return get_user_model()._default_manager.exists()

    configure(CAPTURE_IF=known)
    UserFactory.create(name=CAROL)
    browser = Browser(asgi=asgi)
    browser.visit("tok-1")
    assert browser.record["token"] == "tok-1"


def fails(request: HttpRequest) -> bool:
    raise SynchronousOnlyOperation


async def unfit(request: HttpRequest) -> bool:
    return True


@either_interface
@pytest.mark.parametrize("broken", [fails, unfit, "nowhere.at_all", "os.sep", 5], ids=repr)
def test_no_answer_is_a_no_and_is_said_once(
    broken: object, asgi: bool, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mmolove_referral")
    configure(CAPTURE_IF=broken)
    browser = Browser(asgi=asgi)
    for _ in range(2):
        assert untouched(browser.visit("tok-1"))
    assert browser.get("/join/7/").status_code == 302
    assert browser.sign_up(BOB, url="/offer/", mmref="tok-2").status_code == 200
    assert referred() == {BOB: "tok-2"}
    assert caplog.messages == ["CAPTURE_IF gave no answer; nothing is captured until it does."]
    configure(CAPTURE_IF=lambda request: True)
    browser.visit("tok-1")
    assert browser.record["token"] == "tok-1"
    assert caplog.messages[1:] == ["CAPTURE_IF answers again."]


@pytest.mark.parametrize("answer", [None, "", 0])
def test_what_is_as_good_as_no_is_a_no(answer: object, configure: Callable[..., None]) -> None:
    configure(CAPTURE_IF=lambda request: answer)
    assert untouched(Browser().visit("tok-1"))
