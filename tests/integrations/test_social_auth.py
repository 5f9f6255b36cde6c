"""social-auth-app-django: to the provider and back, over real sockets; pipelines that stop and ask."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage
from django.utils import timezone
from social_core.pipeline import DEFAULT_AUTH_PIPELINE

from django_mmolove_referral.models import Referral
from tests.documented import names
from tests.pages import code
from tests.visitors import accounts, referred, written

from .browser import Browser
from .provider import Person, Provider
from .test_allauth import REGISTERED, log_in
from .test_allauth_social import member


def enter(browser: Browser, query: str = "") -> requests.Response:
    """Press "Sign in with your guild", consent there, come back."""
    return browser.submit(browser.get(f"/enter/{query}"))


def with_step(step: str, *, before: str) -> list[str]:
    """The library's own pipeline with one step more."""
    at = DEFAULT_AUTH_PIPELINE.index(before)
    return [*DEFAULT_AUTH_PIPELINE[:at], step, *DEFAULT_AUTH_PIPELINE[at:]]


def test_the_token_survives_the_way_to_the_provider_and_goes_to_the_new_account(
    browser: Browser, provider: Provider
) -> None:
    browser.visit("tok-1")
    page = enter(browser)
    assert any(step.url.startswith(f"{provider.url}/authorize") for step in page.history)
    assert page.text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_a_visitor_without_a_token_is_nobodys_referral(browser: Browser, provider: Provider) -> None:
    assert enter(browser).text == "home of bob"
    assert (accounts(), referred()) == ({"bob"}, {})


def test_a_player_who_comes_back_through_the_provider_is_not_referred(
    browsers: Callable[[], Browser], provider: Provider
) -> None:
    assert enter(browsers()).text == "home of bob"
    get_user_model()._default_manager.update(date_joined=timezone.now() - timedelta(days=1))
    browser = browsers()
    browser.visit("tok-1")
    assert enter(browser).text == "home of bob"
    assert (accounts(), referred()) == ({"bob"}, {})


def test_a_member_who_connects_the_provider_is_not_referred(browser: Browser, provider: Provider) -> None:
    bob = member()
    browser.visit("tok-1")
    log_in(browser)
    assert enter(browser).text == "home of bob"
    assert [account.provider for account in bob.social_auth.all()] == ["guild"]
    assert (accounts(), referred()) == ({"bob"}, {})


def test_a_member_recognised_by_the_address_is_not_referred(
    browser: Browser, provider: Provider, settings: Any
) -> None:
    member()
    step = "social_core.pipeline.social_auth.associate_by_email"
    settings.SOCIAL_AUTH_PIPELINE = with_step(step, before="social_core.pipeline.user.create_user")
    browser.visit("tok-1")
    assert enter(browser).text == "home of bob"
    assert (accounts(), referred()) == ({"bob"}, {})


def test_the_token_waits_for_a_visitor_who_first_turns_back(browser: Browser, provider: Provider) -> None:
    browser.visit("tok-1")
    provider.person = None
    form = browser.get("/enter/")
    csrf = form.cookies["csrftoken"]
    assert browser.ask("POST", "/social/login/guild/", data={"csrfmiddlewaretoken": csrf}).status_code == 403
    assert accounts() == set()
    provider.person = Person("1", "bob", "bob@example.com")
    assert enter(browser).text == "home of bob"
    assert referred() == {"bob": "tok-1"}


def test_the_token_waits_while_a_new_player_chooses_a_name(browser: Browser, provider: Provider, settings: Any) -> None:
    step = "tests.integrations.urls.ask_for_name"
    settings.SOCIAL_AUTH_PIPELINE = with_step(step, before="social_core.pipeline.user.create_user")
    browser.visit("tok-1")
    page = enter(browser)
    assert (page.url, accounts()) == (f"{browser.portal}/choose-name/", set())
    assert browser.submit(page, name="dragon").text == "home of dragon"
    assert (referred(), written()) == ({"dragon": "tok-1"}, [("dragon", "registered")])


# -- an e-mail that has to be answered before there is an account


@pytest.fixture
def validated(settings: Any) -> None:
    """A portal that validates addresses, as the page says."""
    for name, value in names(code("integrations/social-auth.md", "mail_validation")).items():
        if name.startswith("SOCIAL_AUTH_"):
            setattr(settings, name, value)
    settings.SOCIAL_AUTH_EMAIL_VALIDATION_FUNCTION = "tests.integrations.urls.send_validation"
    settings.SOCIAL_AUTH_EMAIL_VALIDATION_URL = "/page/"


def follow(browser: Browser, mail: EmailMessage) -> requests.Response:
    """Open the link in the e-mail, and press the button there."""
    link = re.search(r"/social/complete/\S+", str(mail.body))
    assert link
    return browser.submit(browser.get(link[0]))


def test_a_validated_address_brings_the_token_to_the_account(
    browser: Browser, provider: Provider, validated: None, mailoutbox: list[EmailMessage]
) -> None:
    browser.visit("tok-1")
    assert enter(browser).text == "welcome"
    assert accounts() == set()
    assert follow(browser, mailoutbox[0]).text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_a_link_opened_in_another_browser_brings_the_token_and_the_friend_to_the_account(
    browsers: Callable[[], Browser],
    provider: Provider,
    validated: None,
    mailoutbox: list[EmailMessage],
    configure: Callable[..., None],
) -> None:
    carol, browser, phone = member("carol"), browsers(), browsers()
    configure(SHARE_URL=f"{browser.portal}/page/?mmref=tok-1&from=mmolove")  # MMOLove, which leads straight back
    browser.get(f"/join/{carol.pk}/")
    enter(browser)
    assert follow(phone, mailoutbox[0]).text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)
    assert Referral.objects.get().referrer == carol


def test_without_the_steps_the_first_browsers_next_login_makes_up_for_it(
    browsers: Callable[[], Browser],
    provider: Provider,
    validated: None,
    mailoutbox: list[EmailMessage],
    settings: Any,
) -> None:
    settings.SOCIAL_AUTH_PIPELINE = [step for step in settings.SOCIAL_AUTH_PIPELINE if "mmolove" not in step]
    browser = browsers()
    browser.visit("tok-1")
    enter(browser)
    follow(browsers(), mailoutbox[0])
    assert (accounts(), referred()) == ({"bob"}, {})
    assert enter(browser).text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_a_token_of_the_other_browsers_own_goes_first(
    browsers: Callable[[], Browser], provider: Provider, validated: None, mailoutbox: list[EmailMessage]
) -> None:
    browser, phone = browsers(), browsers()
    browser.visit("tok-1")
    enter(browser)
    phone.visit("tok-2")
    follow(phone, mailoutbox[0])
    assert referred() == {"bob": "tok-2"}


def test_validation_without_a_token_makes_nobodys_referral(
    browsers: Callable[[], Browser], provider: Provider, validated: None, mailoutbox: list[EmailMessage]
) -> None:
    enter(browsers())
    assert follow(browsers(), mailoutbox[0]).text == "home of bob"
    assert (accounts(), referred()) == ({"bob"}, {})
