"""django-allauth's own pages: local accounts, with and without a confirmed e-mail address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.core.mail import EmailMessage
from django.utils import timezone

from tests.documented import names, receiving
from tests.factories import UserFactory
from tests.pages import code
from tests.visitors import accounts, referred, written

from .browser import Browser

REGISTERED = [("bob", "registered")]


def sign_up(browser: Browser, query: str = "", *, email: str = "bob@example.com") -> requests.Response:
    page = browser.get(f"/accounts/signup/{query}")
    return browser.submit(page, username="bob", email=email, password1="dragon-9!", password2="dragon-9!")


def log_in(browser: Browser, name: str = "bob") -> requests.Response:
    return browser.submit(browser.get("/accounts/login/"), login=name, password="dragon-9!")


def confirm(browser: Browser, mail: EmailMessage) -> requests.Response:
    """Open the link in the e-mail, and press the button there."""
    link = re.search(r"/accounts/confirm-email/\S+", str(mail.body))
    assert link
    return browser.submit(browser.get(link[0]), action="confirm-email")


@pytest.fixture
def confirmed_only(configure: Callable[..., None]) -> Iterator[None]:
    """A portal that reports those who confirmed their address, as the page says."""
    configure(**names(code("integrations/allauth.md", "AUTO_REGISTER"))["MMOLOVE_REFERRAL"])
    with receiving(code("integrations/allauth.md", "report_confirmed_player")):
        yield


def test_a_visitor_with_a_token_becomes_a_referred_account(browser: Browser) -> None:
    assert sign_up(browser, query="?mmref=tok-1").text == "home of bob"
    assert referred() == {"bob": "tok-1"}
    assert written() == REGISTERED


def test_a_token_from_another_page_outlasts_a_refused_form(browser: Browser) -> None:
    browser.visit("tok-1")
    form = browser.get("/accounts/signup/")
    refused = browser.ask("POST", form.url, data={"username": "bob", "csrfmiddlewaretoken": form.cookies["csrftoken"]})
    assert "errorlist" in refused.text
    assert accounts() == set()
    sign_up(browser)
    assert referred() == {"bob": "tok-1"}


def test_logging_in_again_changes_nothing(browser: Browser) -> None:
    sign_up(browser, "?mmref=tok-1")
    assert browser.submit(browser.get("/accounts/logout/")).text == "home of nobody"
    assert log_in(browser).text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_a_visitor_without_a_token_is_nobodys_referral(browser: Browser) -> None:
    assert sign_up(browser).text == "home of bob"
    assert (accounts(), referred()) == ({"bob"}, {})


def test_a_member_who_logs_in_with_a_token_is_not_referred(browser: Browser) -> None:
    UserFactory.create(name="bob", password="dragon-9!", date_joined=timezone.now() - timedelta(days=1))
    browser.visit("tok-1")
    assert log_in(browser).text == "home of bob"
    assert referred() == {}


# -- e-mail addresses to be confirmed


def test_by_default_the_account_is_reported_before_its_address_is_confirmed(
    browser: Browser, settings: Any, mailoutbox: list[EmailMessage]
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    sign_up(browser, "?mmref=tok-1")
    assert browser.get("/home/").text == "home of nobody"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)
    confirm(browser, mailoutbox[0])
    assert log_in(browser).text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_the_account_is_reported_when_its_address_is_confirmed_wherever_that_happens(
    browsers: Callable[[], Browser], settings: Any, mailoutbox: list[EmailMessage], confirmed_only: None
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    browser, phone = browsers(), browsers()
    sign_up(browser, "?mmref=tok-1")
    assert (referred(), written()) == ({"bob": "tok-1"}, [])
    confirm(phone, mailoutbox[0])
    assert written() == REGISTERED
    assert log_in(phone).text == "home of bob"
    assert written() == REGISTERED


def test_a_code_to_type_in_confirms_as_the_link_does(
    browser: Browser, settings: Any, mailoutbox: list[EmailMessage], confirmed_only: None
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    page = sign_up(browser, "?mmref=tok-1")
    assert (referred(), written()) == ({"bob": "tok-1"}, [])
    typed = re.search(r"^\w{4,}(?:-\w{2,})+$|^[A-Z0-9]{6,}$", str(mailoutbox[0].body), re.MULTILINE)
    assert typed, mailoutbox[0].body
    assert browser.submit(page, code=typed[0]).text == "home of bob"
    assert written() == REGISTERED


def test_a_sign_up_with_a_known_address_creates_nothing_and_leaves_the_visitor_the_token(
    browser: Browser, settings: Any, mailoutbox: list[EmailMessage]
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    UserFactory.create(name="carol", email="carol@example.com", date_joined=timezone.now() - timedelta(days=1))
    sign_up(browser, "?mmref=tok-1", email="carol@example.com")
    assert mailoutbox[0].to == ["carol@example.com"]
    assert (accounts(), referred()) == ({"carol"}, {})
    sign_up(browser)
    assert referred() == {"bob": "tok-1"}
