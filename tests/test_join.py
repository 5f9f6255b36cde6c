"""``/join/<code>/``: who shared the link, from the click to the referrer of the new account."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings
from django.test.utils import override_script_prefix
from django.urls import include, path
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_mmolove_referral import attach_referral, share_link
from django_mmolove_referral.conf import ConfigError
from django_mmolove_referral.models import Referral
from django_mmolove_referral.record import CODE_LIFETIME, usable_code
from django_mmolove_referral.views import with_code

from .factories import UserFactory
from .visitors import Browser

SHARE = "https://mmolove.example/r/srv_test"
SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"
ODD_CODES = [
    "älice",
    "アリス",
    "😀",
    "a+b",
    "a&ref=b",
    "50%",
    "%2e",
    "a?b",
    "a#b",
    "a=b",
    "a;b",
    "'\"<x>",
    "...",
    "a" * 255,
]

EU = {"SERVER_ID": "srv_eu", "SECRET": "s", "SHARE_URL": "https://mmolove.example/r/eu?lang=de#top"}
US = {"SERVER_ID": "srv_us", "SECRET": "s"}


@pytest.fixture
def cookie_sessions(settings: Any) -> None:
    """Sessions without a database."""
    settings.SESSION_ENGINE = SIGNED_COOKIES


@pytest.fixture
def two_servers(configure: Callable[..., None]) -> None:
    configure(SERVERS={"eu": EU, "us": US})


def noted(browser: Browser) -> dict[str, str]:
    """The codes that the visit keeps, by server."""
    return {server: code for server, (code, _at) in browser.record.get("noted", {}).items()}


# -- the redirect


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize("asgi", [False, True])
def test_a_share_link_leads_to_mmolove_with_the_code(asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    response = browser.get("/join/7/")
    assert (response.status_code, response["Location"]) == (302, f"{SHARE}?ref=7")
    assert noted(browser) == {"default": "7"}


@pytest.mark.usefixtures("cookie_sessions")
def test_a_share_link_is_stored_by_nobody() -> None:
    directives = set(Browser().get("/join/7/")["Cache-Control"].split(", "))
    assert {"no-store", "private", "max-age=0"} <= directives


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize("code", ODD_CODES)
def test_the_code_arrives_as_it_was_shared(code: str) -> None:
    browser = Browser()
    target = browser.get(f"/join/{quote(code, safe='')}/")["Location"]
    assert parse_qs(urlsplit(target).query) == {"ref": [code]}
    assert target.startswith(f"{SHARE}?ref=")
    assert noted(browser) == {"default": code}


@pytest.mark.usefixtures("cookie_sessions", "two_servers")
def test_a_share_link_of_another_server_leads_there_and_keeps_its_query() -> None:
    response = Browser().get("/join/eu/7/")
    assert response["Location"] == "https://mmolove.example/r/eu?lang=de&ref=7#top"


@pytest.mark.usefixtures("cookie_sessions")
def test_a_sandbox_among_the_portals_own_urls_is_named_by_its_path(configure: Callable[..., None]) -> None:
    configure(SHARE_URL="/sandbox/r/srv_test")
    assert Browser().get("/join/7/")["Location"] == "/sandbox/r/srv_test?ref=7"


@pytest.mark.usefixtures("cookie_sessions", "two_servers")
def test_without_a_share_url_the_front_page_is_next() -> None:
    browser = Browser()
    response = browser.get("/join/us/7/")
    assert (response.status_code, response["Location"]) == (302, "/")
    assert noted(browser) == {"us": "7"}


@pytest.mark.usefixtures("cookie_sessions")
def test_the_front_page_is_the_portals_own_under_a_script_name() -> None:
    with override_script_prefix("/portal/"):
        assert Browser().get("/join/atlantis/7/")["Location"] == "/portal/"


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize(
    "wrong",
    [
        {"SHARE_URL": "mmolove.example/r/x"},
        {"SHARE_URL": "//mmolove.example/r/x"},
        {"SHARE_URL": "ftp://mmolove.example/"},
        {"SHARE_URL": "http://[oops"},
        {"SHARE_URL": "https://"},
        {"SHARE_URL": 5},
        {"SERVERS": ["eu"]},
        ["SERVER_ID"],
        None,
    ],
    ids=repr,
)
def test_wrong_settings_lead_to_the_front_page_and_into_the_log(
    wrong: Any, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.MMOLOVE_REFERRAL = wrong
    response = Browser().get("/join/7/")
    assert (response.status_code, response["Location"]) == (302, "/")
    logged = [record.getMessage() for record in caplog.records if record.name == "mmolove_referral.join"]
    if wrong is None:
        assert logged == []  # nothing is missing but SHARE_URL, which is optional
    else:
        assert len(logged) == 1
        assert logged[0].startswith("A share link led nowhere: MMOLOVE_REFERRAL")


@pytest.mark.usefixtures("cookie_sessions")
def test_an_unknown_server_leads_to_the_front_page_and_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")  # no more: anybody can type it
    browser = Browser()
    assert browser.get("/join/atlantis/7/")["Location"] == "/"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert caplog.messages == [
        "A share link led nowhere: There is no server 'atlantis' in MMOLOVE_REFERRAL['SERVERS']; there is 'default'."
    ]
    assert noted(browser) == {}  # nobody fills a session with servers that there are not


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize(
    "code",
    [
        "%00",
        "a%00b",
        "a%0d%0aX-Evil:%20b",
        "a%09b",
        "a%20b",
        "%20",
        "a%C2%A0b",
        "a" * 256,
        "a%5Cb",
        "%E2%80%AE",
        ".",
        "..",
    ],
)
def test_a_code_that_can_be_none_is_dropped(code: str, caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser()
    response = browser.get(f"/join/{code}/")
    assert (response.status_code, response["Location"]) == (302, SHARE)
    assert browser.record == {}
    assert caplog.records == []


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize("path", ["%00", "a%0d%0aERROR%20forged", "a%1b[31m", "%ff", "a%E2%80%A8b"])
def test_nothing_of_a_strange_link_reaches_the_log_unescaped(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for url in (f"/join/{path}/7/", f"/join/{path}/"):
        assert Browser().get(url).status_code == 302
    assert len(caplog.messages) == 1
    assert caplog.messages[0].isprintable()


@pytest.mark.usefixtures("cookie_sessions")
def test_a_link_of_too_many_parts_is_not_found() -> None:
    assert Browser().get("/join/eu/7/8/").status_code == 404


@pytest.mark.usefixtures("cookie_sessions")
@pytest.mark.parametrize("asgi", [False, True])
def test_head_is_answered_like_get_and_post_is_refused(asgi: bool) -> None:
    browser = Browser(asgi=asgi)
    head = browser.ask("head", "/join/7/")
    assert (head.status_code, head["Location"]) == (302, f"{SHARE}?ref=7")
    post = Browser(asgi=asgi).post("/join/7/")
    assert (post.status_code, post["Allow"]) == (405, "GET, HEAD")


@pytest.mark.usefixtures("cookie_sessions")
def test_a_share_link_works_without_the_middleware(settings: Any) -> None:
    settings.MIDDLEWARE = []
    assert Browser().get("/join/7/")["Location"] == f"{SHARE}?ref=7"


def test_a_share_link_works_without_a_session_store(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(store: object) -> dict[str, Any]:
        raise ConnectionError

    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.load", load)
    response = Browser().get("/join/7/", cookie="sessionid=abcdefgh12345678")
    assert response["Location"] == f"{SHARE}?ref=7"
    assert caplog.messages == ["The code of a share link could not be noted; the visitor goes on without it."]


@pytest.mark.parametrize(
    ("url", "code", "expected"),
    [
        ("https://m.example/r/x", "7", "https://m.example/r/x?ref=7"),
        ("https://m.example/r/x", None, "https://m.example/r/x"),
        ("https://m.example/r/x?", "7", "https://m.example/r/x?ref=7"),
        ("https://m.example/?a=1&b=%20", "7", "https://m.example/?a=1&b=%20&ref=7"),
        ("/sandbox/r/x", "7", "/sandbox/r/x?ref=7"),
        ("https://m.example#top", "a b", "https://m.example?ref=a+b#top"),
    ],
)
def test_the_code_is_added_to_a_url(url: str, code: str | None, expected: str) -> None:
    assert with_code(url, code) == expected


# -- from the click to the referrer


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("asgi", [False, True])
def test_whoever_shared_the_link_is_the_referrer(asgi: bool) -> None:
    alice = UserFactory.create()
    browser = Browser(asgi=asgi)
    browser.get(share_link(alice))
    browser.visit("tok-1")
    browser.sign_up()
    referral = Referral.objects.get()
    assert (referral.referrer, referral.referrer_code, referral.token) == (alice, str(alice.pk), "tok-1")
    assert list(alice.mmolove_invited.all()) == [referral]


@pytest.mark.django_db(transaction=True)
def test_the_latest_link_counts() -> None:
    alice, carol = UserFactory.create_batch(2)
    browser = Browser()
    browser.get(share_link(alice))
    browser.get(share_link(carol))
    browser.visit("tok-1")
    browser.sign_up()
    assert Referral.objects.get().referrer == carol


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("minutes", "known"), [(14, True), (16, False)])
def test_a_code_waits_a_quarter_of_an_hour_for_its_token(
    minutes: int, known: bool, later: Callable[[float], None]
) -> None:
    assert CODE_LIFETIME == 15 * 60
    alice = UserFactory.create()
    browser = Browser()
    browser.get(share_link(alice))
    later(minutes * 60)
    browser.visit("tok-1")
    browser.sign_up()
    referral = Referral.objects.get()
    assert (referral.referrer, referral.referrer_code) == ((alice, str(alice.pk)) if known else (None, ""))


@pytest.mark.django_db(transaction=True)
def test_a_code_is_taken_by_one_token_only() -> None:
    alice = UserFactory.create()
    browser = Browser()
    browser.get(share_link(alice))
    browser.visit("tok-1")
    browser.visit("tok-2")
    browser.sign_up("bob@example.com")
    browser.get(share_link(alice))
    browser.visit("tok-2")  # used up
    browser.visit("tok-3")
    browser.sign_up("carol@example.com")
    found = Referral.objects.order_by("pk").values_list("token", "referrer")
    assert list(found) == [("tok-2", None), ("tok-3", alice.pk)]


@pytest.mark.django_db(transaction=True)
def test_an_older_token_does_not_take_the_code_of_a_link_clicked_later() -> None:
    alice = UserFactory.create()
    browser = Browser()
    browser.visit("tok-1")
    browser.get(share_link(alice))
    browser.sign_up()
    assert Referral.objects.get().referrer is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    "code",
    ["99999999", "9" * 255, "-1", "0", "alice", "1e3", "٣", "😀", "00000000-0000-0000-0000-000000000000", "';--"],
)
def test_a_code_that_names_nobody_is_kept_without_a_referrer(code: str) -> None:
    referral = attach_referral(UserFactory.create(), "tok-1", code=code)
    assert (referral.referrer, referral.referrer_code) == (None, code)
    assert referral.events.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("code", ["99999999", "alice", "😀", "';--"])
def test_a_made_up_link_costs_the_visitor_nothing(code: str, caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser()
    browser.get(f"/join/{quote(code)}/")
    browser.visit("tok-1")
    assert browser.sign_up().status_code == 200
    referral = Referral.objects.get()
    assert (referral.referrer, referral.referrer_code) == (None, code)
    assert caplog.records == []


@pytest.mark.django_db
def test_nobody_is_their_own_referrer() -> None:
    bob = UserFactory.create()
    referral = attach_referral(bob, "tok-1", code=str(bob.pk))
    assert (referral.referrer, referral.referrer_code) == (None, str(bob.pk))


@pytest.mark.django_db
def test_codes_may_be_a_field_of_the_account(configure: Callable[..., None]) -> None:
    field = get_user_model().USERNAME_FIELD
    configure(REFERRER_CODE=field)
    alice = UserFactory.create(name="alice@example.com")
    assert share_link(alice) == "/join/alice@example.com/"
    assert attach_referral(UserFactory.create(), "tok-1", code="alice@example.com").referrer == alice


@pytest.mark.django_db
def test_codes_that_several_accounts_share_name_nobody(configure: Callable[..., None]) -> None:
    configure(REFERRER_CODE="password")
    UserFactory.create_batch(2)
    get_user_model()._default_manager.update(password="same")
    assert attach_referral(UserFactory.create(), "tok-1", code="same").referrer is None


@pytest.mark.django_db
def test_codes_that_are_no_column_are_kept_for_resolve_referrer(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_user_model(), "tag", property(lambda user: f"tag-{user.pk}"), raising=False)
    configure(REFERRER_CODE="tag")
    alice = UserFactory.create()
    assert share_link(alice) == f"/join/tag-{alice.pk}/"
    referral = attach_referral(UserFactory.create(), "tok-1", code=f"tag-{alice.pk}")
    assert (referral.referrer, referral.referrer_code) == (None, f"tag-{alice.pk}")


@pytest.mark.django_db
def test_codes_made_by_a_callable_are_kept_for_resolve_referrer(configure: Callable[..., None]) -> None:
    configure(REFERRER_CODE=lambda user: f"player-{user.pk}")
    alice = UserFactory.create()
    assert share_link(alice) == f"/join/player-{alice.pk}/"
    referral = attach_referral(UserFactory.create(), "tok-1", code=f"player-{alice.pk}")
    assert (referral.referrer, referral.referrer_code) == (None, f"player-{alice.pk}")


# -- share_link


@pytest.mark.django_db
def test_a_share_link_is_a_path_or_with_a_request_a_url() -> None:
    alice = UserFactory.create()
    request = RequestFactory().get("/profile/", secure=True, headers={"host": "portal.example"})
    assert share_link(alice) == f"/join/{alice.pk}/"
    assert share_link(alice, request) == f"https://portal.example/join/{alice.pk}/"


@pytest.mark.django_db
@pytest.mark.usefixtures("two_servers")
def test_a_share_link_may_be_for_another_server() -> None:
    alice = UserFactory.create()
    assert share_link(alice, server="eu") == f"/join/eu/{alice.pk}/"
    with pytest.raises(ConfigError) as caught:
        share_link(alice, server="atlantis")
    assert str(caught.value) == (
        "There is no server 'atlantis' in MMOLOVE_REFERRAL['SERVERS']; there is 'default', 'eu', 'us'."
    )


def test_without_a_default_server_a_share_link_has_to_say_which(settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = {"SERVERS": {"eu": EU, "us": US}}
    assert share_link(SimpleNamespace(pk=7), server="us") == "/join/us/7/"
    with pytest.raises(ConfigError) as caught:
        share_link(SimpleNamespace(pk=7))
    assert str(caught.value) == "There is no server 'default' in MMOLOVE_REFERRAL['SERVERS']; there is 'eu', 'us'."


def test_an_anonymous_visitor_has_no_share_link() -> None:
    with pytest.raises(ValueError, match=r"^Only an account has a share link, and this visitor has none\.$"):
        share_link(AnonymousUser())


@pytest.mark.parametrize("code", ["", "a b", "a/b", "a" * 256, "..", "a\n", None])
def test_a_code_that_fits_no_link_is_an_error_that_names_the_setting(
    code: object, configure: Callable[..., None]
) -> None:
    configure(REFERRER_CODE=lambda user: code)
    with pytest.raises(ImproperlyConfigured) as caught:
        share_link(SimpleNamespace(pk=7))
    assert str(caught.value) == (
        "MMOLOVE_REFERRAL['REFERRER_CODE'] must give 1 to 255 printable characters without spaces and slashes."
    )


def test_a_portal_without_our_urls_is_told_what_to_add(settings: Any) -> None:
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": []})
    with pytest.raises(ImproperlyConfigured) as caught:
        share_link(SimpleNamespace(pk=7))
    assert str(caught.value) == (
        'Add path("", include("django_mmolove_referral.urls")) to the portal\'s URLconf: share links need it.'
    )


def test_share_links_follow_where_the_portal_puts_our_urls(settings: Any) -> None:
    mounted = [path("invite/", include("django_mmolove_referral.urls"))]
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": mounted})
    assert share_link(SimpleNamespace(pk=7)) == "/invite/join/7/"


@hypothesis_settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda code: usable_code(code) is not None)
)
def test_every_usable_code_survives_its_share_link(code: str) -> None:
    changed = {"SHARE_URL": SHARE, "REFERRER_CODE": lambda user: code}
    with override_settings(SESSION_ENGINE=SIGNED_COOKIES, MMOLOVE_REFERRAL=changed):
        browser = Browser()
        target = browser.get(share_link(SimpleNamespace(pk=7)))["Location"]
        assert parse_qs(urlsplit(target).query) == {"ref": [code]}
        assert noted(browser) == {"default": code}
