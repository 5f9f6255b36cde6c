"""The portal behind a real nginx that caches its pages, set up with care and without."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests

from tests.databases import running_url
from tests.pages import code
from tests.visitors import referred

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 60.0
RECIPE = code("caching.md", "proxy_cache_bypass", language="nginx")
CAREFUL = """
        proxy_cache_bypass $referred $cookie_sessionid;  # not out of the cache
        proxy_no_cache $referred $cookie_sessionid;      # and not into it
"""
DEFAULTS = RECIPE.replace(CAREFUL, "\n")
HEADERS_IGNORED = "proxy_ignore_headers Set-Cookie Cache-Control;"
QUERY_IGNORED = 'proxy_cache_key "$scheme$host$uri";'


def also(recipe: str, *directives: str) -> str:
    """``recipe`` with more directives beside ``proxy_cache``."""
    place = "proxy_cache portal;"
    assert recipe.count(place) == 1
    return recipe.replace(place, " ".join((place, *directives)))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    """A server, from its first accepted connection on."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def configuration(recipe: str, home: Path, port: int, portal: int) -> str:
    """The recipe with addresses of this machine's, within what every nginx needs."""
    for ours, theirs in {
        "/var/cache/nginx/portal": str(home / "cache"),
        "listen 80;": f"listen 127.0.0.1:{port};",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{portal};",
    }.items():
        assert recipe.count(ours) == 1
        recipe = recipe.replace(ours, theirs)
    temporary = "\n".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # who may read the directory
    return f"{user} daemon off; pid {home}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\n{recipe}\n}}\n"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """``serve(recipe)`` is the address of an nginx with that recipe before a portal."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.fail("No nginx: install it (Debian: apt-get install nginx-light), as .ci/services does.")
    with ExitStack() as servers:

        def start(recipe: str, **keys: object) -> str:
            portal, port = free_port(), free_port()
            file = tmp_path / "nginx.conf"
            file.write_text(configuration(recipe, tmp_path, port, portal))
            uvicorn = [sys.executable, "-m", "uvicorn", "tests.services.asgi:application", "--port", str(portal)]
            servers.enter_context(
                running(
                    [*uvicorn, "--lifespan", "off", "--ws", "none"],
                    portal,
                    tmp_path / "portal.log",
                    DATABASE_URL=running_url(),
                    DJANGO_SETTINGS_MODULE="tests.settings",
                    TEST_REFERRAL_SETTINGS=json.dumps(keys),
                )
            )
            # -e: else it tries its own log first, which may be another user's
            servers.enter_context(running([nginx, "-e", "stderr", "-c", str(file)], port, tmp_path / "nginx.log"))
            return f"http://127.0.0.1:{port}"

        yield start


class Visitor:
    """One browser."""

    def __init__(self, address: str, **cookies: str) -> None:
        self.address = address
        self.browser = requests.Session()
        self.browser.trust_env = False
        self.browser.cookies.update(cookies)

    def get(self, path: str) -> requests.Response:
        response = self.browser.get(self.address + path, timeout=PATIENCE, allow_redirects=False)
        assert response.status_code in (200, 302), response.text
        return response

    def look(self, path: str) -> tuple[str, set[str]]:
        """Whether the page came out of the cache, and which cookies it set."""
        response = self.get(path)
        return response.headers.get("X-Cache-Status", ""), set(response.cookies.keys())

    def sign_up(self, name: str, path: str = "/register/") -> None:
        response = self.browser.post(self.address + path, {"name": name, "login": "1"}, timeout=PATIENCE)
        assert response.status_code == 200, response.text


SAFE = {
    "nginx's defaults": DEFAULTS,
    "the recipe": RECIPE,
    "the recipe, headers ignored": also(RECIPE, HEADERS_IGNORED),
    "the recipe, the query ignored": also(RECIPE, QUERY_IGNORED),
    "the recipe, both ignored": also(RECIPE, QUERY_IGNORED, HEADERS_IGNORED),
}


@pytest.mark.parametrize("set_cookie", [False, True])
@pytest.mark.parametrize("set_up", SAFE)
def test_each_account_has_the_token_of_its_own_visitor(
    set_up: str, set_cookie: bool, serve: Callable[..., str]
) -> None:
    address = serve(SAFE[set_up], SET_COOKIE=set_cookie)
    early, anna, ben, cookie, late = (Visitor(address) for _ in range(5))
    cookie.browser.cookies["mmref"] = "tok-cookie"
    ours = {"sessionid", "mmref"} if set_cookie else {"sessionid"}
    assert early.look("/register/") == ("MISS", set())
    assert late.look("/register/") == ("HIT", set())
    for visitor, token in ((anna, "tok-anna"), (ben, "tok-ben")):
        status, cookies = visitor.look(f"/register/?mmref={token}")
        assert status in ("MISS", "BYPASS")
        assert cookies == ours
    # Somebody to whom Anna sent the address that she sees: a visitor like any, with a session of their own.
    friend = Visitor(address)
    assert friend.look("/register/?mmref=tok-anna") == (status, ours)
    assert friend.browser.cookies["sessionid"] != anna.browser.cookies["sessionid"]
    cookie.get("/register/")
    assert late.look("/register/") == ("HIT", set())
    everybody = {"early": early, "anna": anna, "ben": ben, "cookie": cookie, "late": late}
    for name, visitor in everybody.items():
        visitor.sign_up(name)
    assert referred() == {"anna": "tok-anna", "ben": "tok-ben", "cookie": "tok-cookie"}
    assert Visitor(address).look("/register/") == ("HIT", set())


def test_the_recipe_keeps_the_pages_of_members_to_themselves(serve: Callable[..., str]) -> None:
    address = serve(also(RECIPE, HEADERS_IGNORED))
    member = Visitor(address)
    member.sign_up("anna")
    assert member.look("/page/")[0] == "BYPASS"
    assert Visitor(address).look("/page/") == ("MISS", set())


def test_a_share_link_is_not_cached(serve: Callable[..., str]) -> None:
    address = serve(DEFAULTS.replace("proxy_cache_valid 200 10m;", "proxy_cache_valid any 10m;"))
    for _ in range(2):
        assert Visitor(address).look("/join/7/") == ("MISS", {"sessionid"})


# -- what docs/caching.md says of other set-ups, so that it stays true


def test_a_key_without_the_query_loses_tokens(serve: Callable[..., str]) -> None:
    address = serve(also(DEFAULTS, QUERY_IGNORED))
    anna = Visitor(address)
    Visitor(address).get("/register/")
    assert anna.look("/register/?mmref=tok-anna") == ("HIT", set())
    anna.sign_up("anna")
    assert referred() == {}


def test_headers_that_are_ignored_replay_a_session_at_its_address(serve: Callable[..., str]) -> None:
    address = serve(also(DEFAULTS, HEADERS_IGNORED))
    anna, ben, friend = (Visitor(address) for _ in range(3))
    anna.get("/register/?mmref=tok-anna")
    assert ben.look("/register/?mmref=tok-ben") == ("MISS", {"sessionid"})
    assert friend.look("/register/?mmref=tok-anna") == ("HIT", {"sessionid"})
    assert friend.browser.cookies["sessionid"] == anna.browser.cookies["sessionid"]


def test_both_give_one_visitors_session_to_all(serve: Callable[..., str]) -> None:
    address = serve(also(DEFAULTS, HEADERS_IGNORED, QUERY_IGNORED))
    anna, ben = Visitor(address), Visitor(address)
    anna.get("/register/?mmref=tok-anna")
    assert ben.look("/register/?mmref=tok-ben") == ("HIT", {"sessionid"})
    ben.sign_up("ben")
    assert referred() == {"ben": "tok-anna"}


def test_a_cached_share_link_gives_one_visitors_session_to_all(serve: Callable[..., str]) -> None:
    any_answer = DEFAULTS.replace("proxy_cache_valid 200 10m;", "proxy_cache_valid any 10m;")
    address = serve(also(any_answer, "proxy_ignore_headers Set-Cookie Cache-Control Expires;"))
    anna, ben = Visitor(address), Visitor(address)
    anna.get("/join/7/")
    assert ben.look("/join/7/")[0] == "HIT"
    assert ben.browser.cookies["sessionid"] == anna.browser.cookies["sessionid"]


def test_one_request_repeated_tells_a_good_set_up_from_a_bad_one(serve: Callable[..., str]) -> None:
    """As the page says: with a made-up token, each answer has to set another session, and to be private."""
    address = serve(DEFAULTS)
    answers = [Visitor(address).get("/register/?mmref=probe") for _ in range(2)]
    assert len({answer.cookies["sessionid"] for answer in answers}) == 2
    assert {answer.headers["Cache-Control"] for answer in answers} == {"private"}
