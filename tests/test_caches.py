"""Pages behind Django's caches: each visitor keeps their own token, and those without one share the cached page."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.backends import file as file_sessions
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import condition
from django.views.decorators.vary import vary_on_cookie

from . import portal
from .pages import code
from .visitors import Browser, referred, urls

pytestmark = pytest.mark.django_db(transaction=True)

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
OURS = "django_mmolove_referral.middleware.ReferralMiddleware"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
GZIP = "django.middleware.gzip.GZipMiddleware"

View = Callable[..., HttpResponse]


def written() -> list[str]:
    """``MIDDLEWARE`` as docs/caching.md has it."""
    settings: dict[str, Any] = {}
    exec(code("caching.md", "UpdateCacheMiddleware"), settings)
    return list(settings["MIDDLEWARE"])


#: Middleware, and what stands around each view.
SET_UPS: dict[str, tuple[list[str], Callable[[View], View]]] = {
    "site cache, as the documentation has it": (written(), lambda view: view),
    "site cache behind us": ([SESSIONS, OURS, UPDATE, FETCH], lambda view: view),
    "both in one": ([SESSIONS, OURS, "django.middleware.cache.CacheMiddleware"], lambda view: view),
    "cache_page": ([SESSIONS, OURS], cache_page(60)),
    "cache_page, varying on cookies": ([SESSIONS, OURS], lambda view: cache_page(60)(vary_on_cookie(view))),
    "with ETags and gzip around": ([UPDATE, GZIP, CONDITIONAL, SESSIONS, OURS, FETCH], lambda view: view),
    "with ETags and gzip within": ([SESSIONS, OURS, GZIP, CONDITIONAL, UPDATE, FETCH], lambda view: view),
}
ENGINES = ("db", "cache", "cached_db", "file", "signed_cookies")

each_set_up = pytest.mark.parametrize("set_up", SET_UPS)
either_interface = pytest.mark.parametrize("asgi", [False, True], ids=["WSGI", "ASGI"])


class Site:
    """A front page and a registration page, and how often each was made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def front(self, request: HttpRequest) -> HttpResponse:
        self.made.append("front")
        return HttpResponse("news " * 100)

    def sign_up(self, request: HttpRequest) -> HttpResponse:
        if request.method == "POST":
            return portal.register(request)
        self.made.append("sign-up")
        return HttpResponse("name? " * 100)

    def urls(self, wrap: Callable[[View], View]) -> type:
        return urls(front=wrap(self.front), signup=csrf_exempt(wrap(self.sign_up)))


@pytest.fixture
def build(settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    """``build(set_up)`` is a portal of that kind, with nothing in its caches."""
    monkeypatch.setattr(file_sessions.SessionStore, "_storage_path", str(tmp_path), raising=False)
    local = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {name: {"BACKEND": local, "LOCATION": name} for name in ("default", "sessions")}
    settings.SESSION_CACHE_ALIAS = "sessions"

    def make(set_up: str, engine: str = "db", wrap: Callable[[View], View] | None = None) -> Site:
        site = Site()
        settings.MIDDLEWARE, wrapped = SET_UPS[set_up]
        settings.ROOT_URLCONF = site.urls(wrap or wrapped)
        settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
        for cache in caches.all():
            cache.clear()
        return site

    return make


def stored() -> list[HttpResponse]:
    """The pages in Django's cache."""
    entries = [pickle.loads(entry) for entry in caches["default"]._cache.values()]  # type: ignore[attr-defined]
    return [entry for entry in entries if isinstance(entry, HttpResponse)]


def of_nobody(response: HttpResponse) -> bool:
    return not response.cookies and b"tok-" not in response.serialize()


@each_set_up
@pytest.mark.parametrize("engine", ENGINES)
def test_each_account_has_the_token_of_its_own_visitor(set_up: str, engine: str, build: Callable[..., Site]) -> None:
    site = build(set_up, engine)
    early, anna, ben, cookie, late = (Browser(asgi=bool(n % 2)) for n in range(5))
    early.get("/signup/")  # and the page is in the cache
    anna.get("/signup/?mmref=tok-anna")
    ben.get("/signup/?mmref=tok-ben")
    cookie.client.cookies["mmref"] = "tok-cookie"
    cookie.get("/signup/")
    late.get("/signup/")
    everybody = {"early": early, "anna": anna, "ben": ben, "cookie": cookie, "late": late}
    for name, browser in everybody.items():
        assert browser.sign_up(name, url="/signup/", login="1").status_code == 200
    assert referred() == {"anna": "tok-anna", "ben": "tok-ben", "cookie": "tok-cookie"}
    assert site.made.count("sign-up") >= 1
    assert stored()
    assert all(map(of_nobody, stored()))


@either_interface
@each_set_up
@pytest.mark.parametrize("set_cookie", [False, True])
def test_those_without_a_token_share_the_cached_page(
    set_up: str, asgi: bool, set_cookie: bool, build: Callable[..., Site], configure: Callable[..., None]
) -> None:
    configure(SET_COOKIE=set_cookie)
    site = build(set_up)
    pages = [Browser(asgi=asgi).get("/front/")]
    assert Browser(asgi=asgi).get("/front/?mmref=tok-1").cookies  # somebody's own, and none of the others'
    by_cookie = Browser(asgi=asgi)
    by_cookie.client.cookies["mmref"] = "tok-2"
    assert by_cookie.get("/front/").cookies
    before = len(site.made)
    pages += [Browser(asgi=asgi).get("/front/") for _ in range(3)]
    assert len(site.made) == before, "none of them was made anew"
    for page in pages:
        assert page.content == b"news " * 100
        assert not page.cookies
        varies = "Cookie" in page.get("Vary", "")
        assert varies == ("varying" in set_up), "on cookies by the portal's own wish only"
        assert "private" not in page["Cache-Control"]


@each_set_up
@pytest.mark.parametrize("how", ["query", "cookie"])
def test_whoever_brings_a_token_gets_a_page_of_their_own(
    set_up: str, how: str, build: Callable[..., Site], configure: Callable[..., None]
) -> None:
    configure(SET_COOKIE=True)
    build(set_up)
    Browser().get("/front/")
    browser = Browser()
    if how == "cookie":
        browser.client.cookies["mmref"] = "tok-1"
    response = browser.get("/front/" if how == "cookie" else "/front/?mmref=tok-1")
    assert response.content == b"news " * 100
    assert "private" in response["Cache-Control"]
    assert set(response.cookies) == ({"sessionid"} if how == "cookie" else {"sessionid", "mmref"})


@each_set_up
def test_a_page_that_nobody_may_cache_captures_like_any_other(set_up: str, build: Callable[..., Site]) -> None:
    site = build(set_up, wrap=never_cache)
    anna, nobody = Browser(), Browser()
    assert "no-store" in anna.get("/signup/?mmref=tok-anna")["Cache-Control"]
    nobody.get("/signup/")
    assert site.made == ["sign-up", "sign-up"]
    anna.sign_up("anna", url="/signup/")
    nobody.sign_up("nobody", url="/signup/")
    assert referred() == {"anna": "tok-anna"}
    assert stored() == []


@either_interface
@pytest.mark.parametrize("how", ["middleware around", "middleware within", "decorator"])
def test_not_modified_still_captures(how: str, asgi: bool, build: Callable[..., Site], settings: Any) -> None:
    """The visitor has the page already, and comes again by a share link: no page is sent, the session is."""
    wrap = condition(etag_func=lambda request: '"first"') if how == "decorator" else None
    build("cache_page", wrap=wrap or (lambda view: view))
    if how != "decorator":
        settings.MIDDLEWARE = [CONDITIONAL, SESSIONS, OURS] if "around" in how else [SESSIONS, OURS, CONDITIONAL]
    tag = Browser().get("/signup/")["ETag"]
    browser = Browser(asgi=asgi)
    response = browser.get("/signup/?mmref=tok-1", **{"if-none-match": tag})
    assert (response.status_code, response.content) == (304, b"")
    assert "sessionid" in response.cookies
    assert "private" in response["Cache-Control"]
    browser.sign_up("anna", url="/signup/")
    assert referred() == {"anna": "tok-1"}


@either_interface
@pytest.mark.parametrize("how", ["middleware around", "middleware within", "decorator"])
def test_a_compressed_page_captures(how: str, asgi: bool, build: Callable[..., Site], settings: Any) -> None:
    build("cache_page", wrap=gzip_page if how == "decorator" else (lambda view: view))
    if how != "decorator":
        settings.MIDDLEWARE = [GZIP, SESSIONS, OURS] if "around" in how else [SESSIONS, OURS, GZIP]
    plain = Browser(asgi=asgi).get("/signup/", **{"accept-encoding": "gzip"})
    assert (plain["Content-Encoding"], plain["Vary"]) == ("gzip", "Accept-Encoding")
    browser = Browser(asgi=asgi)
    response = browser.get("/signup/?mmref=tok-1", **{"accept-encoding": "gzip"})
    assert response["Content-Encoding"] == "gzip"
    assert "private" in response["Cache-Control"]
    browser.sign_up("anna", url="/signup/")
    assert referred() == {"anna": "tok-1"}


@pytest.mark.parametrize("set_up", [name for name in SET_UPS if "site cache" in name])
def test_a_share_link_is_never_cached(set_up: str, build: Callable[..., Site]) -> None:
    """Each visitor notes its code for themselves."""
    build(set_up)
    for _ in range(2):
        browser = Browser()
        assert browser.get("/join/7/").status_code == 302
        assert browser.record["noted"]["default"][0] == "7"
    assert stored() == []
