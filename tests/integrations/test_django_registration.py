"""django-registration: in one step, and in two with a signed link in an e-mail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import requests
from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage

from tests.documented import names, receiving
from tests.pages import code
from tests.visitors import accounts, referred, written

from .browser import Browser
from .test_allauth import REGISTERED


def register(browser: Browser, workflow: str, query: str = "") -> requests.Response:
    page = browser.get(f"/{workflow}/register/{query}")
    return browser.submit(page, username="bob", email="bob@example.com", password1="dragon-9!x", password2="dragon-9!x")


def activate(browser: Browser, mail: EmailMessage) -> requests.Response:
    """Open the link in the e-mail, and press the button there."""
    link = re.search(r"/two-step/activate/\S+", str(mail.body))
    assert link
    return browser.submit(browser.get(link[0]))


@pytest.fixture
def activated_only(configure: Callable[..., None]) -> Iterator[None]:
    """A portal that reports activated accounts, as the page says."""
    configure(**names(code("integrations/django-registration.md", "AUTO_REGISTER"))["MMOLOVE_REFERRAL"])
    with receiving(code("integrations/django-registration.md", "report_activated_player")):
        yield


def test_one_step_refers_the_account_and_logs_it_in(browser: Browser) -> None:
    assert "Registered" in register(browser, "one-step", "?mmref=tok-1").text
    assert browser.get("/home/").text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_a_token_from_another_page_outlasts_a_refused_form(browser: Browser) -> None:
    browser.visit("tok-1")
    form = browser.get("/one-step/register/")
    refused = browser.ask("POST", form.url, data={"username": "bob", "csrfmiddlewaretoken": form.cookies["csrftoken"]})
    assert "errorlist" in refused.text
    register(browser, "one-step")
    assert referred() == {"bob": "tok-1"}


@pytest.mark.parametrize("workflow", ["one-step", "two-step"])
def test_a_visitor_without_a_token_is_nobodys_referral(browser: Browser, workflow: str) -> None:
    register(browser, workflow)
    assert (accounts(), referred()) == ({"bob"}, {})


def test_by_default_two_steps_report_the_account_at_the_first(browser: Browser, mailoutbox: list[EmailMessage]) -> None:
    register(browser, "two-step", "?mmref=tok-1")
    assert not get_user_model()._default_manager.get().is_active
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)
    assert "Activated" in activate(browser, mailoutbox[0]).text
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_the_account_is_reported_when_it_is_activated_wherever_that_happens(
    browsers: Callable[[], Browser], mailoutbox: list[EmailMessage], activated_only: None
) -> None:
    register(browsers(), "two-step", "?mmref=tok-1")
    assert (referred(), written()) == ({"bob": "tok-1"}, [])
    phone = browsers()
    assert "Activated" in activate(phone, mailoutbox[0]).text
    assert get_user_model()._default_manager.get().is_active
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)
    assert "already been activated" in activate(phone, mailoutbox[0]).text
    assert written() == REGISTERED


def test_activating_brings_the_account_no_token_of_the_browser_that_does_it(
    browsers: Callable[[], Browser], mailoutbox: list[EmailMessage]
) -> None:
    register(browsers(), "two-step")
    phone = browsers()
    phone.visit("tok-1")
    activate(phone, mailoutbox[0])
    assert referred() == {}
