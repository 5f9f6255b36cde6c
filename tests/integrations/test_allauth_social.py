"""django-allauth's social logins: to the provider and back, over real sockets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import requests
from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage
from django.utils import timezone

from django_mmolove_referral.models import Referral
from tests.factories import UserFactory
from tests.visitors import accounts, referred, written

from .browser import Browser
from .provider import Person, Provider
from .test_allauth import REGISTERED, confirm, confirmed_only, log_in

__all__ = ["confirmed_only"]


def through_the_provider(browser: Browser, query: str = "") -> requests.Response:
    """Press "Sign in with your guild", consent there, come back."""
    return browser.submit(browser.get(f"/accounts/oidc/guild/login/{query}"))


def member(name: str = "bob") -> Any:
    return UserFactory.create(
        name=name, email=f"{name}@example.com", password="dragon-9!", date_joined=timezone.now() - timedelta(days=1)
    )


def test_the_token_survives_the_way_to_the_provider_and_goes_to_the_new_account(
    browser: Browser, provider: Provider
) -> None:
    browser.visit("tok-1")
    page = through_the_provider(browser)
    assert [step.url.partition("?")[0] for step in page.history if provider.url in step.url] == [
        f"{provider.url}/authorize"
    ]
    assert page.text == "home of bob"
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_a_token_on_the_address_that_leads_to_the_provider_is_enough(browser: Browser, provider: Provider) -> None:
    assert through_the_provider(browser, "?mmref=tok-1").text == "home of bob"
    assert referred() == {"bob": "tok-1"}


def test_the_token_waits_while_a_new_player_chooses_a_name(browser: Browser, provider: Provider, settings: Any) -> None:
    settings.SOCIALACCOUNT_AUTO_SIGNUP = False
    browser.visit("tok-1")
    page = through_the_provider(browser)
    assert accounts() == set()
    assert browser.submit(page, username="dragon", email="bob@example.com").text == "home of dragon"
    assert (referred(), written()) == ({"dragon": "tok-1"}, [("dragon", "registered")])


def test_the_token_waits_for_a_visitor_who_first_turns_back(browser: Browser, provider: Provider) -> None:
    browser.visit("tok-1")
    provider.person = None
    assert "Cancelled" in through_the_provider(browser).text
    provider.person = Person("1", "bob", "bob@example.com")
    assert through_the_provider(browser).text == "home of bob"
    assert referred() == {"bob": "tok-1"}


def test_a_player_who_comes_back_through_the_provider_is_not_referred(
    browsers: Callable[[], Browser], provider: Provider
) -> None:
    assert through_the_provider(browsers()).text == "home of bob"
    get_user_model()._default_manager.update(date_joined=timezone.now() - timedelta(days=1))
    browser = browsers()
    browser.visit("tok-1")
    assert through_the_provider(browser).text == "home of bob"
    assert (accounts(), referred()) == ({"bob"}, {})
    browser.submit(browser.get("/accounts/logout/"))
    browser.visit("tok-2")
    provider.person = Person("2", "carol", "carol@example.com")
    assert through_the_provider(browser).text == "home of carol"
    assert referred() == {"carol": "tok-2"}


def test_a_member_who_connects_the_provider_is_not_referred(browser: Browser, provider: Provider) -> None:
    member()
    browser.visit("tok-1")
    log_in(browser)
    browser.submit(browser.get("/accounts/oidc/guild/login/?process=connect"))
    assert "Guild" in browser.get("/accounts/3rdparty/").text
    assert (accounts(), referred()) == ({"bob"}, {})


def test_a_member_recognised_by_a_verified_address_is_not_referred(
    browser: Browser, provider: Provider, settings: Any
) -> None:
    settings.SOCIALACCOUNT_EMAIL_AUTHENTICATION = True
    member().emailaddress_set.create(email="bob@example.com", verified=True, primary=True)
    browser.visit("tok-1")
    assert through_the_provider(browser).text == "home of bob"
    assert (accounts(), referred()) == ({"bob"}, {})


def test_an_address_that_the_provider_vouches_for_is_reported_at_once(
    browser: Browser, provider: Provider, settings: Any, mailoutbox: list[EmailMessage], confirmed_only: None
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    browser.visit("tok-1")
    assert through_the_provider(browser).text == "home of bob"
    assert mailoutbox == []
    assert (referred(), written()) == ({"bob": "tok-1"}, REGISTERED)


def test_an_address_that_nobody_vouches_for_is_reported_when_it_is_confirmed(
    browsers: Callable[[], Browser],
    provider: Provider,
    settings: Any,
    mailoutbox: list[EmailMessage],
    confirmed_only: None,
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    provider.person = Person("1", "bob", "bob@example.com", email_verified=False)
    browser = browsers()
    browser.visit("tok-1")
    through_the_provider(browser)
    assert (referred(), written()) == ({"bob": "tok-1"}, [])
    confirm(browsers(), mailoutbox[0])
    assert written() == REGISTERED


def test_the_friend_who_shared_the_link_is_known_after_a_social_sign_up(
    browser: Browser, provider: Provider, configure: Callable[..., None]
) -> None:
    carol = member("carol")
    configure(SHARE_URL=f"{browser.portal}/page/?mmref=tok-1&from=mmolove")  # MMOLove, which leads straight back
    browser.get(f"/join/{carol.pk}/")
    assert through_the_provider(browser).text == "home of bob"
    assert Referral.objects.get().referrer == carol
