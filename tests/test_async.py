"""Many visitors at once behind a real ASGI server, and what an async view may do before it creates the account."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import pytest
import requests
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import HttpRequest, HttpResponse

from django_mmolove_referral.models import OutboundEvent

from . import portal
from .documented import names
from .pages import ROOT, code
from .served import served
from .visitors import Browser, accounts, referred, urls, written

pytestmark = pytest.mark.django_db(transaction=True)

BOB = "bob@example.com"


@pytest.mark.parametrize("url", ["/aregister/", "/register/"], ids=["async view", "sync view"])
def test_a_hundred_sign_ups_at_once_behind_uvicorn_each_get_their_own_token(url: str) -> None:
    crowd = range(100)
    together = threading.Barrier(len(crowd))

    def visit(n: int) -> tuple[int, str]:
        with requests.Session() as browser:
            browser.trust_env = False
            browser.get(f"{address}/page/?mmref=tok-{n}")
            together.wait(timeout=60)
            answer = browser.post(f"{address}{url}", data={"name": f"p{n}@example.com", "login": "1"})
            return answer.status_code, browser.cookies["sessionid"]

    # A database server has a hundred connections or so, and not all of them for this.
    with (
        served(at_once=1000 if connection.vendor == "sqlite" else 50) as address,
        ThreadPoolExecutor(len(crowd)) as pool,
    ):
        came = list(pool.map(visit, crowd))
    assert [status for status, _ in came] == [200] * len(crowd)
    assert referred() == {f"p{n}@example.com": f"tok-{n}" for n in crowd}
    assert OutboundEvent.objects.filter(kind="registered", state="pending").count() == len(crowd)
    # And each browser's session is its own account's, with nothing left of the token.
    store = import_module(django_settings.SESSION_ENGINE).SessionStore
    pks = dict(get_user_model()._default_manager.values_list(get_user_model().USERNAME_FIELD, "pk"))
    sessions = [store(cookie).load() for _, cookie in came]
    assert [session["_auth_user_id"] for session in sessions] == [str(pks[f"p{n}@example.com"]) for n in crowd]
    assert [session["mmolove_referral"].get("token") for session in sessions] == [None] * len(crowd)


# -- the documentation's own code


def test_the_documented_view_refers_the_account_and_logs_it_in(settings: Any) -> None:
    engine = dict(settings.TEMPLATES[0], APP_DIRS=False)
    page = {"register.html": "{{ form.errors }}"}
    loaders = [("django.template.loaders.locmem.Loader", page)]
    settings.TEMPLATES = [{**engine, "OPTIONS": {**engine["OPTIONS"], "loaders": loaders}}]
    settings.ROOT_URLCONF = urls(join=names(code("integrations/async.md", "async def register"))["register"])
    browser = Browser(asgi=True)
    browser.visit("tok-1")
    assert b"password2" in browser.post("/join/", username="bob").content
    answer = browser.post("/join/", username="bob", password1="dragon-9!", password2="dragon-9!")
    assert answer.headers["Location"] == "/welcome/"
    assert (referred(), written()) == ({"bob": "tok-1"}, [("bob", "registered")])
    assert "_auth_user_id" in browser.client.session


def test_the_documented_milestone_is_reported_once(settings: Any) -> None:
    level_up = names(code("integrations/async.md", "async def level_up"))["level_up"]

    async def play(request: HttpRequest) -> HttpResponse:
        for level in (9, 10, 11):
            await level_up(await request.auser(), level)
        return HttpResponse("played")

    settings.ROOT_URLCONF = urls(play=play)
    browser = Browser(asgi=True)
    browser.visit("tok-1")
    browser.sign_up(url="/aregister/", login="1")
    assert browser.get("/play/").content == b"played"
    assert written() == [(BOB, "registered"), (BOB, "qualified")]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite")
def test_these_tests_run_with_the_documented_options_of_sqlite() -> None:
    database = names(code("integrations/async.md", "transaction_mode"), BASE_DIR=ROOT)["DATABASES"]["default"]
    assert database["ENGINE"] == connection.settings_dict["ENGINE"]
    documented, used = database["OPTIONS"], connection.settings_dict["OPTIONS"]
    assert documented.keys() == used.keys()
    assert (documented["timeout"], documented["transaction_mode"]) == (used["timeout"], used["transaction_mode"])
    assert used["init_command"].startswith(documented["init_command"])  # and spares the tests the disk


# -- where the token is seen


async def in_a_task() -> None:
    await asyncio.create_task(sync_to_async(portal.create)(BOB))


async def in_a_copied_thread() -> None:
    await asyncio.to_thread(in_a_thread_of_its_own)


async def in_an_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, in_a_thread_of_its_own)


def in_a_thread_of_its_own() -> None:
    try:
        portal.create(BOB)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("create", "token"), [(in_a_task, "tok-1"), (in_a_copied_thread, "tok-1"), (in_an_executor, None)]
)
def test_an_account_is_referred_where_the_context_goes(
    create: Callable[[], Any], token: str | None, settings: Any
) -> None:
    async def register(request: HttpRequest) -> HttpResponse:
        await create()
        return HttpResponse("made")

    settings.ROOT_URLCONF = urls(make=register)
    browser = Browser(asgi=True)
    browser.visit("tok-1")
    assert browser.get("/make/").content == b"made"
    assert accounts() == {BOB}
    assert referred().get(BOB) == token
