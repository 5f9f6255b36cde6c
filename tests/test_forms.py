"""``ReferralTokenField`` in forms of Django's own, and the documentation's sign-up with an activation link."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from django import forms
from django.contrib.auth.models import User
from django.core import mail
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.cache import cache_control, cache_page
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_mmolove_referral.capture import current_visit
from django_mmolove_referral.forms import ReferralTokenField
from django_mmolove_referral.record import usable_token

from . import portal
from .factories import UserFactory
from .pages import code
from .visitors import OWN_USER_MODEL, Browser, accounts, referred, urls, written

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(OWN_USER_MODEL, reason="UserCreationForm is about auth.User"),
]

PASSWORD = "correct-horse-9"
FILLED = {"username": "bob", "email": "bob@example.com", "password1": PASSWORD, "password2": PASSWORD}
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
OURS = "django_mmolove_referral.middleware.ReferralMiddleware"
SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"

either_interface = pytest.mark.parametrize("asgi", [False, True], ids=["WSGI", "ASGI"])


@pytest.fixture(autouse=True)
def mailbox(settings: Any) -> None:
    """Django 6.1 wants it configured, the older ones do not know it."""
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}


@pytest.fixture(autouse=True)
def templates(settings: Any) -> None:
    pages = {
        "sign_up.html": '<form method="post">{% csrf_token %}{{ form }}</form>',
        "check_your_mail.html": "look there",
        "link_is_void.html": "void",
    }
    (engine,) = settings.TEMPLATES
    options = {**engine["OPTIONS"], "loaders": [("django.template.loaders.locmem.Loader", pages)]}
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": options}]


@pytest.fixture
def pages(yourapp: Callable[[str, str], ModuleType]) -> ModuleType:
    """The documentation's form and views."""
    yourapp("forms", code("integrations/django-forms.md", "# yourapp/forms.py"))
    return yourapp("views", code("integrations/django-forms.md", "# yourapp/views.py"))


@pytest.fixture
def site(pages: ModuleType, settings: Any) -> ModuleType:
    """The documentation's portal: ``/sign-up/``, ``/activate/…/``, ``/login/``."""
    mine = [
        path("sign-up/", pages.sign_up),
        path("activate/<str:key>/<str:token>/", pages.activate, name="activate"),
        path("login/", portal.page, name="login"),
    ]
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": [*mine, *portal.urlpatterns]})
    return pages


def hidden(answer: Any) -> str:
    """The token that a page's form has."""
    found = re.search(r'<input type="hidden" name="mmref"([^>]*)>', answer.content.decode())
    assert found is not None
    assert 'autocomplete="off"' in found[1]
    value = re.search(r'value="([^"]*)"', found[1])
    return value[1] if value else ""


def fill_in(browser: Browser, url: str = "/sign-up/", **changed: str) -> Any:
    """What a browser does: get the page, fill in the form, send all of it."""
    return browser.post(url, **{**FILLED, "mmref": hidden(browser.get(url)), **changed})


# -- the sign-up


@either_interface
def test_a_visitor_with_a_token_becomes_a_referred_account(asgi: bool, site: ModuleType) -> None:
    browser = Browser(asgi=asgi)
    browser.visit("tok-1")
    assert fill_in(browser).status_code == 200
    assert (accounts(), referred()) == ({"bob"}, {"bob": "tok-1"})


@either_interface
def test_the_token_survives_a_session_that_is_lost_on_the_way(asgi: bool, site: ModuleType) -> None:
    browser = Browser(asgi=asgi)
    browser.visit("tok-1")
    token = hidden(browser.get("/sign-up/"))
    browser.client.cookies.clear()
    browser.post("/sign-up/", **FILLED, mmref=token)
    assert referred() == {"bob": "tok-1"}


def test_the_token_survives_an_error_in_the_form(site: ModuleType) -> None:
    browser = Browser()
    browser.visit("tok-1")
    again = fill_in(browser, password2="different")
    browser.client.cookies.clear()
    assert hidden(again) == "tok-1"
    browser.post("/sign-up/", **FILLED, mmref=hidden(again))
    assert referred() == {"bob": "tok-1"}


def test_without_the_field_in_the_template_the_session_has_the_token(site: ModuleType) -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.post("/sign-up/", **FILLED)
    assert referred() == {"bob": "tok-1"}


def test_without_sessions_the_form_carries_the_token(site: ModuleType, settings: Any) -> None:
    settings.MIDDLEWARE = [OURS]
    browser = Browser()
    token = hidden(browser.get("/sign-up/?mmref=tok-1"))
    browser.post("/sign-up/", **FILLED, mmref=token)
    assert referred() == {"bob": "tok-1"}


def test_without_the_middleware_the_form_is_a_form(site: ModuleType, settings: Any) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != OURS]
    browser = Browser()
    assert hidden(browser.get("/sign-up/?mmref=tok-1")) == ""
    assert fill_in(browser, mmref="tok-1").status_code == 200
    assert (accounts(), referred()) == ({"bob"}, {})


def test_staff_who_fill_in_the_form_refer_nobody(site: ModuleType) -> None:
    UserFactory.create(name="carol", is_staff=True)
    browser = Browser()
    browser.log_in("carol")
    browser.visit("tok-1")
    assert fill_in(browser).status_code == 200
    assert accounts() == {"bob", "carol"}
    assert referred() == {}


RUBBISH = ["", " ", "a b", "tök", "a" * 1025, "a\x00b", "a\r\nb", '"><script>', "'; DROP TABLE"]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_rubbish_in_the_field_is_no_error_and_is_not_shown_again(rubbish: str, site: ModuleType) -> None:
    browser = Browser()
    again = browser.post("/sign-up/", **{**FILLED, "password2": "different", "mmref": rubbish})
    assert hidden(again) == (
        rubbish.replace('"', "&quot;").replace(">", "&gt;").replace("<", "&lt;") if usable_token(rubbish) else ""
    )
    assert "mmref" not in again.context["form"].errors
    browser.post("/sign-up/", **{**FILLED, "mmref": rubbish})
    assert accounts() == {"bob"}
    assert referred() == ({"bob": rubbish} if usable_token(rubbish) else {})


def test_rubbish_in_the_field_leaves_the_visits_own_token(site: ModuleType) -> None:
    browser = Browser()
    browser.visit("tok-1")
    assert hidden(fill_in(browser, password2="different", mmref="a b")) == "tok-1"
    fill_in(browser, mmref="a b")
    assert referred() == {"bob": "tok-1"}


class Bare(forms.Form):
    mmref = ReferralTokenField()


@hypothesis_settings(deadline=None)
@given(st.one_of(st.none(), st.text(), st.binary(), st.integers(), st.lists(st.text(max_size=3), max_size=2)))
def test_the_field_is_valid_whatever_is_posted(value: Any) -> None:
    form = Bare({"mmref": value})
    assert form.is_valid()
    usable = usable_token(value.strip()) if isinstance(value, str) else None
    assert form.cleaned_data == {"mmref": usable or ""}
    assert not form.errors
    shown = re.search(r'value="([^"]*)"', str(form))
    assert bool(shown) == (usable is not None)


def test_forms_with_a_prefix_carry_it_too(settings: Any) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        form = Bare(request.POST or None, prefix="signup")
        if request.method == "POST" and form.is_valid():
            portal.create("bob@example.com")
        return HttpResponse(str(form))

    settings.MIDDLEWARE = [OURS]
    settings.ROOT_URLCONF = urls(view=view)
    browser = Browser()
    page = browser.get("/view/?mmref=tok-1").content.decode()
    assert 'name="signup-mmref"' in page
    assert 'value="tok-1"' in page
    browser.post("/view/", **{"signup-mmref": "tok-1"})
    assert referred() == {"bob@example.com": "tok-1"}


def test_a_formset_shows_the_token_in_each_form(settings: Any) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(forms.formset_factory(Bare, extra=2)()))

    settings.ROOT_URLCONF = urls(view=view)
    page = Browser().get("/view/?mmref=tok-1").content.decode()
    assert page.count('value="tok-1"') == 2


# -- what the page shows, and to whom


def test_a_visitor_without_a_token_is_shown_none(site: ModuleType) -> None:
    answer = Browser().get("/sign-up/")
    assert hidden(answer) == ""
    assert "private" not in answer.get("Cache-Control", "")


def test_each_visitor_is_shown_their_own(site: ModuleType) -> None:
    first, second, third = Browser(), Browser(), Browser()
    first.visit("tok-1")
    second.visit("tok-2")
    shown = [hidden(browser.get("/sign-up/")) for browser in (first, second, third, first)]
    assert shown == ["tok-1", "tok-2", "", "tok-1"]


def test_a_token_that_was_used_or_is_too_old_is_not_shown(
    site: ModuleType, configure: Callable[..., None], later: Callable[[float], None]
) -> None:
    configure(TOKEN_MAX_AGE=60)
    used, old = Browser(), Browser()
    used.visit("tok-1")
    fill_in(used)
    assert hidden(used.get("/sign-up/")) == ""
    old.visit("tok-2")
    later(61)
    assert hidden(old.get("/sign-up/")) == ""


def bare(request: HttpRequest) -> HttpResponse:
    """No CSRF token, no user: the field alone."""
    return HttpResponse(str(Bare()))


@either_interface
def test_a_page_that_shows_a_token_is_for_this_visitor_only(asgi: bool, settings: Any) -> None:
    settings.ROOT_URLCONF = urls(bare=cache_control(public=True, max_age=60)(bare))
    browser = Browser(asgi=asgi)
    browser.visit("tok-1")
    answer = browser.get("/bare/")
    assert hidden(answer) == "tok-1"
    assert set(answer["Cache-Control"].split(", ")) == {"private", "max-age=60"}
    assert "Cookie" in answer["Vary"]
    other = Browser(asgi=asgi).get("/bare/")
    assert set(other["Cache-Control"].split(", ")) == {"public", "max-age=60"}


def test_a_page_for_somebody_without_a_session_is_not_touched(settings: Any) -> None:
    settings.ROOT_URLCONF = urls(bare=bare)
    answer = Browser().get("/bare/")
    assert hidden(answer) == ""
    assert not {"vary", "set-cookie", "cache-control"} & {name.lower() for name, _ in answer.items()}


@either_interface
@pytest.mark.parametrize("how", ["cache_page", "the cache's middleware"])
def test_no_page_cache_of_djangos_gives_a_token_to_somebody_else(how: str, asgi: bool, settings: Any) -> None:
    cache.clear()
    settings.SESSION_ENGINE = SIGNED_COOKIES
    settings.MIDDLEWARE = [SESSIONS, OURS]
    if how == "cache_page":
        settings.ROOT_URLCONF = urls(bare=cache_page(600)(bare))
    else:
        settings.ROOT_URLCONF = urls(bare=bare)
        fetch = "django.middleware.cache.FetchFromCacheMiddleware"
        settings.MIDDLEWARE = ["django.middleware.cache.UpdateCacheMiddleware", *settings.MIDDLEWARE, fetch]
    first, second = Browser(asgi=asgi), Browser(asgi=asgi)
    first.visit("tok-1")
    assert [hidden(first.get("/bare/")), hidden(second.get("/bare/"))] == ["tok-1", ""]
    assert hidden(Browser(asgi=asgi).get("/bare/?mmref=tok-2")) == "tok-2"
    assert hidden(Browser(asgi=asgi).get("/bare/?mmref=tok-2", cookie="a=b")) == "tok-2"
    assert hidden(second.get("/bare/")) == ""


def test_showing_a_token_sets_no_cookie_of_our_own(settings: Any, configure: Callable[..., None]) -> None:
    settings.ROOT_URLCONF = urls(bare=bare)
    browser = Browser()
    browser.visit("tok-1")
    configure(SET_COOKIE=True)
    assert "mmref" not in browser.get("/bare/").cookies


async def abare(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Bare()))


async def abare_of_a_reader(request: HttpRequest) -> HttpResponse:
    await request.session.aget("theme")
    return HttpResponse(str(Bare()))


@either_interface
def test_async_views_show_the_token_of_a_session_that_has_been_read(
    asgi: bool, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ROOT_URLCONF = urls(abare=abare, reader=abare_of_a_reader)
    browser = Browser(asgi=asgi)
    assert hidden(browser.get("/abare/?mmref=tok-1")) == "tok-1"
    assert hidden(browser.get("/reader/")) == "tok-1"
    assert hidden(browser.get("/abare/")) == ""
    assert caplog.records == []


def test_a_session_store_that_fails_leaves_the_page_whole(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(store: object) -> dict[str, Any]:
        raise ConnectionError("the session store is down")

    settings.ROOT_URLCONF = urls(bare=bare)
    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.load", load)
    for _ in range(2):
        assert hidden(Browser().get("/bare/", cookie="sessionid=abcdefgh")) == ""
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["A form could not be given its token; the visitor goes on without it."]


def test_a_form_outside_a_request_shows_nothing() -> None:
    assert current_visit() is None
    assert "value=" not in str(Bare())


# -- activation


@pytest.fixture
def confirming(site: ModuleType, configure: Callable[..., None]) -> None:
    keys: dict[str, Any] = {}
    exec(code("integrations/django-forms.md", '"AUTO_REGISTER": False'), keys)
    configure(**keys["MMOLOVE_REFERRAL"])


@pytest.mark.usefixtures("confirming")
def test_mmolove_is_told_of_an_account_when_its_address_is_confirmed() -> None:
    browser = Browser()
    browser.visit("tok-1")
    assert fill_in(browser).content == b"look there"
    assert (referred(), written()) == ({"bob": "tok-1"}, [])
    assert User.objects.get().is_active is False

    (message,) = mail.outbox
    link = message.body.removeprefix("http://testserver")
    assert message.to == ["bob@example.com"]
    elsewhere = Browser()
    for _ in range(2):  # opened twice
        elsewhere.get(link)
        assert User.objects.get().is_active is True
        assert written() == [("bob", "registered")]
    assert elsewhere.get(link).content == b"void"


@pytest.mark.usefixtures("confirming")
def test_an_account_without_a_token_is_confirmed_alike() -> None:
    fill_in(Browser())
    (message,) = mail.outbox
    assert Browser().get(message.body.removeprefix("http://testserver")).status_code == 302
    assert User.objects.get().is_active is True
    assert (referred(), written()) == ({}, [])


@pytest.mark.usefixtures("confirming")
@pytest.mark.parametrize("link", ["/activate/a/b/", "/activate/%FF/b/", "/activate/OTk5/c3-abc/", "/activate/_w/x/"])
def test_a_made_up_link_activates_nobody(link: str) -> None:
    browser = Browser()
    browser.visit("tok-1")
    fill_in(browser)
    assert Browser().get(link).status_code == 400
    assert User.objects.get().is_active is False
    assert written() == []


@pytest.mark.usefixtures("confirming")
def test_an_activation_that_is_rolled_back_reports_nothing(site: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser()
    browser.visit("tok-1")
    fill_in(browser)

    def full(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(site, "mark_registered", full)
        assert Browser().get(mail.outbox[0].body.removeprefix("http://testserver")).status_code == 500
    assert User.objects.get().is_active is False
    assert Browser().get(mail.outbox[0].body.removeprefix("http://testserver")).status_code == 302
    assert written() == [("bob", "registered")]
