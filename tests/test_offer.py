"""A token that the sign-up request carries in its body: whose account gets it, and what stays of it.

Runs under both user models: see the last test of ``test_signup.py``.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_mmolove_referral import offer_token, share_link
from django_mmolove_referral.capture import current_visit
from django_mmolove_referral.models import Referral
from django_mmolove_referral.record import CODE_LIFETIME, usable_token

from . import portal
from .factories import UserFactory
from .test_signup import TROUBLES, errors
from .visitors import OWN_USER_MODEL, Browser, accounts, referred, urls, written

pytestmark = pytest.mark.django_db(transaction=True)

BOB, CAROL = "bob@example.com", "carol@example.com"
OURS = "django_mmolove_referral.middleware.ReferralMiddleware"

either_interface = pytest.mark.parametrize("asgi", [False, True], ids=["WSGI", "ASGI"])


@csrf_exempt
def offer(request: HttpRequest) -> HttpResponse:
    taken = offer_token(request.POST.get("mmref"))
    if "name" not in request.POST:
        return HttpResponse(str(taken))
    return portal.register(request)


@csrf_exempt
async def aoffer(request: HttpRequest) -> HttpResponse:
    offer_token(request.POST.get("mmref"))
    answer: HttpResponse = await portal.aregister(request)
    return answer


@csrf_exempt
def offer_then_fail(request: HttpRequest) -> HttpResponse:
    offer_token(request.POST["mmref"])
    return portal.register_then_fail(request)


@csrf_exempt
def offer_at_login(request: HttpRequest) -> HttpResponse:
    offer_token(request.POST["mmref"])
    return portal.signin(request)


@pytest.fixture(autouse=True)
def offering(settings: Any) -> None:
    settings.ROOT_URLCONF = urls(offer=offer, aoffer=aoffer, offer_then_fail=offer_then_fail, enter=offer_at_login)


@pytest.fixture(params=["with a session", "without sessions", "without cookies"])
def browser(request: pytest.FixtureRequest, settings: Any) -> Browser:
    """Who signs up: a browser with a session, one where the portal has none, a client that has none yet."""
    if request.param == "without sessions":
        settings.MIDDLEWARE = [OURS]
    browser = Browser()
    if request.param == "with a session":
        browser.begin_session()
    return browser


# -- whose account gets it


@either_interface
@pytest.mark.parametrize("url", ["/offer/", "/aoffer/"])
@pytest.mark.parametrize("middleware", ["all", "ours alone"])
def test_the_account_of_the_request_gets_the_token(url: str, asgi: bool, middleware: str, settings: Any) -> None:
    if middleware == "ours alone":
        settings.MIDDLEWARE = [OURS]
    assert Browser(asgi=asgi).sign_up(url=url, mmref="tok-1").status_code == 200
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])


def test_the_next_request_has_nothing_of_it(browser: Browser) -> None:
    assert browser.post("/offer/", mmref="tok-1").content == b"True"
    browser.sign_up()
    assert (accounts(), referred()) == ({BOB}, {})


def test_space_around_a_pasted_token_is_taken_off() -> None:
    Browser().sign_up(url="/offer/", mmref="  tok-1\r\n")
    assert referred() == {BOB: "tok-1"}


def test_what_is_offered_goes_before_what_was_captured_and_takes_its_place() -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up(BOB, url="/offer/", mmref="tok-2")
    browser.sign_up(CAROL)
    assert accounts() == {BOB, CAROL}
    assert referred() == {BOB: "tok-2"}


def test_a_token_in_the_address_of_the_sign_up_comes_second() -> None:
    Browser().sign_up(url="/offer/?mmref=tok-1", mmref="tok-2")
    assert referred() == {BOB: "tok-2"}


@pytest.mark.parametrize("rubbish", ["", " ", "a b", "tök", "a" * 1025, "a\x00b", "a\r\nb"])
def test_what_can_be_no_token_is_not_taken(rubbish: str) -> None:
    browser = Browser()
    assert browser.post("/offer/", mmref=rubbish).content == b"False"
    assert browser.sign_up(url="/offer/", mmref=rubbish).status_code == 200
    assert (accounts(), referred(), browser.record) == ({BOB}, {}, {})


def test_what_can_be_no_token_leaves_the_captured_one_alone() -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up(url="/offer/", mmref="a b")
    assert referred() == {BOB: "tok-1"}


@hypothesis_settings(deadline=None, max_examples=30)
@given(st.one_of(st.text(max_size=40), st.text("tok-1 \t\n\x00", max_size=40)))
def test_any_text_makes_an_account_and_only_a_token_refers_it(text: str) -> None:
    model = get_user_model()
    try:
        assert Browser().sign_up(url="/offer/", mmref=text).status_code == 200
        assert set(referred().values()) == {token for token in [usable_token(text.strip())] if token}
        assert accounts() == {BOB}
    finally:
        Referral.objects.all().delete()
        model._default_manager.all().delete()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@hypothesis_settings(deadline=None)
@given(json_values)
def test_anything_at_all_may_be_offered(value: object) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        visit = current_visit()
        assert visit is not None
        usable = usable_token(value.strip()) if isinstance(value, str) else None
        assert (offer_token(value), visit.token) == (usable is not None, usable or "")
        return HttpResponse("fine")

    with override_settings(ROOT_URLCONF=urls(view=view)):
        assert Browser().get("/view/").content == b"fine"


def test_of_two_accounts_of_one_request_the_first_gets_the_token(settings: Any, browser: Browser) -> None:
    def both(request: HttpRequest) -> HttpResponse:
        offer_token(request.POST["mmref"])
        return portal.register_twice(request)

    for atomic in (False, True):
        name = f"{atomic}@example.com".lower()
        view = transaction.atomic(both) if atomic else both
        settings.ROOT_URLCONF = urls(both=csrf_exempt(view))
        browser.sign_up(name, url="/both/", mmref=f"tok-{atomic}")
        assert {name, f"x{name}"} <= accounts()
        assert referred().get(name) == f"tok-{atomic}"
        assert f"x{name}" not in referred()


@pytest.mark.parametrize("atomic", [False, True])
def test_accounts_of_one_request_get_the_tokens_that_were_offered_for_each(
    atomic: bool, settings: Any, browser: Browser
) -> None:
    @csrf_exempt
    def each(request: HttpRequest) -> HttpResponse:
        for name, token in ((BOB, "tok-1"), (CAROL, "tok-2")):
            offer_token(token)
            portal.create(name)
        return HttpResponse("both")

    settings.ROOT_URLCONF = urls(each=transaction.atomic(each) if atomic else each)
    browser.post("/each/")
    assert referred() == {BOB: "tok-1", CAROL: "tok-2"}


def test_a_logged_in_member_refers_nobody_and_stores_nothing() -> None:
    UserFactory.create(name=CAROL)
    browser = Browser()
    browser.log_in(CAROL)
    browser.sign_up(BOB, url="/offer/", mmref="tok-1")
    assert accounts() == {BOB, CAROL}
    assert (referred(), browser.record) == ({}, {})


def test_an_old_account_that_logs_in_with_a_token_is_not_referred() -> None:
    joined = {} if OWN_USER_MODEL else {"date_joined": timezone.now() - timedelta(days=1)}
    UserFactory.create(name=BOB, **joined)
    browser = Browser()
    assert browser.post("/enter/", name=BOB, mmref="tok-1").content == b"in"
    assert (referred(), browser.record) == ({}, {})


def test_the_server_is_told_by_the_sign_up(configure: Callable[..., None]) -> None:
    server = {"SERVER_ID": "x", "SECRET": "y"}
    configure(SERVERS={"eu": server, "us": server}, RESOLVE_SERVER=lambda request: request.headers["Server"])
    browser = Browser()
    browser.get("/page/?mmref=tok-1", server="eu")
    for name, token in ((BOB, "tok-1"), (CAROL, "tok-2")):
        browser.ask("post", "/offer/", {"name": name, "mmref": token}, headers={"server": "us"})
    found = Referral.objects.order_by("pk").values_list("token", "server")
    assert list(found) == [("tok-1", "eu"), ("tok-2", "us")]  # the visit that brought tok-1 was eu's


def test_an_account_that_missed_its_token_gets_it_for_the_server_of_the_sign_up(configure: Callable[..., None]) -> None:
    server = {"SERVER_ID": "x", "SECRET": "y"}
    configure(SERVERS={"eu": server, "us": server}, RESOLVE_SERVER=lambda request: request.headers["Server"])
    browser = Browser()
    with TROUBLES["identity raises"]():
        browser.ask("post", "/offer/", {"name": BOB, "mmref": "tok-1"}, headers={"server": "us"})
    browser.ask("post", "/signin/", {"name": BOB}, headers={"server": "eu"})
    assert list(Referral.objects.values_list("token", "server")) == [("tok-1", "us")]


def test_a_server_that_cannot_be_told_leaves_the_sign_up_whole(
    configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(SERVERS={"eu": {"SERVER_ID": "x", "SECRET": "y"}}, RESOLVE_SERVER=lambda request: "atlantis")
    browser = Browser()
    assert browser.sign_up(url="/offer/", mmref="tok-1").status_code == 200
    assert (accounts(), referred()) == ({BOB}, {})
    assert errors(caplog) == ["A referral could not be attached; it will be at the account's next login."]
    configure(RESOLVE_SERVER=lambda request: "eu")
    browser.log_in()
    assert Referral.objects.get().server == "eu"


# -- whose link it was


def test_a_token_that_was_captured_keeps_the_code_that_it_came_with() -> None:
    alice = UserFactory.create()
    browser = Browser()
    browser.get(share_link(alice))
    browser.visit("tok-1")
    browser.sign_up(url="/offer/", mmref="tok-1")
    assert Referral.objects.get().referrer == alice


@pytest.mark.parametrize(("after", "known"), [(CODE_LIFETIME - 5, True), (CODE_LIFETIME + 5, False)])
def test_a_token_takes_the_code_that_was_noted_shortly_before(
    after: float, known: bool, later: Callable[[float], None]
) -> None:
    alice = UserFactory.create()
    browser = Browser()
    browser.get(share_link(alice))
    later(after)
    browser.sign_up(BOB, url="/offer/", mmref="tok-1")
    assert Referral.objects.get().referrer == (alice if known else None)


def test_a_code_is_taken_by_one_token_only() -> None:
    alice = UserFactory.create()
    browser = Browser()
    browser.get(share_link(alice))
    browser.sign_up(BOB, url="/offer/", mmref="tok-1")
    browser.sign_up(CAROL, url="/offer/", mmref="tok-2")
    found = Referral.objects.order_by("pk").values_list("token", "referrer")
    assert list(found) == [("tok-1", alice.pk), ("tok-2", None)]


def test_a_captured_token_does_not_become_younger_by_being_offered(
    configure: Callable[..., None], later: Callable[[float], None]
) -> None:
    configure(TOKEN_MAX_AGE=60)
    browser = Browser()
    browser.visit("tok-1")
    later(61)
    browser.sign_up(BOB, url="/offer/", mmref="tok-1")
    assert (accounts(), referred()) == ({BOB}, {})


# -- what stays of it


@either_interface
@pytest.mark.parametrize("url", ["/offer/", "/aoffer/"])
@pytest.mark.parametrize("set_cookie", [False, True])
def test_a_client_without_cookies_is_given_none(
    url: str, asgi: bool, set_cookie: bool, configure: Callable[..., None]
) -> None:
    configure(SET_COOKIE=set_cookie)
    answer = Browser(asgi=asgi).sign_up(url=url, mmref="tok-1")
    assert referred() == {BOB: "tok-1"}
    assert not answer.cookies


@either_interface
def test_before_an_account_is_made_nothing_is_touched(asgi: bool) -> None:
    answer = Browser(asgi=asgi).post("/offer/", mmref="tok-1")
    assert answer.content == b"True"
    assert not {"vary", "set-cookie", "cache-control"} & {name.lower() for name, _ in answer.items()}
    assert not answer.cookies
    request = answer.asgi_request if asgi else answer.wsgi_request
    assert request.session.accessed is False


def test_a_sign_up_without_cookies_reads_no_session(settings: Any) -> None:
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware", OURS]
    for name, url in ((BOB, "/offer/"), (CAROL, "/register/")):
        answer = Browser().sign_up(name, url=url, mmref="tok-1")
        assert answer.wsgi_request.session.accessed is False
        assert "Vary" not in answer
    assert referred() == {BOB: "tok-1"}


def test_a_client_without_cookies_may_use_a_token_again() -> None:
    for name in (BOB, CAROL):
        Browser().sign_up(name, url="/offer/", mmref="tok-1")
    assert referred() == {BOB: "tok-1", CAROL: "tok-1"}


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_browser_with_a_session_uses_a_token_once(captured: bool, atomic: bool, settings: Any) -> None:
    if atomic:
        settings.ROOT_URLCONF = urls(offer=transaction.atomic(offer))
    browser = Browser()
    browser.begin_session()
    if captured:
        browser.visit("tok-1")
    browser.sign_up(BOB, url="/offer/", mmref="tok-1")
    browser.sign_up(CAROL, url="/offer/", mmref="tok-1")
    browser.visit("tok-1")
    browser.sign_up("dave@example.com")
    assert referred() == {BOB: "tok-1"}
    assert "token" not in browser.record


def test_a_browser_whose_session_has_expired_is_not_given_a_new_one() -> None:
    answer = Browser().ask("post", "/offer/", {"name": BOB, "mmref": "tok-1"}, HTTP_COOKIE="sessionid=" + "a" * 32)
    assert referred() == {BOB: "tok-1"}
    assert answer.cookies["sessionid"]["max-age"] == 0  # Django takes the void one away


@either_interface
def test_logging_in_right_after_the_sign_up_changes_nothing(asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    assert browser.sign_up(url="/aoffer/" if asgi else "/offer/", mmref="tok-1", login="1").status_code == 200
    assert "_auth_user_id" in browser.client.session
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])
    browser.post("/signout/")
    browser.log_in()
    assert written() == [(BOB, "registered")]


def test_a_cookie_of_our_own_goes_with_the_token(configure: Callable[..., None]) -> None:
    configure(SET_COOKIE=True)
    browser = Browser()
    browser.visit("tok-1")
    assert browser.sign_up(url="/offer/", mmref="tok-1").cookies["mmref"]["max-age"] == 0


# -- rolled back


def test_a_sign_up_that_is_rolled_back_leaves_nothing_and_the_token_is_good_again(browser: Browser) -> None:
    assert browser.sign_up(url="/offer_then_fail/", mmref="tok-1").content == b"try again"
    assert (accounts(), referred(), written()) == (set(), {}, [])
    browser.sign_up(url="/offer/", mmref="tok-1")
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])


def test_a_rolled_back_sign_up_leaves_the_captured_token_too() -> None:
    browser = Browser()
    browser.visit("tok-1")
    browser.sign_up(url="/offer_then_fail/", mmref="tok-2")
    assert browser.record["token"] == "tok-1"
    browser.sign_up()
    assert referred() == {BOB: "tok-1"}


@pytest.mark.parametrize("atomic", [False, True])
def test_a_second_try_within_the_same_request_gets_the_token(atomic: bool, settings: Any, browser: Browser) -> None:
    @csrf_exempt
    def stubborn(request: HttpRequest) -> HttpResponse:
        offer_then_fail(request)
        return portal.register(request)

    settings.ROOT_URLCONF = urls(stubborn=transaction.atomic(stubborn) if atomic else stubborn)
    assert browser.sign_up(url="/stubborn/", mmref="tok-1").status_code == 200
    assert (accounts(), referred(), written()) == ({BOB}, {BOB: "tok-1"}, [(BOB, "registered")])


# -- trouble of ours

#: A server that went since the capture is no trouble here: which one it is, is told at the sign-up.
OF_OFFERS = sorted(set(TROUBLES) - {"server gone"})


@pytest.mark.parametrize("trouble", sorted({*OF_OFFERS} - {"settings malformed"}))  # then CAPTURE_IF is unknown
@pytest.mark.parametrize("atomic", [False, True])
def test_trouble_leaves_the_sign_up_whole_and_is_healed_at_the_next_login(
    trouble: str, atomic: bool, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if atomic:
        settings.ROOT_URLCONF = urls(offer=transaction.atomic(offer))
    browser = Browser()
    browser.begin_session()
    with TROUBLES[trouble]():
        assert browser.sign_up(url="/offer/", mmref="tok-1").status_code == 200
    assert (accounts(), referred()) == ({BOB}, {})
    assert errors(caplog)
    assert "tok-1" not in caplog.text
    caplog.clear()
    browser.log_in()
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])
    assert errors(caplog) == []


@pytest.mark.parametrize("trouble", OF_OFFERS)
def test_trouble_leaves_the_sign_up_whole_whoever_signs_up(
    trouble: str, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    with TROUBLES[trouble]():
        assert browser.sign_up(url="/offer/", mmref="tok-1").status_code == 200
    assert (accounts(), referred()) == ({BOB}, {})
    assert errors(caplog)
    assert "tok-1" not in caplog.text


def test_a_client_that_keeps_cookies_after_all_is_healed_at_its_login() -> None:
    browser = Browser()
    with TROUBLES["identity raises"]():
        assert "sessionid" in browser.sign_up(url="/offer/", mmref="tok-1").cookies
    browser.log_in()
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])


@pytest.mark.parametrize("session", [False, True])
def test_trouble_that_passes_is_healed_by_the_login_in_the_same_request(
    session: bool, configure: Callable[..., None]
) -> None:
    tries: list[object] = []

    def identity(user: Any) -> str:
        tries.append(user)
        return "" if len(tries) == 1 else str(user.pk)

    configure(REFEREE_IDENTITY=identity)
    browser = Browser()
    if session:
        browser.begin_session()
    browser.sign_up(url="/offer/", mmref="tok-1", login="1")
    assert (referred(), written()) == ({BOB: "tok-1"}, [(BOB, "registered")])


# -- where there is no visit


def test_without_the_middleware_nothing_is_taken(settings: Any) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != OURS]
    browser = Browser()
    assert browser.post("/offer/", mmref="tok-1").content == b"False"
    assert browser.sign_up(url="/offer/", mmref="tok-1").status_code == 200
    assert (accounts(), referred()) == ({BOB}, {})


def test_outside_a_request_nothing_is_taken() -> None:
    assert current_visit() is None
    assert offer_token("tok-1") is False


def test_what_outlives_the_response_can_offer_nothing(settings: Any) -> None:
    left: list[contextvars.Context] = []

    def start_task(request: HttpRequest) -> HttpResponse:
        left.append(contextvars.copy_context())
        return HttpResponse("started")

    settings.ROOT_URLCONF = urls(task=start_task)
    Browser().get("/task/")

    def task() -> None:
        assert current_visit() is not None
        assert offer_token("tok-1") is False
        portal.create(BOB)

    left[0].run(task)
    assert (accounts(), referred()) == ({BOB}, {})
