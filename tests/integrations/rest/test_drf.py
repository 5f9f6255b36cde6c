"""Django REST framework: the documentation's serializer and view, for an app with cookies and for one without."""

from __future__ import annotations

import html
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rest_framework import serializers
from rest_framework.authtoken.models import Token
from rest_framework.metadata import SimpleMetadata

from django_mmolove_referral.capture import current_visit
from django_mmolove_referral.models import Referral
from django_mmolove_referral.record import usable_token
from django_mmolove_referral.serializers import ReferralTokenField
from tests.factories import UserFactory
from tests.integrations.rest.conftest import PASSWORD, send
from tests.pages import code
from tests.visitors import Browser, accounts, referred, urls, written

pytestmark = pytest.mark.django_db(transaction=True)

SIGN_UP = "/sign-up/"


@pytest.fixture(autouse=True)
def views(yourapp: Callable[[str, str], ModuleType], settings: Any) -> ModuleType:
    """The documentation's API."""
    yourapp("serializers", code("integrations/drf.md", "# yourapp/serializers.py"))
    views = yourapp("views", code("integrations/drf.md", "# yourapp/views.py"))
    settings.ROOT_URLCONF = urls(**{"sign-up": views.SignUp.as_view()})
    return views


def test_an_app_without_cookies_sends_the_token_itself(browser: Browser, middleware: str) -> None:
    answer = send(browser, SIGN_UP, mmref="tok-1")
    user = User.objects.get()
    assert (answer.status_code, answer.json()) == (201, {"id": user.pk, "username": "bob"})
    assert user.check_password(PASSWORD)
    assert not answer.cookies
    assert (referred(), written()) == ({"bob": "tok-1"}, [("bob", "registered")])


def test_an_app_on_the_portals_own_site_has_the_visits_cookie(browser: Browser) -> None:
    browser.visit("tok-1")
    assert send(browser, SIGN_UP).status_code == 201
    assert (referred(), written()) == ({"bob": "tok-1"}, [("bob", "registered")])


def test_what_the_app_sends_goes_before_what_was_captured(browser: Browser) -> None:
    browser.visit("tok-1")
    send(browser, SIGN_UP, mmref="tok-2")
    send(browser, SIGN_UP, name="carol")
    assert accounts() == {"bob", "carol"}
    assert referred() == {"bob": "tok-2"}


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=BoUnDaRyStRiNg", "urlencoded"])
def test_forms_may_be_sent_as_well(content_type: str) -> None:
    data = {"username": "bob", "password": PASSWORD, "mmref": "tok-1"}
    if content_type == "urlencoded":
        body = "&".join(f"{name}={value}" for name, value in data.items())
        answer = Browser().client.post(SIGN_UP, body, content_type="application/x-www-form-urlencoded")
    else:
        answer = Browser().client.post(SIGN_UP, data)
    assert answer.status_code == 201  # type: ignore[union-attr]
    assert referred() == {"bob": "tok-1"}


RUBBISH: list[Any] = [None, "", " ", 5, 1.5, True, [], ["tok-1"], {}, {"a": 1}, "a b", "tök", "\u0000", "a" * 1025]


@pytest.mark.parametrize("rubbish", RUBBISH, ids=lambda value: repr(value)[:20])
def test_rubbish_instead_of_a_token_is_no_reason_for_a_400(rubbish: Any) -> None:
    answer = send(Browser(), SIGN_UP, mmref=rubbish)
    assert (answer.status_code, set(answer.json())) == (201, {"id", "username"})
    assert (accounts(), referred()) == ({"bob"}, {})


class Bare(serializers.Serializer[Any]):
    mmref = ReferralTokenField()
    name = serializers.CharField(required=False)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@hypothesis_settings(deadline=None)
@given(anything, st.booleans())
def test_the_field_is_valid_and_left_out_whatever_is_sent(value: Any, partial: bool) -> None:
    serializer = Bare(data={"mmref": value, "name": "bob"}, partial=partial)
    assert serializer.is_valid()
    assert serializer.validated_data == {"name": "bob"}
    assert serializer.data == {"name": "bob"}


@hypothesis_settings(deadline=None)
@given(anything)
def test_only_a_token_is_offered(value: Any) -> None:
    seen: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        Bare(data={"mmref": value}).is_valid(raise_exception=True)
        visit = current_visit()
        assert visit is not None
        seen.append(visit.token)
        return HttpResponse()

    with override_settings(ROOT_URLCONF=urls(view=view)):
        assert Browser().get("/view/").status_code == 200
    usable = usable_token(value.strip()) if isinstance(value, str) else None
    assert seen == [usable or ""]


def test_a_refused_sign_up_uses_no_token_up(browser: Browser) -> None:
    answer = send(browser, SIGN_UP, name="", mmref="tok-1")
    assert (answer.status_code, set(answer.json())) == (400, {"username"})
    assert not answer.cookies
    send(browser, SIGN_UP)
    assert (accounts(), referred()) == ({"bob"}, {})
    send(browser, SIGN_UP, name="carol", mmref="tok-1")
    assert referred() == {"carol": "tok-1"}


def test_a_sign_up_that_is_rolled_back_uses_no_token_up(
    views: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(views.SignUp):  # type: ignore[misc,name-defined]
        def perform_create(self, serializer: Any) -> None:
            super().perform_create(serializer)
            raise serializers.ValidationError("no room")

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    settings.ROOT_URLCONF = urls(**{"sign-up": Full.as_view()})
    browser = Browser()
    browser.begin_session()
    assert send(browser, SIGN_UP, mmref="tok-1").status_code == 400
    assert (accounts(), referred()) == (set(), {})
    settings.ROOT_URLCONF = urls(**{"sign-up": views.SignUp.as_view()})
    assert send(browser, SIGN_UP, mmref="tok-1").status_code == 201
    assert referred() == {"bob": "tok-1"}


def test_a_member_who_is_logged_in_by_session_refers_nobody() -> None:
    UserFactory.create(name="carol")
    browser = Browser()
    browser.log_in("carol")
    assert send(browser, SIGN_UP, mmref="tok-1").status_code == 201
    assert (accounts(), referred(), browser.record) == ({"bob", "carol"}, {}, {})


def test_a_member_who_is_known_by_a_token_refers_nobody(browser: Browser) -> None:
    key = Token.objects.create(user=UserFactory.create(name="carol")).key
    answer = send(browser, SIGN_UP, mmref="tok-1", headers={"authorization": f"Token {key}"})
    assert answer.status_code == 201
    assert (accounts(), referred()) == ({"bob", "carol"}, {})
    assert not answer.cookies


def test_a_request_with_several_accounts_has_one_token(views: ModuleType, settings: Any) -> None:
    class Several(views.SignUp):  # type: ignore[misc,name-defined]
        def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
            return super().get_serializer(*args, many=True, **kwargs)

    settings.ROOT_URLCONF = urls(**{"sign-up": Several.as_view()})
    body = [{"username": name, "password": PASSWORD, "mmref": f"tok-{name}"} for name in ("bob", "carol")]
    answer = Browser().ask("post", SIGN_UP, body, content_type="application/json")  # type: ignore[arg-type]
    assert answer.status_code == 201
    assert referred() == {"bob": "tok-carol"}


def test_without_the_middleware_the_field_is_nothing(settings: Any) -> None:
    settings.MIDDLEWARE = []
    assert send(Browser(), SIGN_UP, mmref="tok-1").status_code == 201
    assert Referral.objects.count() == 0


# -- what developers see of it


def test_the_browsable_api_offers_the_field() -> None:
    page = html.unescape(Browser().get(SIGN_UP, accept="text/html").content.decode())
    assert 'name="mmref"' in page
    assert "The referral token from MMOLove's link, if the player came by one (mmref)." in page
    again = Browser().ask("post", SIGN_UP, {"username": "", "mmref": "<b>"}, headers={"accept": "text/html"})
    assert again.status_code == 400
    assert 'value="&lt;b&gt;"' in again.content.decode()


def test_metadata_tell_an_optional_string() -> None:
    field = Bare().fields["mmref"]
    assert SimpleMetadata().get_field_info(field) == {
        "type": "string",
        "required": False,
        "read_only": False,
        "label": "Mmref",
        "help_text": "The referral token from MMOLove's link, if the player came by one (mmref).",
        "max_length": 1024,
    }


def test_the_portal_may_word_it_otherwise() -> None:
    field = ReferralTokenField(help_text="from the link", label="Invitation")
    assert (field.help_text, field.label, field.write_only) == ("from the link", "Invitation", True)
