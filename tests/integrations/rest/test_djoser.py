"""djoser: its own views, with the documentation's serializer, settings and receiver."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from djoser.serializers import UserCreatePasswordRetypeSerializer
from djoser.signals import user_activated
from djoser.views import UserViewSet
from rest_framework.authentication import TokenAuthentication

from django_mmolove_referral.serializers import ReferralTokenField
from tests.factories import UserFactory
from tests.integrations.rest.conftest import PASSWORD, send
from tests.pages import code
from tests.visitors import Browser, accounts, referred, written

pytestmark = pytest.mark.django_db(transaction=True)

USERS, ACTIVATION = "/auth/users/", "/auth/users/activation/"


def keys(source: str, name: str) -> dict[str, Any]:
    """The setting ``name`` of a block of settings."""
    found: dict[str, Any] = {}
    exec(source, found)
    setting: dict[str, Any] = found[name]
    return setting


@pytest.fixture
def djoser(settings: Any) -> Callable[..., None]:
    """``djoser(SEND_ACTIVATION_EMAIL=True)`` changes single keys of DJOSER."""

    def change(**changed: Any) -> None:
        settings.DJOSER = {**settings.DJOSER, **changed}

    return change


@pytest.fixture
def field(yourapp: Callable[[str, str], ModuleType], djoser: Callable[..., None]) -> None:
    """The documentation's serializer."""
    yourapp("serializers", code("integrations/djoser.md", "# yourapp/serializers.py"))
    djoser(**keys(code("integrations/djoser.md", "DJOSER ="), "DJOSER"))


@pytest.fixture
def confirming(
    yourapp: Callable[[str, str], ModuleType], djoser: Callable[..., None], configure: Callable[..., None]
) -> Iterator[None]:
    """The documentation's way to wait for the activation."""
    djoser(SEND_ACTIVATION_EMAIL=True)
    configure(**keys(code("integrations/djoser.md", '"AUTO_REGISTER": False'), "MMOLOVE_REFERRAL"))
    receivers = yourapp("receivers", code("integrations/djoser.md", "# yourapp/receivers.py"))
    yield
    user_activated.disconnect(receivers.report)


def activate() -> int:
    """Follow the link of the mail that was sent last, as the app does; the status of the answer."""
    link = re.search(r"activate/([\w-]+)/([\w-]+)", str(mail.outbox[-1].body))
    assert link is not None
    body = {"uid": link[1], "token": link[2]}
    status: int = Browser().ask("post", ACTIVATION, body, content_type="application/json").status_code
    return status


# -- without activation


@pytest.mark.usefixtures("field")
def test_an_app_without_cookies_sends_the_token_itself(browser: Browser, middleware: str) -> None:
    answer = send(browser, USERS, mmref="tok-1", email="bob@example.com")
    user = User.objects.get()
    assert answer.status_code == 201
    assert answer.json() == {"email": "bob@example.com", "username": "bob", "id": user.pk}
    assert user.check_password(PASSWORD)
    assert not answer.cookies
    assert (referred(), written()) == ({"bob": "tok-1"}, [("bob", "registered")])


def test_an_app_on_the_portals_own_site_needs_no_field(browser: Browser) -> None:
    browser.visit("tok-1")
    assert send(browser, USERS).status_code == 201
    assert (referred(), written()) == ({"bob": "tok-1"}, [("bob", "registered")])


@pytest.mark.usefixtures("field")
def test_the_app_logs_in_with_a_token_of_djosers_and_nothing_changes(browser: Browser) -> None:
    send(browser, USERS, mmref="tok-1")
    answer = send(browser, "/auth/token/login/", mmref="tok-2")
    assert answer.status_code == 200
    headers = {"authorization": f"Token {answer.json()['auth_token']}"}
    assert browser.ask("get", "/auth/users/me/", headers=headers).json()["username"] == "bob"
    assert send(browser, USERS, name="carol", mmref="tok-3", headers=headers).status_code == 201
    assert accounts() == {"bob", "carol"}
    assert referred() == {"bob": "tok-1"}


@pytest.mark.usefixtures("field")
@pytest.mark.parametrize("counts", [True, False])
def test_a_session_counts_as_a_login_where_the_api_takes_sessions(
    counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not counts:
        monkeypatch.setattr(UserViewSet, "authentication_classes", [TokenAuthentication])
    UserFactory.create(name="carol", is_staff=True)
    browser = Browser()
    browser.log_in("carol")
    assert send(browser, USERS, mmref="tok-1").status_code == 201
    assert referred() == ({} if counts else {"bob": "tok-1"})


@pytest.mark.usefixtures("field")
@pytest.mark.parametrize("rubbish", [None, "", 5, [], {"a": 1}, "a b", "\u0000", "a" * 1025])
def test_rubbish_instead_of_a_token_costs_the_player_nothing(rubbish: Any) -> None:
    assert send(Browser(), USERS, mmref=rubbish).status_code == 201
    assert (accounts(), referred()) == ({"bob"}, {})


@pytest.mark.usefixtures("field")
def test_a_refused_sign_up_uses_no_token_up() -> None:
    UserFactory.create(name="carol")
    assert send(Browser(), USERS, name="carol", mmref="tok-1").status_code == 400
    send(Browser(), USERS, mmref="tok-1")
    assert referred() == {"bob": "tok-1"}


def test_the_serializer_with_two_passwords_takes_the_field_too(
    yourapp: Callable[[str, str], ModuleType], djoser: Callable[..., None]
) -> None:
    class SignUpSerializer(UserCreatePasswordRetypeSerializer):  # type: ignore[misc]
        mmref = ReferralTokenField()

        class Meta(UserCreatePasswordRetypeSerializer.Meta):  # type: ignore[misc]
            fields = (*UserCreatePasswordRetypeSerializer.Meta.fields, "mmref")

    djoser(USER_CREATE_PASSWORD_RETYPE=True, SERIALIZERS={"user_create_password_retype": SignUpSerializer})
    assert send(Browser(), USERS, re_password="other", mmref="tok-1").status_code == 400
    assert send(Browser(), USERS, re_password=PASSWORD, mmref="tok-1").status_code == 201
    assert referred() == {"bob": "tok-1"}


# -- with activation


@pytest.mark.usefixtures("field")
def test_with_activation_mmolove_is_told_at_once_by_default(djoser: Callable[..., None]) -> None:
    djoser(SEND_ACTIVATION_EMAIL=True)
    send(Browser(), USERS, mmref="tok-1", email="bob@example.com")
    assert User.objects.get().is_active is False
    assert written() == [("bob", "registered")]
    assert activate() == 204
    assert written() == [("bob", "registered")]


@pytest.mark.usefixtures("field", "confirming")
@pytest.mark.parametrize("way", ["field", "cookie"])
def test_mmolove_is_told_when_the_account_is_activated(browser: Browser, way: str) -> None:
    if way == "cookie":
        browser.visit("tok-1")
    send(browser, USERS, email="bob@example.com", mmref="tok-1" if way == "field" else None)
    assert User.objects.get().is_active is False
    assert (referred(), written()) == ({"bob": "tok-1"}, [])
    assert activate() == 204
    assert User.objects.get().is_active is True
    assert written() == [("bob", "registered")]
    assert activate() == 403  # the link works once
    assert written() == [("bob", "registered")]


@pytest.mark.usefixtures("field", "confirming")
def test_a_changed_address_that_is_confirmed_reports_nothing_twice() -> None:
    send(Browser(), USERS, mmref="tok-1", email="bob@example.com")
    activate()
    browser = Browser()
    browser.client.force_login(User.objects.get())
    changed = browser.ask("patch", "/auth/users/me/", {"email": "b@example.com"}, content_type="application/json")
    assert changed.status_code == 200
    assert User.objects.get().is_active is False
    assert activate() == 204
    assert written() == [("bob", "registered")]


@pytest.mark.usefixtures("field", "confirming")
def test_an_account_without_a_token_is_activated_alike() -> None:
    send(Browser(), USERS, email="bob@example.com")
    assert activate() == 204
    assert (referred(), written()) == ({}, [])
