"""What a request does to a visit, and a visit to a response: mostly nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.backends import db as db_sessions
from django.contrib.sessions.backends import file as file_sessions
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_mmolove_referral.capture import current_visit
from django_mmolove_referral.middleware import QUERY_LIMIT, ReferralMiddleware
from django_mmolove_referral.models import Referral
from django_mmolove_referral.record import usable_token

from . import portal
from .visitors import Browser, accounts, referred, urls

BOB = "bob@example.com"
OURS = "django_mmolove_referral.middleware.ReferralMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"

either_interface = pytest.mark.parametrize("asgi", [False, True], ids=["WSGI", "ASGI"])


@pytest.fixture
def cookie_sessions(settings: Any) -> None:
    """Sessions without a database; so any query of ours fails the test."""
    settings.SESSION_ENGINE = SIGNED_COOKIES


def as_without_us(settings: Any, ask: Callable[[Browser], Any], *, asgi: bool = False) -> tuple[Any, Any]:
    """The answer to ``ask`` without our middleware, and with it: status, body and headers."""
    answers = []
    everything = settings.MIDDLEWARE
    for middleware in ([name for name in everything if name != OURS], everything):
        settings.MIDDLEWARE = middleware
        response = ask(Browser(asgi=asgi))
        answers.append((response.status_code, response.content, dict(response.items()), str(response.cookies)))
    return answers[0], answers[1]


# -- untouched


@either_interface
@pytest.mark.parametrize("cookie", ["", "theme=dark; sessionid=abcdefgh12345678"])
@pytest.mark.parametrize("url", ["/page/", "/page/?page=2&q=mm&ref=alice"])
def test_a_request_without_a_token_stays_untouched(url: str, cookie: str, asgi: bool) -> None:
    response = Browser(asgi=asgi).get(url, **({"cookie": cookie} if cookie else {}))
    request = response.asgi_request if asgi else response.wsgi_request
    assert response.content == b"welcome"
    assert request.session.accessed is False
    assert "GET" not in vars(request)  # parsed when first asked for
    assert not {"vary", "set-cookie", "cache-control"} & {name.lower() for name, _ in response.items()}
    assert not response.cookies


@either_interface
@pytest.mark.usefixtures("cookie_sessions")
def test_a_request_with_a_token_is_for_this_visitor_only(asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    response = browser.visit("tok-1")
    assert response.content == b"welcome"
    assert response["Cache-Control"] == "private"
    assert response["Vary"] == "Cookie"
    assert list(response.cookies) == ["sessionid"]
    assert browser.record["token"] == "tok-1"


@pytest.mark.usefixtures("cookie_sessions")
def test_the_same_token_again_writes_nothing() -> None:
    browser = Browser()
    browser.visit("tok-1")
    response = browser.visit("tok-1")
    assert response.wsgi_request.session.modified is False
    assert not response.cookies


@pytest.mark.usefixtures("cookie_sessions")
def test_a_page_that_is_public_becomes_private_with_a_token(settings: Any) -> None:
    def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse("news", headers={"Cache-Control": "public, max-age=60"})

    settings.ROOT_URLCONF = urls(page=page)
    assert Browser().get("/page/")["Cache-Control"] == "public, max-age=60"
    directives = set(Browser().visit("tok-1")["Cache-Control"].split(", "))
    assert directives == {"private", "max-age=60"}


@pytest.mark.usefixtures("cookie_sessions")
def test_other_names_may_be_configured(configure: Callable[..., None]) -> None:
    configure(QUERY_PARAM="friend", COOKIE_NAME="friend-token")
    by_query, by_cookie, by_old_names = Browser(), Browser(), Browser()
    by_query.get("/page/?friend=tok-1")
    by_cookie.get("/page/", cookie="friend-token=tok-2")
    by_old_names.get("/page/?mmref=tok-3", cookie="mmref=tok-3")
    assert by_query.record["token"] == "tok-1"
    assert by_cookie.record["token"] == "tok-2"
    assert by_old_names.record == {}


# -- the token in the cookie


@either_interface
@pytest.mark.usefixtures("cookie_sessions")
def test_a_token_in_the_cookie_is_taken_when_there_is_none_yet(asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    browser.client.cookies["mmref"] = "tok-1"
    assert browser.get("/page/")["Cache-Control"] == "private"
    assert browser.record["token"] == "tok-1"


@pytest.mark.usefixtures("cookie_sessions")
def test_the_query_goes_before_the_cookie() -> None:
    browser = Browser()
    browser.client.cookies["mmref"] = "tok-1"
    browser.visit("tok-2")
    assert browser.record["token"] == "tok-2"
    browser.get("/page/")
    assert browser.record["token"] == "tok-2"


@pytest.mark.usefixtures("cookie_sessions")
def test_a_token_in_the_cookie_replaces_one_that_is_too_old(
    configure: Callable[..., None], later: Callable[[float], None]
) -> None:
    configure(TOKEN_MAX_AGE=60)
    browser = Browser()
    browser.visit("tok-1")
    browser.client.cookies["mmref"] = "tok-2"
    later(58)
    browser.get("/page/")
    assert browser.record["token"] == "tok-1"
    later(3)
    browser.get("/page/")
    assert browser.record["token"] == "tok-2"


@pytest.mark.usefixtures("cookie_sessions")
def test_a_token_in_the_cookie_that_is_too_old_is_not_new_again(
    configure: Callable[..., None], later: Callable[[float], None]
) -> None:
    configure(TOKEN_MAX_AGE=60)
    browser = Browser()
    browser.client.cookies["mmref"] = "tok-1"
    browser.get("/page/")
    at = browser.record["at"]
    later(61)
    browser.get("/page/")
    assert browser.record["at"] == at


# -- a cookie of our own


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize("secure", [False, True])
def test_a_cookie_of_our_own_keeps_the_token_if_asked_for(secure: bool, configure: Callable[..., None]) -> None:
    configure(SET_COOKIE=True, TOKEN_MAX_AGE=3600.9)
    response = Client().get("/page/", {"mmref": "tok-1"}, secure=secure)
    cookie = response.cookies["mmref"]
    assert cookie.value == "tok-1"
    assert {name: value for name, value in cookie.items() if value and name != "expires"} == {
        "path": "/",
        "max-age": 3600,
        "httponly": True,
        "samesite": "Lax",
        **({"secure": True} if secure else {}),
    }
    assert response["Cache-Control"] == "private"


@pytest.mark.django_db(transaction=True)
def test_the_cookie_is_sent_where_the_session_is(settings: Any, configure: Callable[..., None]) -> None:
    """A portal on its bare domain and on www, behind a proxy that ends TLS, beside other applications of the host."""
    settings.SESSION_COOKIE_DOMAIN = "portal.example"
    settings.SESSION_COOKIE_PATH = "/play/"
    settings.SESSION_COOKIE_SECURE = True
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    settings.ROOT_URLCONF = urls(**{"play/register": portal.register})
    configure(SET_COOKIE=True)
    browser = Browser()
    kept = browser.get("/play/register/?mmref=tok-1").cookies["mmref"]
    gone = browser.sign_up(url="/play/register/").cookies["mmref"]
    for cookie in (kept, gone):
        assert (cookie["domain"], cookie["path"], cookie["samesite"]) == ("portal.example", "/play/", "Lax")
    assert kept["secure"] is True
    assert (gone.value, gone["max-age"]) == ("", 0)
    assert referred() == {BOB: "tok-1"}


@pytest.mark.usefixtures("cookie_sessions")
def test_no_cookie_of_our_own_is_set_unasked() -> None:
    assert list(Browser().visit("tok-1").cookies) == ["sessionid"]


@pytest.mark.usefixtures("cookie_sessions")
def test_the_cookie_is_set_once_for_each_token(configure: Callable[..., None]) -> None:
    configure(SET_COOKIE=True)
    browser = Browser()
    assert "mmref" in browser.visit("tok-1").cookies
    assert "mmref" not in browser.visit("tok-1").cookies
    assert "mmref" not in browser.get("/page/").cookies
    assert "mmref" not in browser.get("/join/7/").cookies
    assert browser.visit("tok-2").cookies["mmref"].value == "tok-2"


@pytest.mark.parametrize("token", ["".join(map(chr, range(0x21, 0x7F))), '"quoted"', "a;b,c", "back\\slash"])
@pytest.mark.usefixtures("cookie_sessions")
def test_every_token_survives_its_cookie(token: str, configure: Callable[..., None]) -> None:
    configure(SET_COOKIE=True)
    browser = Browser()
    browser.ask("get", "/page/", {"mmref": token})
    del browser.client.cookies["sessionid"]
    browser.get("/page/")
    assert browser.record["token"] == token


@pytest.mark.django_db(transaction=True)
@either_interface
def test_the_cookie_goes_when_its_token_is_used_up(configure: Callable[..., None], asgi: bool) -> None:
    configure(SET_COOKIE=True)
    browser = Browser(asgi=asgi)
    browser.visit("tok-1")
    cookie = browser.sign_up(login="1").cookies["mmref"]
    assert (cookie.value, cookie["max-age"], cookie["path"], cookie["samesite"]) == ("", 0, "/", "Lax")
    browser.post("/signout/")
    browser.sign_up("carol@example.com")
    assert referred() == {BOB: "tok-1"}


@pytest.mark.django_db(transaction=True)
def test_the_cookie_outlives_a_session(configure: Callable[..., None]) -> None:
    configure(SET_COOKIE=True)
    browser = Browser()
    browser.visit("tok-1")
    del browser.client.cookies["sessionid"]
    browser.sign_up()
    assert referred() == {BOB: "tok-1"}


# -- sessions


@pytest.mark.django_db(transaction=True)
@either_interface
@pytest.mark.parametrize("engine", ["db", "cache", "cached_db", "file", "signed_cookies"])
def test_every_kind_of_session_carries_the_token(
    engine: str, asgi: bool, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sessions.SessionStore, "_storage_path", str(tmp_path), raising=False)
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    cache.clear()
    browser = Browser(asgi=asgi)
    browser.visit("tok-1")
    assert browser.record["token"] == "tok-1"
    assert browser.sign_up(login="1").status_code == 200
    assert referred() == {BOB: "tok-1"}
    assert "token" not in browser.record


@pytest.mark.django_db(transaction=True)
@either_interface
@pytest.mark.parametrize("how", ["query", "cookie"])
def test_without_sessions_a_token_is_good_for_the_request_that_brings_it(how: str, asgi: bool, settings: Any) -> None:
    settings.MIDDLEWARE = [OURS]
    browser = Browser(asgi=asgi)
    assert browser.visit("tok-1").content == b"welcome"
    browser.sign_up(BOB)
    assert referred() == {}
    if how == "query":
        browser.sign_up("carol@example.com", url="/register/?mmref=tok-2")
    else:
        browser.client.cookies["mmref"] = "tok-2"
        browser.sign_up("carol@example.com")
    assert referred() == {"carol@example.com": "tok-2"}


@pytest.mark.django_db(transaction=True)
@either_interface
def test_without_sessions_a_cookie_of_our_own_carries_the_token(
    asgi: bool, settings: Any, configure: Callable[..., None]
) -> None:
    settings.MIDDLEWARE = [OURS]
    configure(SET_COOKIE=True)
    browser = Browser(asgi=asgi)
    response = browser.visit("tok-1")
    assert response["Cache-Control"] == "private"
    assert browser.client.cookies["mmref"].value == "tok-1"
    assert "mmref" not in browser.get("/page/").cookies
    browser.sign_up(BOB)
    browser.sign_up("carol@example.com")
    assert referred() == {BOB: "tok-1"}


@pytest.mark.django_db(transaction=True)
def test_without_sessions_two_accounts_of_one_request_share_no_token(settings: Any) -> None:
    settings.MIDDLEWARE = [OURS]
    Browser().sign_up(url="/register-twice/?mmref=tok-1")
    assert accounts() == {BOB, f"x{BOB}"}
    assert referred() == {BOB: "tok-1"}


@either_interface
def test_a_session_backend_that_fails_costs_the_visitor_nothing(
    asgi: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(store: object) -> dict[str, Any]:
        raise ConnectionError("the session store is down")

    monkeypatch.setattr(db_sessions.SessionStore, "load", load)
    response = Browser(asgi=asgi).get("/page/?mmref=tok-1", cookie="sessionid=abcdefgh")
    assert (response.status_code, response.content) == (200, b"welcome")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "A referral token could not be captured; the visitor goes on without it."
    ]
    assert "tok-1" not in caplog.text


# -- page caches


@pytest.fixture
def cached_page(settings: Any) -> list[HttpRequest]:
    """``/cached/`` behind Django's page cache; the requests that reached the view."""
    calls: list[HttpRequest] = []

    def view(request: HttpRequest) -> HttpResponse:
        calls.append(request)
        return HttpResponse("news")

    cache.clear()
    settings.SESSION_ENGINE = SIGNED_COOKIES
    settings.ROOT_URLCONF = urls(cached=view)
    settings.MIDDLEWARE = [
        "django.middleware.cache.UpdateCacheMiddleware",
        SESSIONS,
        OURS,
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    return calls


@either_interface
@pytest.mark.parametrize("set_cookie", [False, True])
def test_a_cached_page_still_captures(
    asgi: bool, set_cookie: bool, cached_page: list[HttpRequest], configure: Callable[..., None]
) -> None:
    configure(SET_COOKIE=set_cookie)
    first, friend, third = (Browser(asgi=asgi) for _ in range(3))
    first.get("/cached/")
    friend.client.cookies["mmref"] = "tok-1"
    response = friend.get("/cached/")
    assert response.content == b"news"
    assert "private" in response["Cache-Control"]
    assert friend.record["token"] == "tok-1"
    assert not third.get("/cached/").cookies
    assert len(cached_page) == 1


@either_interface
@pytest.mark.parametrize("set_cookie", [False, True])
def test_nothing_with_a_token_is_cached(
    asgi: bool, set_cookie: bool, cached_page: list[HttpRequest], configure: Callable[..., None]
) -> None:
    configure(SET_COOKIE=set_cookie)
    for _ in range(2):
        browser = Browser(asgi=asgi)
        response = browser.get("/cached/?mmref=tok-1")
        assert "private" in response["Cache-Control"]
        assert browser.record["token"] == "tok-1"
    assert len(cached_page) == 2
    assert not Browser(asgi=asgi).get("/cached/").cookies
    by_cookie = Browser(asgi=asgi)
    by_cookie.client.cookies["mmref"] = "tok-2"
    by_cookie.get("/cached/?page=2")
    assert not Browser(asgi=asgi).get("/cached/?page=2").cookies
    assert len(cached_page) == 5


# -- what visitors send


BAD_QUERIES = {
    "empty": "mmref=",
    "no value": "mmref",
    "too long": "mmref=" + "a" * 1025,
    "NUL": "mmref=%00",
    "NUL inside": "mmref=tok%001",
    "CR LF": "mmref=tok%0d%0aSet-Cookie:%20a=b",
    "LF at the end": "mmref=tok%0a",
    "tab": "mmref=tok%091",
    "space": "mmref=tok%201",
    "plus": "mmref=tok+1",
    "non-ASCII": "mmref=t%C3%B6k",
    "raw non-ASCII": "mmref=t\xc3\xb6k",
    "broken UTF-8": "mmref=%ff",
    "raw broken UTF-8": "mmref=\xff\xfe",
    "only bad ones": "mmref=a+b&mmref=&mmref=%00",
    "another name": "xmmref=tok&mmrefx=tok&MMREF=tok&mmref[]=tok",
    "only a value": "a=mmref",
    "1 MB": "mmref=" + "a" * 1_000_000,
    "too long to look at": "mmref=tok&pad=" + "a" * QUERY_LIMIT,
    "thousands of parameters": "mmref=tok" + "&a=1" * 3000,
}
BAD_COOKIES = {
    "empty": "mmref=",
    "no value": "mmref",
    "too long": "mmref=" + "a" * 1025,
    "NUL": 'mmref="a\\000b"',
    "CR LF": 'mmref="a\\015\\012b"',
    "raw tab": "mmref=a\tb",
    "space": "mmref=a b",
    "quoted space": 'mmref="a b"',
    "raw non-ASCII": "mmref=t\xc3\xb6k",
    "raw broken UTF-8": "mmref=\xff\xfe",
    "only the name of another": "xmmref=tok; mmrefx=tok; MMREF=tok",
    "1 MB": "mmref=" + "a" * 1_000_000,
    "thousands of cookies": "; ".join(f"mmref{n}=tok" for n in range(3000)),
    "rubbish": ";;=;mmref;=mmref;=",
}


def with_query(query: str) -> Callable[[Browser], Any]:
    return lambda browser: browser.ask("get", "/page/", QUERY_STRING=query)


def with_cookie(cookie: str) -> Callable[[Browser], Any]:
    return lambda browser: browser.get("/page/", cookie=cookie)


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize("case", BAD_QUERIES)
def test_a_query_without_a_usable_token_changes_nothing(
    case: str, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    without, with_us = as_without_us(settings, with_query(BAD_QUERIES[case]))
    assert without == with_us
    assert without[0] == 200
    assert caplog.records == []


@pytest.mark.usefixtures("cookie_sessions")
@either_interface
@pytest.mark.parametrize("case", BAD_COOKIES)
def test_a_cookie_without_a_usable_token_changes_nothing(
    case: str, asgi: bool, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    without, with_us = as_without_us(settings, with_cookie(BAD_COOKIES[case]), asgi=asgi)
    assert without == with_us
    assert without[0] == 200
    assert caplog.records == []


@pytest.mark.django_db
@pytest.mark.parametrize("case", BAD_QUERIES)
def test_a_sign_up_with_a_bad_query_works_unreferred(case: str, caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser()
    response = browser.ask("post", "/register/", {"name": BOB}, QUERY_STRING=BAD_QUERIES[case])
    assert response.status_code == 200
    assert (accounts(), referred(), browser.record) == ({BOB}, {}, {})
    assert caplog.records == []


@pytest.mark.django_db
@pytest.mark.parametrize("case", BAD_COOKIES)
def test_a_sign_up_with_a_bad_cookie_works_unreferred(case: str, caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser()
    response = browser.ask("post", "/register/", {"name": BOB}, HTTP_COOKIE=BAD_COOKIES[case])
    assert response.status_code == 200
    assert (accounts(), referred(), browser.record) == ({BOB}, {}, {})
    assert caplog.records == []


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize(
    ("query", "token"),
    [
        ("mmref=tok-1&mmref=tok-2", "tok-2"),
        ("mmref=tok-1&mmref=a+b", "tok-1"),
        ("mmref=tok-1&mmref=", "tok-1"),
        ("a=1&mmref=tok-1&b=2", "tok-1"),
        ("mmref=tok%2D1", "tok-1"),
        ("mmref=%", "%"),
        ("mmref=%zz", "%zz"),
        ("mmref=a%2Bb%3D%3D", "a+b=="),
        ("mmref=" + "a" * 1024, "a" * 1024),
        ("mmref=tok-1&pad=" + "a" * (QUERY_LIMIT - len("mmref=tok-1&pad=")), "tok-1"),
        ("mmref=tok-1" + "&a=1" * 999, "tok-1"),
    ],
    ids=lambda value: value[:25],
)
def test_the_last_usable_token_of_a_query_is_taken(query: str, token: str) -> None:
    browser = Browser()
    browser.ask("get", "/page/", QUERY_STRING=query)
    assert browser.record["token"] == token


@pytest.mark.usefixtures("cookie_sessions")
def test_too_many_parameters_are_the_views_business(settings: Any) -> None:
    def search(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.GET["a"])

    settings.ROOT_URLCONF = urls(search=search)
    query = "mmref=tok" + "&a=1" * 1000
    without, with_us = as_without_us(settings, lambda browser: browser.ask("get", "/search/", QUERY_STRING=query))
    assert without == with_us
    assert without[0] == 400


@pytest.mark.usefixtures("cookie_sessions")
def test_the_cookie_counts_where_the_query_cannot_be_read() -> None:
    for query in ("mmref=tok-1" + "&a=1" * 1000, "mmref=" + "a" * QUERY_LIMIT, "mmref=a+b"):
        browser = Browser()
        browser.ask("get", "/page/", QUERY_STRING=query, HTTP_COOKIE="mmref=tok-2")
        assert browser.record["token"] == "tok-2"


RUBBISH: list[object] = [
    None,
    True,
    0,
    5,
    1.5,
    "",
    "text",
    [],
    ["tok-1"],
    {},
    {"token": None},
    {"token": 5},
    {"token": "a b"},
    {"token": ["tok-1"]},
    {"token": {"token": "tok-1"}},
    {"used": "all", "at": "now", "noted": [-1], "server": None, "owed_to": 7, "code": "a/b"},
    {"unknown": {"deep": [[[{}]]]}},
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rubbish", RUBBISH, ids=repr)
def test_rubbish_in_the_session_changes_nothing(rubbish: object, caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser()
    browser.record = rubbish
    key = browser.client.cookies["sessionid"].value
    assert browser.get("/page/", cookie=f"sessionid={key}; mmref=a b").content == b"welcome"
    assert browser.sign_up().status_code == 200
    assert browser.record == rubbish
    assert browser.log_in().status_code == 200
    assert (accounts(), referred(), browser.record) == ({BOB}, {}, rubbish)
    assert caplog.records == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rubbish", RUBBISH, ids=repr)
def test_a_token_replaces_rubbish_in_the_session(rubbish: object) -> None:
    browser = Browser()
    browser.record = rubbish
    browser.visit("tok-1")
    browser.sign_up()
    assert referred() == {BOB: "tok-1"}


examples = hypothesis_settings(deadline=None)
any_header = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text('%&=;, \t"\\abc019', max_size=40).map(str.encode),
).map(lambda raw: raw.decode("latin-1"))


@examples
@given(st.sampled_from(["", "mmref", "mmref=", "mmref=tok&mmref="]), any_header)
def test_any_query_yields_the_page_and_only_usable_tokens(prefix: str, rest: str) -> None:
    with override_settings(SESSION_ENGINE=SIGNED_COOKIES):
        browser = Browser()
        assert browser.ask("get", "/page/", QUERY_STRING=prefix + rest).status_code == 200
        token = browser.record.get("token")
        assert token is None or usable_token(token) == token


@examples
@given(st.sampled_from(["", "mmref", "mmref=", "sessionid=x; mmref="]), any_header)
def test_any_cookie_yields_the_page_and_only_usable_tokens(prefix: str, rest: str) -> None:
    with override_settings(SESSION_ENGINE=SIGNED_COOKIES):
        browser = Browser()
        assert browser.ask("get", "/page/", HTTP_COOKIE=prefix + rest).status_code == 200
        token = browser.record.get("token")
        assert token is None or usable_token(token) == token


# -- settings that are wrong


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize("wrong", [["SERVER_ID"], "rubbish", {"QUERY_PARAM": 5}])
def test_without_readable_settings_visitors_stay_untouched(wrong: object, settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = wrong
    without, with_us = as_without_us(settings, lambda browser: browser.visit("tok-1"))
    assert without == with_us


def crash(request: HttpRequest) -> str:
    raise ZeroDivisionError


@pytest.mark.django_db(transaction=True)
@either_interface
@pytest.mark.parametrize(
    "resolve", [lambda request: "atlantis", crash, "nowhere.at_all"], ids=["unknown", "crash", "gone"]
)
def test_a_token_whose_server_cannot_be_told_is_kept_until_it_can(
    resolve: object, asgi: bool, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(SERVERS={"eu": {"SERVER_ID": "x", "SECRET": "y"}}, RESOLVE_SERVER=resolve)
    browser = Browser(asgi=asgi)
    assert browser.visit("tok-1").content == b"welcome"
    assert browser.sign_up().status_code == 200
    assert (accounts(), referred()) == ({BOB}, {})
    assert [record.getMessage() for record in caplog.records] == [
        "The server of a visit could not be told; it will be at the sign-up.",
        "A referral could not be attached; it will be at the account's next login.",
    ]
    assert "tok-1" not in caplog.text

    configure(RESOLVE_SERVER=lambda request: "eu")
    browser.log_in()
    assert Referral.objects.get().server == "eu"
    assert referred() == {BOB: "tok-1"}


@pytest.mark.django_db(transaction=True)
def test_the_server_is_told_by_the_visit_that_brought_the_token(configure: Callable[..., None]) -> None:
    server = {"SERVER_ID": "x", "SECRET": "y"}
    configure(SERVERS={"eu": server, "us": server}, RESOLVE_SERVER=lambda request: request.headers["Server"])
    browser = Browser()
    browser.get("/page/?mmref=tok-1", server="eu")
    browser.ask("post", "/register/", {"name": BOB}, headers={"server": "us"})
    assert Referral.objects.get().server == "eu"


@pytest.mark.usefixtures("cookie_sessions")
def test_a_wrong_cookie_setting_costs_the_cookie_only(
    configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(SET_COOKIE="yes")
    browser = Browser()
    response = browser.visit("tok-1")
    assert response["Cache-Control"] == "private"
    assert browser.record["token"] == "tok-1"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "MMOLOVE_REFERRAL['SET_COOKIE'] must be True or False, not 'yes'." in caplog.text


# -- the context


class SyncOnly:
    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)


@pytest.mark.django_db(transaction=True)
@either_interface
@pytest.mark.parametrize("url", ["/register/", "/aregister/"])
@pytest.mark.parametrize("before", [False, True])
def test_middleware_that_is_sync_only_does_not_lose_the_visit(
    asgi: bool, url: str, before: bool, settings: Any
) -> None:
    place = settings.MIDDLEWARE.index(OURS) + (not before)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:place], f"{__name__}.SyncOnly", *settings.MIDDLEWARE[place:]]
    browser = Browser(asgi=asgi)
    browser.visit("tok-1")
    browser.sign_up(url=url)
    assert referred() == {BOB: "tok-1"}


@pytest.mark.django_db(transaction=True)
@either_interface
def test_a_request_within_a_request_keeps_to_its_own_visit(asgi: bool, settings: Any) -> None:
    def outer(request: HttpRequest) -> HttpResponse:
        Browser().sign_up("inner@example.com", url="/register/?mmref=tok-2")
        portal.create("outer@example.com")
        return HttpResponse("both")

    settings.ROOT_URLCONF = urls(outer=outer)
    Browser(asgi=asgi).get("/outer/?mmref=tok-1")
    assert referred() == {"inner@example.com": "tok-2", "outer@example.com": "tok-1"}


def test_nobodys_visit_is_left_behind_when_a_request_crashes() -> None:
    def crash(request: HttpRequest) -> HttpResponse:
        assert current_visit() is not None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ReferralMiddleware(crash)(RequestFactory().get("/"))
    assert current_visit() is None
