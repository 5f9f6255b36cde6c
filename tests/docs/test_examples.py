"""The code in README, settings.md, signals.md, api.md, admin.md and operations.md, run as it stands there."""

from __future__ import annotations

import json
import logging
import logging.config
import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import django
import pytest
from celery import Celery
from celery.schedules import crontab
from django.contrib.admin import AdminSite
from django.contrib.auth import get_user_model
from django.core import mail
from django.db.utils import ConnectionHandler
from django.test import Client, RequestFactory
from django.urls import include, path, reverse

from django_mmolove_referral import attach_referral, checks, client, mark_qualified, mark_reversed, share_link, tasks
from django_mmolove_referral.conf import conf
from django_mmolove_referral.delivery import health
from django_mmolove_referral.delivery.drain import Tally
from django_mmolove_referral.delivery.dry_run import dry_run
from django_mmolove_referral.models import OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault
from django_mmolove_referral.sandbox.server import SandboxServer
from tests.factories import EventFactory
from tests.gameapp.models import Note, Purse
from tests.pages import code
from tests.portal import create
from tests.visitors import Browser

Run = Callable[..., dict[str, Any]]
Adopt = Callable[[dict[str, Any]], None]
Drain = Callable[..., Tally]
Players = tuple[Any, Any]


# -- README


def test_the_readme_s_app_and_middleware(run: Run, settings: Any) -> None:
    assert run(code("README.md", '"django_mmolove_referral",\n'))["INSTALLED_APPS"] == ["django_mmolove_referral"]
    settings.MIDDLEWARE = run(code("README.md", "ReferralMiddleware"))["MIDDLEWARE"]
    assert checks.check_middleware(None) == []


@pytest.mark.django_db
def test_the_readme_s_settings_and_urls(
    run: Run, adopt: Adopt, settings: Any, monkeypatch: pytest.MonkeyPatch, players: Players
) -> None:
    monkeypatch.setenv("MMOLOVE_REFERRAL_SECRET", "from-the-dashboard")
    adopt(run(code("README.md", '"SHARE_URL"')))
    assert conf.problems() == []
    names = run(code("README.md", "urlpatterns"), path=path, include=include)
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": names["urlpatterns"]})
    answer = Browser().get(share_link(players[0]))
    assert answer["Location"] == f"https://mmolove.com/r/your-server?ref={players[0].pk}"


@pytest.mark.django_db
def test_the_readme_s_milestone_and_reward(run: Run, sandbox: Sandbox, drain: Drain, players: Players) -> None:
    alice, bob = players
    purse = Purse.objects.create(owner=alice)
    block = code("README.md", "def give_gold")
    assert block.startswith("# yourapp/receivers.py")
    run(block, Purse=Purse, **run("from django.db.models import F"))
    attach_referral(bob, sandbox.mint("srv_test", "alice"), code=str(alice.pk))
    run(code("README.md", "mark_qualified(user)"), user=bob)
    drain()
    purse.refresh_from_db()
    assert purse.gold == 500


@pytest.mark.parametrize("secret", ["the-right-one", "an-old-one"])
def test_the_client_of_readme_and_api(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    core = Sandbox({"your-server-id": "the-right-one"})
    token, refused = core.mint("your-server-id", "alice"), secret != "the-right-one"
    with SandboxServer(core) as server:
        # The README's has no endpoint, as MMOLove's own is the default.
        local = partial(client.ReferralClient, endpoint=server.endpoint)
        monkeypatch.setattr(client, "ReferralClient", local)
        run(code("README.md", "ReferralClient("), secret=secret, token=token)
        printed = capsys.readouterr().out
        assert printed.startswith("401 False HTTP 401: ") if refused else printed == "200 True \n"
        run(code("api.md", "ReferralClient("), secret=secret, token=token, endpoint=server.endpoint)
        printed = capsys.readouterr().out
        assert printed.startswith("401 HTTP 401: ") if refused else printed == ""


# -- settings.md


def test_the_settings_that_most_portals_need(run: Run, adopt: Adopt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOLOVE_REFERRAL_SECRET", "from-the-dashboard")
    adopt(run(code("settings.md", "https://mmolove.com/r/your-server")))
    assert conf.problems() == []


def test_a_secret_from_a_file(run: Run, adopt: Adopt, sandbox: Sandbox, tmp_path: Path, settings: Any) -> None:
    endpoint = settings.MMOLOVE_REFERRAL["ENDPOINT"]
    adopt(run(code("settings.md", "/run/secrets/mmolove"), Path=lambda name: tmp_path / Path(name).name))
    settings.MMOLOVE_REFERRAL = {**settings.MMOLOVE_REFERRAL, "SERVER_ID": "srv_test", "ENDPOINT": endpoint}
    for written, passes in (("old", False), ("test-secret\n", True)):
        (tmp_path / "mmolove").write_text(written)
        assert dry_run("default", using=None, wake=False).passed is passes


@pytest.mark.django_db
def test_an_identity_and_a_code_of_one_s_own(run: Run, adopt: Adopt) -> None:
    adopt(run(code("settings.md", "REFEREE_IDENTITY")))
    alice, bob = create("alice"), create("bob")
    if hasattr(alice, "username"):
        assert share_link(alice) == "/join/alice/"
        assert attach_referral(bob, "a-token", code="alice").referrer == alice
    else:
        attach_referral(bob, "a-token")
    assert json.loads(bytes(OutboundEvent.objects.get().body))["referee_identity"] == f"acc-{bob.pk}"


def test_a_schedule_of_one_s_own(run: Run, adopt: Adopt) -> None:
    adopt(run(code("settings.md", "RETRY_SCHEDULE"), timedelta=timedelta))
    assert conf.problems() == []
    assert conf.retry_schedule == (30, 600, 3600, 21600)
    assert conf.probe_interval == (30, 600)


def test_two_servers(run: Run, adopt: Adopt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOLOVE_SECRET_CLASSIC", "one")
    monkeypatch.setenv("MMOLOVE_SECRET_HARDCORE", "two")
    adopt(run(code("settings.md", "RESOLVE_SERVER"), os=os))
    assert conf.problems() == []
    assert list(conf.servers) == ["classic", "hardcore"]
    assert conf.resolve_server is not None
    hosts = {host: conf.resolve_server(RequestFactory().get("/", headers={"host": host})) for host in ("hc.x", "www.x")}
    assert hosts == {"hc.x": "hardcore", "www.x": "classic"}


# -- signals.md


@pytest.mark.django_db
def test_gold_once_and_again_after_an_exception(run: Run, sandbox: Sandbox, drain: Drain, players: Players) -> None:
    alice, bob = players
    run(code("signals.md", "def give_gold"), Purse=Purse)
    attach_referral(bob, sandbox.mint("srv_test", "alice"), code=str(alice.pk))
    mark_qualified(bob)
    purse = Purse.objects.create(owner=alice)
    drain()
    drain()
    purse.refresh_from_db()
    assert (purse.gold, Reward.objects.get().state) == (500, "granted")


@pytest.fixture
def mailed(settings: Any) -> list[Any]:
    """What staff gets by mail."""
    settings.ADMINS = ["staff@example.com"] if django.VERSION >= (6, 0) else [("Staff", "staff@example.com")]
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    outbox: list[Any] = mail.outbox
    return outbox


@pytest.mark.django_db(transaction=True)
def test_mails_to_staff(
    run: Run, configure: Callable[..., None], sandbox: Sandbox, drain: Drain, mailed: list[Any]
) -> None:
    configure(RETRY_SCHEDULE=[0.001], PROBE_INTERVAL=0.001)
    run(code("signals.md", "mail_admins"))

    def sign_up(name: str) -> None:
        attach_referral(create(f"{name}@example.com"), sandbox.mint("srv_test", "alice"))

    sandbox.script(Fault(status=400, body={"error": "malformed"}))
    sign_up("rejected")
    drain()
    sandbox.script(Fault(status=500), times=2)
    sign_up("exhausted")
    drain()
    drain()
    sandbox.script(Fault(status=500), times=None)
    for number in range(conf.pause_after):
        sign_up(f"paused{number}")
    drain()
    sandbox.clear_faults()
    health.probe_soon("default", using="default")
    drain()
    said = " ".join(message.subject for message in mailed)
    for words in ("is rejected", "is exhausted", "Deliveries to default pause", "Deliveries to default go on"):
        assert words in said


@pytest.mark.django_db(transaction=True)
def test_news_of_a_referral(run: Run, sandbox: Sandbox, drain: Drain, players: Players) -> None:
    alice, bob = players
    run(code("signals.md", "referral_captured"), Note=Note)
    attach_referral(bob, sandbox.mint("srv_test", "alice"), code=str(alice.pk))
    drain()
    known = Referral.objects.get().referral_id
    mark_reversed(bob)
    carol = create("carol@example.com")
    rival = sandbox.mint("srv_test", "dave")
    attach_referral(carol, rival)
    drain()
    assert known
    said = [note.text for note in Note.objects.order_by("pk")]
    assert f"{bob} came by a link of {alice}" in said
    assert f"MMOLove calls it {known}" in said
    assert f"what {alice} got for {bob} is to be taken back" in said


@pytest.mark.django_db(transaction=True)
def test_news_of_a_conflict(run: Run, sandbox: Sandbox, drain: Drain, players: Players) -> None:
    bob = players[1]
    run(code("signals.md", "referral_conflict"), Note=Note)
    attach_referral(bob, sandbox.mint("srv_test", "alice"))
    drain()
    Referral.objects.all().delete()  # MMOLove knows Bob by Alice's link, and now another one's comes
    attach_referral(bob, sandbox.mint("srv_test", "dave"))
    drain()
    assert Note.objects.filter(text=f"{bob} belongs to somebody else: first_touch_conflict").exists()


# -- api.md


@pytest.mark.django_db
def test_the_verbs(run: Run, players: Players) -> None:
    alice, bob = players
    block = code("api.md", 'code="7"').replace('"7"', repr(str(alice.pk)))
    names = run(block, user=bob, token="a-token")
    assert (names["referral"].referrer, names["event"].kind) == (alice, "qualified")
    assert names["link"] == f"/join/{alice.pk}/"
    names["referral"].refresh_from_db()
    assert names["referral"].state == "reversed"


@pytest.mark.django_db
def test_reading_the_models(run: Run, sandbox: Sandbox, drain: Drain, players: Players) -> None:
    alice, bob = players
    attach_referral(bob, sandbox.mint("srv_test", "alice"), code=str(alice.pk))
    mark_qualified(bob)
    drain()
    names = run(code("api.md", "mmolove_invited"), user=alice)
    assert (names["brought"], names["owed"]) == (1, 1), "nobody grants it here"


# -- admin.md


@pytest.mark.django_db
def test_the_inline_and_a_site_of_one_s_own(
    run: Run, settings: Any, players: Players, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = players
    site = AdminSite(name="own")
    registered = run(code("admin.md", "site.register(OutboundEvent"), site=site, OutboundEvent=OutboundEvent)
    for model, admin in ((Referral, "ReferralAdmin"), (Reward, "RewardAdmin"), (ServerHealth, "ServerHealthAdmin")):
        site.register(model, registered[admin])
    named = hasattr(bob, "username")  # Django's UserAdmin is for users that have one
    if named:
        site.register(get_user_model())
        monkeypatch.setattr("django.contrib.admin.site", site)
        run(code("admin.md", "inlines = [ReferralInline]"))
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": [path("own/", site.urls)]})
    attach_referral(bob, "a-token", code=str(alice.pk))
    get_user_model()._default_manager.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
    browser = Client()
    browser.force_login(alice)
    page = browser.get(reverse("own:mmolove_referral_outboundevent_changelist"))
    assert f"reg-{bob.pk}" in page.content.decode()
    if named:
        page = browser.get(reverse("own:auth_user_change", args=[bob.pk]))
        assert "Mark qualified" in page.content.decode()


# -- operations.md


def test_celery_s_settings(run: Run, adopt: Adopt, celery_app: Celery) -> None:
    names = run(code("operations.md", "CELERY_TASK_ROUTES"))
    adopt(names)
    assert (conf.problems(), conf.dispatch) == ([], "celery")
    celery_app.conf.beat_schedule, celery_app.conf.task_routes = (
        names["CELERY_BEAT_SCHEDULE"],
        names["CELERY_TASK_ROUTES"],
    )
    assert checks.check_sweep(None) == []
    routed = celery_app.amqp.router.route({}, tasks.deliver.name)
    assert routed["queue"].name == "mmolove"


@pytest.mark.django_db  # which lets it ask a database at all
def test_sqlite_s_options(run: Run, tmp_path: Path) -> None:
    databases = run(code("operations.md", "transaction_mode"), BASE_DIR=tmp_path)["DATABASES"]
    handler = ConnectionHandler(databases)
    with handler["default"].cursor() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert cursor.execute("PRAGMA busy_timeout").fetchone() == (20_000,)
    mode: Any = handler["default"]
    assert mode.transaction_mode == "IMMEDIATE"
    handler["default"].close()


@pytest.mark.django_db
def test_pruning_from_beat(run: Run) -> None:
    entry = run(code("operations.md", "mmolove-prune"), crontab=crontab)["CELERY_BEAT_SCHEDULE"]["mmolove-prune"]
    assert entry["task"] == tasks.prune.name
    assert entry["schedule"] == crontab(hour=4, minute=30)
    EventFactory.create()
    tasks.prune(**entry["kwargs"])
    assert OutboundEvent.objects.count() == 1, "too young"


@pytest.mark.django_db
def test_the_log_in_a_file_and_by_mail(
    run: Run, mailed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("mmolove_referral")
    before = logger.handlers[:], logger.level
    logging.config.dictConfig({**run(code("operations.md", "LOGGING"))["LOGGING"], "incremental": False})
    try:
        health.pause("default", "HTTP 401: bad_signature", using="default")
        health.reopen("default", using="default")
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers, logger.level = before
    written = (tmp_path / "referrals.log").read_text()
    assert "WARNING mmolove_referral.delivery Delivery to MMOLove server 'default' pauses" in written
    assert "INFO mmolove_referral.delivery Delivery to MMOLove server 'default' goes on." in written
    assert len(mailed) == 1


# -- quickstart.md


def test_an_existing_portal_s_urls(run: Run, settings: Any) -> None:
    names = run(code("quickstart.md", "# /join/<code>/"), path=path, include=include)
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": names["urlpatterns"]})
    assert reverse("mmolove_referral:join", args=["7"]) == "/join/7/"
