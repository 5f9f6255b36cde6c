"""``mmolove_doctor``: each thing that can be wrong is found, named and cured; nothing breaks it off, nothing leaks."""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
import trustme
from celery import Celery
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from django.utils import timezone

from django_mmolove_referral import advice, attach_referral, doctor, tasks
from django_mmolove_referral.conf import conf
from django_mmolove_referral.delivery import dispatch, health, life
from django_mmolove_referral.delivery.dry_run import dry_run
from django_mmolove_referral.delivery.failing import failing
from django_mmolove_referral.delivery.rewards import NO_RECEIVER
from django_mmolove_referral.doctor import needs
from django_mmolove_referral.models import Heartbeat, OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault
from tests import portal
from tests.clock import let_pass
from tests.conftest import SECRET, Granted
from tests.factories import EventFactory, RewardFactory
from tests.peers import Peer, answers, http
from tests.portal import create

Configure = Callable[..., None]
Found = dict[str, dict[str, Any]]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("debugging")]

HOST = socket.gethostname()
HEALTHY = {
    "settings.ok",
    "middleware.ok",
    "sessions.ok",
    "share_links.ok",
    "migrations.ok",
    "endpoint.reached",
    "clock.ok",
    "dry_run.passed",
    "server.open",
    "backlog.ok",
    "dispatcher.alive",
    "rewards.ok",
}


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output."""
    out = StringIO()
    try:
        call_command("mmolove_doctor", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def examined(*arguments: str) -> dict[str, Any]:
    """The JSON object, checked for what holds of every one."""
    code, text = run("--json", *arguments)
    told: dict[str, Any] = json.loads(text)
    assert set(told) == {"ok", "errors", "warnings", "host", "findings"}
    found = told["findings"]
    assert all(set(finding) == {"id", "severity", "seen", "cure", "server"} for finding in found)
    assert all(bool(finding["cure"]) == (finding["severity"] != "ok") for finding in found)
    assert all(finding["seen"] and "%" not in finding["id"] for finding in found)
    severities = [finding["severity"] for finding in found]
    assert (told["errors"], told["warnings"]) == (severities.count("error"), severities.count("warning"))
    assert told["ok"] is (told["errors"] == 0)
    assert code == (0 if told["ok"] else 1)
    assert told["host"] == HOST
    assert SECRET not in text
    return told


def findings(*arguments: str) -> Found:
    found = examined(*arguments)["findings"]
    assert len({(finding["id"], finding["server"]) for finding in found}) == len(found)
    return {finding["id"]: finding for finding in found}


def wrong(*arguments: str) -> dict[str, str]:
    """What is not well: id → severity."""
    return {name: finding["severity"] for name, finding in findings(*arguments).items() if finding["severity"] != "ok"}


@pytest.fixture
def alive(granted: Granted, drain: Callable[..., Any], sandbox: Sandbox) -> None:
    """A portal on which all is well: a receiver, a sandbox that answers, and delivery that ran a moment ago."""
    call_command("mmolove_deliver", "--once", stdout=StringIO())


@pytest.fixture
def serve(configure: Callable[..., None]) -> Iterator[Callable[..., Peer]]:
    """``serve(script)`` is a peer in MMOLove's place."""
    peers: list[Peer] = []

    def start(script: Any, tls: ssl.SSLContext | None = None) -> Peer:
        peers.append(Peer(script, tls))
        configure(ENDPOINT=peers[-1].url, DEADLINE=5)
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


# -- all is well


def test_the_docs_list_every_id() -> None:
    package = Path(doctor.__file__).parent
    code = "\n".join(path.read_text("utf-8") for path in package.glob("*.py"))
    written = set(re.findall(r'"((?!mmolove_|django_)[a-z_]+\.[a-z_]+)"', code)) | {
        "events.rejected",
        "events.exhausted",
    }
    docs = (package.parents[1] / "docs" / "operations.md").read_text("utf-8")
    section = docs.partition("\n## What is wrong?\n")[2].partition("\n## ")[0]
    listed = set()
    for row in re.findall(r"^\| (`[a-z_]+\.[a-z_]+`.*?) \|", section, re.MULTILINE):
        area = ""
        for start, name in re.findall(r"`([a-z_]*)\.([a-z_]+)`", row):
            area = start or area
            listed.add(f"{area}.{name}")
    assert listed == written


def test_a_portal_on_which_all_is_well(alive: None) -> None:
    found = findings()
    assert set(found) == HEALTHY
    assert {finding["severity"] for finding in found.values()} == {"ok"}


def test_what_is_well_takes_a_line_each(alive: None) -> None:
    code, text = run()
    assert code == 0
    assert "ok       MMOLove accepted the test event: address, server id, secret and clock are right.\n" in text
    assert f"ok       The clock of {HOST} agrees with MMOLove's.\n" in text
    assert text.endswith("\n\n0 errors, 0 warnings, 12 ok.\n")
    assert "->" not in text


def test_offline_sends_nothing(alive: None, sandbox: Sandbox) -> None:
    before = len(sandbox.log)
    found = findings("--offline")
    assert set(found) == HEALTHY - {"endpoint.reached", "clock.ok", "dry_run.passed"}
    assert len(sandbox.log) == before


def test_the_doctor_does_not_deliver(
    alive: None, sandbox: Sandbox, configure: Callable[..., None], mint: Callable[..., str]
) -> None:
    """Its process ends at once: what it had claimed would wait for the lease. Nor is it a sign of life."""
    attach_referral(create("bob@example.com"), mint())
    configure(DISPATCH="thread")
    Heartbeat.objects.all().delete()
    dispatch.thread.forced = True
    try:
        assert "dispatcher.silent" in findings()
        assert not dispatch.thread.running
    finally:
        dispatch.thread.forced = False
    assert OutboundEvent.objects.get().state == "pending"


# -- settings, middleware, sessions, share links


def test_missing_settings(settings: Any, monkeypatch: pytest.MonkeyPatch, granted: Granted) -> None:
    monkeypatch.delenv("MMOLOVE_SERVER_ID", raising=False)
    settings.MMOLOVE_REFERRAL = {"DISPATCH": "manual"}
    found = findings()
    assert found["settings.missing"]["severity"] == "error"
    assert found["settings.missing"]["seen"] == (
        "MMOLOVE_REFERRAL['SERVER_ID'] is missing. Put the server's id from the MMOLove dashboard there, as a string, "
        "or into the environment variable MMOLOVE_SERVER_ID."
    )
    assert "settings.ok" not in found
    assert "dry_run.passed" not in found


@pytest.mark.parametrize(
    "value",
    ["srv_1", {"SERVERS": 5}, {"SERVER_ID": "x", "SECRET": "y", "SERVERS": {"a b": {}}}, ["SERVER_ID"]],
    ids=repr,
)
def test_unreadable_settings_are_findings(value: Any, settings: Any, granted: Granted) -> None:
    settings.MMOLOVE_REFERRAL = value
    found = findings()
    assert found["settings.wrong"]["severity"] == "error"
    assert {"middleware.ok", "sessions.ok", "migrations.ok"} <= set(found)
    assert "doctor.failed" not in found


@pytest.mark.parametrize("key", ["DISPATCH", "DEADLINE", "LEASE", "SWEEP_INTERVAL", "VERIFY", "RETRY_SCHEDULE"])
def test_each_wrong_setting_is_named(key: str, configure: Callable[..., None], alive: None) -> None:
    configure(**{key: -1})
    found = findings()
    assert f"MMOLOVE_REFERRAL['{key}'] must be" in found["settings.wrong"]["seen"]
    assert "doctor.failed" not in found


def test_a_secret_that_cannot_be_read(configure: Callable[..., None], alive: None) -> None:
    def vault() -> str:
        raise OSError(f"vault://root:{SECRET}@vault is sealed")

    configure(SECRET=vault)
    found = findings()
    assert found["settings.wrong"]["seen"] == "MMOLOVE_REFERRAL['SECRET'] is a callable that raised OSError."


SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
OURS = "django_mmolove_referral.middleware.ReferralMiddleware"
CACHE = "django.middleware.cache.FetchFromCacheMiddleware"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([SESSION], {"middleware.missing": "error"}),
        ([OURS, SESSION], {"middleware.order": "error"}),
        ([SESSION, CACHE, OURS], {"middleware.order": "warning"}),
        ([OURS], {"sessions.missing": "error"}),
    ],
)
def test_the_middleware(order: list[str], said: dict[str, str], alive: None, settings: Any) -> None:
    settings.MIDDLEWARE = order
    assert wrong() == said
    assert repr(OURS) in findings()[next(iter(said))]["cure"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"}, {}),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}, {"sessions.volatile": "warning"}),
        ({"SESSION_ENGINE": "portal.sessions"}, {"sessions.failed": "error"}),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, {"sessions.strict": "warning"}),
    ],
)
def test_the_sessions(changes: dict[str, Any], said: dict[str, str], alive: None) -> None:
    with override_settings(**changes):
        assert wrong() == said


def test_no_share_links(alive: None, configure: Callable[..., None], settings: Any) -> None:
    configure(SHARE_URL=None)
    found = findings()
    assert found["share_links.no_url"]["severity"] == "warning"
    assert "MMOLOVE_REFERRAL['SHARE_URL']" in found["share_links.no_url"]["cure"]
    settings.ROOT_URLCONF = "tests.bare_urls"
    found = findings()
    assert found["share_links.no_path"]["severity"] == "warning"
    assert not [finding for finding in needs() if finding.id.startswith("share_links")], "a portal may do without"
    assert 'include("django_mmolove_referral.urls")' in found["share_links.no_path"]["cure"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"COOKIE_NAME": "sessionid"}, {"settings.name_taken": "error"}),
        ({"SERVERS": {"eu": {"SERVER_ID": "srv_test", "SECRET": SECRET}}}, {"settings.doubled": "warning"}),
        ({"REFEREE_IDENTITY": "email"}, {"accounts.identity": "warning"}),
        ({"REFERRER_CODE": "email"}, {"accounts.code": "warning"}),
        ({"REFEREE_IDENTITY": "player_no"}, {"accounts.attribute": "error"}),
    ],
)
def test_what_the_checks_say_is_told(
    keys: dict[str, Any], said: dict[str, str], alive: None, sandbox: Sandbox, configure: Configure
) -> None:
    if "SERVERS" in keys:
        default = conf.server("default")
        keys["SERVERS"]["eu"] |= {"ENDPOINT": default.endpoint, "SHARE_URL": default.share_url}
    configure(**keys)
    assert wrong() == said


def test_a_placeholder_is_not_complete(alive: None, configure: Configure) -> None:
    configure(SECRET="change-me", ENDPOINT="https://mmolove.invalid/")
    found = findings("--offline")
    assert found["settings.placeholder"]["severity"] == "error"
    assert "settings.ok" not in found


def test_what_only_matters_in_production(
    alive: None, settings: Any, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(SHARE_URL="https://mmolove.example/r/srv_test")
    sandbox_pages = path("sandbox/", include("django_mmolove_referral.sandbox.urls"))
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": [*portal.urlpatterns, sandbox_pages]})
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    of_sqlite = {"database.readers_first": "warning"} if connection.vendor == "sqlite" else {}
    settings.DEBUG, settings.SILENCED_SYSTEM_CHECKS = False, []
    assert wrong() == {"sandbox.public": "warning", "sandbox.configured": "warning", **of_sqlite}
    settings.SILENCED_SYSTEM_CHECKS = ["mmolove_referral.W024", "mmolove_referral.W025"]
    assert wrong() == of_sqlite
    settings.DEBUG = True
    assert wrong() == {}


def test_sessions_whose_table_nobody_makes(alive: None, settings: Any) -> None:
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django.contrib.sessions"]
    assert wrong()["sessions.failed"] == "error"
    assert "'django.contrib.sessions'" in findings()["sessions.failed"]["cure"]


def test_celery_whose_wake_ups_nobody_hears(alive: None, celery_app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    celery_app.conf.task_always_eager = True
    assert wrong()["celery.no_worker"] == "error"
    monkeypatch.setattr(dispatch.celery, "app", Celery("default", set_as_current=False))
    assert wrong()["celery.no_app"] == "error"


def test_celery_whose_broker_nobody_started(alive: None, celery_app: Celery) -> None:
    found = findings()["celery.unreachable"]
    assert found["severity"] == "error"
    assert found["seen"].startswith("The broker, amqp://guest@127.0.0.1:9//, cannot be reached: ")
    assert "python -m pip install redis" in found["cure"]
    assert "celery.unreachable" not in findings("--offline")


def test_celery_whose_broker_has_no_client_library(
    alive: None, celery_app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it were not installed, where it is.
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "kombu.transport.redis", raising=False)
    monkeypatch.setattr("kombu.transport._transport_cache", {})
    app = Celery("portal", broker="redis://:sesame@127.0.0.1:9/0", set_as_current=False)
    monkeypatch.setattr(dispatch.celery, "app", app)
    found = findings()["celery.unreachable"]
    assert "edis" in found["seen"].partition("cannot be reached")[2]
    assert "sesame" not in found["seen"]


def test_a_worker_without_the_secret_is_not_alive(
    granted: Granted, sandbox: Sandbox, configure: Callable[..., None]
) -> None:
    configure(SECRET="")
    call_command("mmolove_deliver", "--once", stdout=StringIO(), stderr=StringIO())
    configure(SECRET=SECRET)  # the shell in which the doctor runs has it
    found = findings()
    assert found["dispatcher.silent"]["seen"] == "Nothing has ever delivered here (DISPATCH = 'manual')."
    assert "“Nothing is delivered”" in found["dispatcher.silent"]["cure"]


def test_unverified_tls_is_pointed_out(alive: None, configure: Callable[..., None]) -> None:
    configure(VERIFY=False)
    assert wrong() == {"tls.unverified": "warning"}


# -- the way to MMOLove


def test_a_name_that_does_not_resolve(alive: None, configure: Callable[..., None]) -> None:
    configure(ENDPOINT="https://mmolove.invalid/api/referral/events")
    found = findings()
    assert found["dns.failed"]["severity"] == "error"
    assert "could not resolve the name mmolove.invalid" in found["dns.failed"]["seen"]
    assert "mmolove.invalid" in found["dns.failed"]["cure"]
    assert not {"endpoint.reached", "clock.ok", "server.open"} & set(found)


def test_nobody_listens(alive: None, configure: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    configure(ENDPOINT=f"http://127.0.0.1:{port}/")
    assert f"could not connect to 127.0.0.1:{port}" in findings()["connect.failed"]["seen"]


def test_a_certificate_that_nobody_vouches_for(
    alive: None, serve: Callable[..., Peer], configure: Callable[..., None], tmp_path: Path
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    serve(answers(http(200, b'{"ok":true,"test":true}')), context)
    found = findings()
    assert found["tls.failed"]["severity"] == "error"
    assert "TLS certificate of localhost not accepted" in found["tls.failed"]["seen"]
    assert "MMOLOVE_REFERRAL['VERIFY']" in found["tls.failed"]["cure"]

    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    configure(VERIFY=str(tmp_path / "ca.pem"))
    assert "dry_run.passed" in findings()

    configure(VERIFY=str(tmp_path / "gone.pem"))
    found = findings()
    assert "no CA certificates could be read from" in found["tls.failed"]["seen"]
    assert found["tls.failed"]["cure"].startswith("Set MMOLOVE_REFERRAL['VERIFY'] to True")


def test_https_to_a_peer_that_speaks_none(alive: None, sandbox: Sandbox, configure: Callable[..., None]) -> None:
    configure(ENDPOINT=conf.server("default").credentials().endpoint.replace("http://", "https://"))
    found = findings()
    assert "no TLS with 127.0.0.1" in found["tls.failed"]["seen"]
    assert "MMOLOVE_REFERRAL['ENDPOINT']" in found["tls.failed"]["cure"]


def test_an_answer_without_a_date(alive: None, serve: Callable[..., Peer]) -> None:
    serve(answers(http(200, b'{"ok":true,"test":true}')))
    assert wrong() == {"clock.unknown": "warning"}


@pytest.mark.parametrize(("drift", "words"), [(412, "behind"), (-412, "ahead of"), (90, "behind")])
def test_a_clock_that_is_off(drift: int, words: str, alive: None, sandbox: Sandbox) -> None:
    sandbox.clock = lambda: time.time() + drift
    found = findings()
    assert found["clock.skew"]["severity"] == "warning"
    assert re.fullmatch(rf"The clock of {re.escape(HOST)} is (\d+) s {words} MMOLove's\.", found["clock.skew"]["seen"])
    assert found["clock.skew"]["cure"] == "Have that host's clock set by NTP."
    # Delivery signs with the difference, so nothing is lost meanwhile; but nobody says that the clock was right.
    assert found["dry_run.passed"]["seen"].startswith(
        "MMOLove accepted the test event: address, server id and secret are right. The clock of "
    )


def test_the_clock_of_another_host(alive: None) -> None:
    ServerHealth.objects.update_or_create(
        server="default", defaults={"since": "2026-01-01T00:00Z", "clock_skew": -300, "clock_host": "worker-2"}
    )
    found = findings("--offline")
    assert found["clock.skew"]["seen"] == "The clock of worker-2 is 300 s ahead of MMOLove's."
    found = findings()
    assert (found["clock.ok"]["severity"], found["clock.skew"]["severity"]) == ("ok", "warning")


def test_a_wrong_secret_in_the_words_of_the_admin(alive: None, configure: Callable[..., None]) -> None:
    configure(SECRET="another-secret")
    told = examined()
    assert "another-secret" not in json.dumps(told)
    (refused,) = [finding for finding in told["findings"] if finding["severity"] == "error"]
    assert refused["id"] == "dry_run.refused"
    admins = advice.of_answer("default", 401, "HTTP 401: bad_signature", None)
    assert (refused["seen"], refused["cure"]) == (admins.cause, admins.cure)
    assert not [finding for finding in told["findings"] if finding["id"] == "server.open"]


@pytest.mark.parametrize(
    ("answer", "name", "severity"),
    [
        (http(404, b'{"error":"unknown token"}'), "dry_run.undecided", "warning"),
        (http(302, b"", Location="https://example.com/"), "dry_run.refused", "error"),
        (http(403, b"no"), "dry_run.refused", "error"),
        (http(429, b"no"), "dry_run.failed", "error"),
        (http(503, b"no"), "dry_run.failed", "error"),
        (http(200, b"<html>", Content_Type="text/html"), "dry_run.failed", "error"),
    ],
)
def test_other_answers(answer: bytes, name: str, severity: str, alive: None, serve: Callable[..., Peer]) -> None:
    serve(answers(answer))
    found = findings()
    assert found[name]["severity"] == severity
    result = dry_run("default", using="default")
    admins = advice.of_dry_run(result, None)
    assert (found[name]["seen"], found[name]["cure"]) == (admins.cause, admins.cure)


def test_an_answer_that_never_comes(alive: None, serve: Callable[..., Peer], configure: Callable[..., None]) -> None:
    serve(lambda caller: caller.hold())
    configure(DEADLINE=0.3)
    found = findings()
    assert found["dry_run.failed"]["seen"] == (
        "No complete answer came from MMOLove: no answer from 127.0.0.1 within 0.3 s."
    )
    assert "endpoint.reached" not in found


def test_one_server_of_several(alive: None, configure: Callable[..., None]) -> None:
    other = {"SERVER_ID": "srv_eu", "SECRET": "eu-secret", "ENDPOINT": "http://127.0.0.1:9/"}
    configure(SERVERS={"eu": other})
    told = examined()
    assert "eu-secret" not in json.dumps(told)
    failed = {(finding["id"], finding["server"]) for finding in told["findings"] if finding["severity"] == "error"}
    assert failed == {("connect.failed", "eu")}
    assert ("dry_run.passed", "default") in {(finding["id"], finding["server"]) for finding in told["findings"]}
    assert "error" not in {finding["severity"] for finding in examined("--server", "default")["findings"]}
    assert "error    connect.failed: " in run("--server", "eu")[1]
    assert " [eu]\n" in run("--server", "eu")[1]


def test_an_unknown_server_is_named() -> None:
    with pytest.raises(CommandError, match="There is no server 'atlantis'"):
        run("--server", "atlantis")


# -- what delivers, and what waits


@pytest.mark.parametrize(
    ("dispatch", "cure"),
    [
        ("thread", "Open a page of the portal"),
        ("celery", "Start a worker for the tasks mmolove_referral.*"),
        ("manual", "Start python manage.py mmolove_deliver --loop"),
    ],
)
def test_nothing_delivers(
    dispatch: str, cure: str, granted: Granted, sandbox: Sandbox, configure: Callable[..., None]
) -> None:
    configure(DISPATCH=dispatch)
    silent = findings()["dispatcher.silent"]
    assert silent["severity"] == "warning", "as long as nothing waits for it"
    assert silent["seen"] == f"Nothing has ever delivered here (DISPATCH = '{dispatch}')."
    assert silent["cure"].startswith(cure)
    EventFactory.create()
    let_pass(100)
    assert wrong()["dispatcher.silent"] == "warning", "an event may be due for a moment"
    let_pass(100)
    said = wrong()
    assert (said["dispatcher.silent"], said["backlog.old"]) == ("error", "error")
    assert findings()["backlog.old"]["seen"] == "1 event is to be sent, due for 3 minutes."


def test_a_worker_that_fell_silent(alive: None) -> None:
    Heartbeat.objects.update(kind="loop", host="worker-2")
    let_pass(119)
    assert findings()["dispatcher.alive"]["seen"] == (
        "The last to deliver was mmolove_deliver --loop, 119 s ago, on host worker-2 (DISPATCH = 'manual')."
    )
    let_pass(7200)
    assert findings()["dispatcher.silent"]["seen"].startswith(
        "The last to deliver was mmolove_deliver --loop, 2 hours ago, on host worker-2"
    )


def test_cron_may_take_its_time(alive: None) -> None:
    let_pass(3500)
    EventFactory.create()
    let_pass(200)
    assert wrong() == {"dispatcher.silent": "warning"}
    let_pass(3600)
    assert wrong() == {"dispatcher.silent": "error", "backlog.old": "error"}


def test_a_due_reward_is_work_that_waits(granted: Granted, sandbox: Sandbox) -> None:
    RewardFactory.create()
    let_pass(200)
    assert wrong() == {"dispatcher.silent": "error"}


def test_celery_without_its_sweep(
    granted: Granted, sandbox: Sandbox, celery_app: Celery, mint: Callable[..., str]
) -> None:
    tasks.deliver()
    assert wrong("--offline") == {"sweep.unscheduled": "warning", "sweep.silent": "warning"}
    assert findings()["sweep.silent"]["seen"] == "Beat's sweep has never run."
    assert "mmolove_referral.sweep" in findings()["sweep.unscheduled"]["cure"]
    celery_app.conf.beat_schedule = {"mmolove": {"task": "mmolove_referral.sweep", "schedule": 30.0}}
    attach_referral(create("bob@example.com"), mint())
    let_pass(200)
    assert wrong("--offline") == {"dispatcher.silent": "error", "sweep.silent": "error", "backlog.old": "error"}
    celery_app.conf.beat_schedule = {}
    tasks.sweep()  # a schedule in the database, say
    assert wrong("--offline") == {}
    assert findings()["sweep.alive"]["seen"] == f"Beat's sweep ran 0 s ago, on host {HOST}."
    let_pass(300)
    assert findings()["sweep.silent"]["seen"] == "Beat's sweep last ran 5 minutes ago."


def test_a_paused_server(alive: None, sandbox: Sandbox, mint: Callable[..., str]) -> None:
    attach_referral(create("bob@example.com"), mint())
    sandbox.outage()
    health.pause("default", "HTTP 503", using="default")
    row = ServerHealth.objects.get()
    found = findings()
    admins = advice.of_server(conf.server("default"), row)
    assert (found["server.paused"]["seen"], found["server.paused"]["cure"]) == (admins.cause, admins.cure)
    assert wrong() == {"dry_run.failed": "error", "server.paused": "error"}
    let_pass(4000)
    said = wrong()
    assert said["backlog.old"] == "warning", "the outage is to blame, and nothing waits for a worker"
    assert said["dispatcher.silent"] == "warning"

    sandbox.clear_faults()
    assert findings()["server.paused"]["severity"] == "warning"
    life.forget()
    call_command("mmolove_deliver", "--once", stdout=StringIO())
    assert set(findings()) == HEALTHY


def test_a_fresh_portal_is_not_said_to_deliver(alive: None) -> None:
    assert findings("--offline")["server.open"]["seen"] == "Nothing has been delivered to it yet."


def test_the_first_fault_of_an_outage(
    alive: None, sandbox: Sandbox, mint: Callable[..., str], drain: Callable[..., Any]
) -> None:
    attach_referral(create("bob@example.com"), mint())
    sandbox.script(Fault(status=503))
    drain()
    assert wrong("--offline") == {"delivery.failing": "warning"}
    told = findings("--offline")
    assert "server.open" not in told
    admins = advice.of_server(conf.server("default"), None, failing("default", None))
    assert (told["delivery.failing"]["seen"], told["delivery.failing"]["cure"]) == (admins.cause, admins.cure)
    assert findings()["delivery.failing"]["cure"].startswith("Nothing is to be done: the dry run has just passed")
    sandbox.outage()
    assert wrong() == {"dry_run.failed": "error"}, "which says how it stands now"
    sandbox.clear_faults()
    let_pass(60)
    drain()
    assert findings("--offline")["server.open"]["seen"] == "Delivery works as far as is known."


def test_what_failed_is_counted(alive: None) -> None:
    EventFactory.create_batch(2, state="rejected", last_status=404)
    EventFactory.create(state="exhausted", last_status=503)
    assert wrong() == {"events.rejected": "warning", "events.exhausted": "warning"}
    found = findings()
    assert found["events.rejected"]["seen"] == "2 events were rejected by MMOLove."
    assert "python manage.py mmolove_redeliver --state rejected --server default" in found["events.rejected"]["cure"]
    assert found["events.exhausted"]["seen"] == "1 event was tried for the whole retry schedule, in vain."


def test_counts_end_somewhere(alive: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.doctor.delivery.CAP", 2)
    EventFactory.create_batch(3, state="rejected")
    assert findings()["events.rejected"]["seen"] == "over 2 events were rejected by MMOLove."


@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("failed", [0, 1])
def test_however_many_rows_there_are_each_query_reads_so_many(failed: int) -> None:
    """Of the tables that grow, the first entries of an index, or a count that ends somewhere."""
    RewardFactory.create(attempts=failed)
    EventFactory.create(attempts=failed, attempted_at=timezone.now() if failed else None)
    needed = []
    for _more in range(2):
        for server in ("default", "atlantis"):
            for state in OutboundEvent.State.values:
                EventFactory.create(referral__server=server, state=state)
        with CaptureQueriesContext(connection) as queries:
            assert "server.unknown" in wrong("--offline")
        growing = [
            query["sql"]
            for query in queries
            if re.search(r"mmolove_referral_(outboundevent|reward|referral|deliveryattempt)\b", query["sql"])
        ]
        assert len(growing) >= 10
        assert [sql for sql in growing if "LIMIT" not in sql or "DISTINCT" in sql] == []
        needed.append(len(queries))
    assert needed[0] == needed[1]


def test_servers_that_were_removed_are_told_up_to_a_limit(alive: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.doctor.delivery.STRANGERS", 2)
    for server in ("atlantis", "eldorado", "zion"):
        EventFactory.create_batch(2, referral__server=server, state="waiting")
    told = [finding for finding in examined("--offline")["findings"] if finding["id"] == "server.unknown"]
    assert [finding["server"] for finding in told] == ["atlantis", "eldorado"]
    assert {finding["seen"].split()[0] for finding in told} == {"2"}


def test_servers_that_were_removed_do_not_matter_once_nothing_waits(alive: None) -> None:
    for state in ("accepted", "rejected", "exhausted", "cancelled"):
        EventFactory.create(referral__server="atlantis", state=state)
    EventFactory.create(state="accepted")
    assert wrong("--offline") == {}


def test_a_failing_reward_is_found_behind_others(alive: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_mmolove_referral.doctor.delivery.CAP", 2)
    later = timezone.now() + timedelta(minutes=5)
    RewardFactory.create(attempts=1, last_error="IntegrityError: no purse.", due_at=later)
    RewardFactory.create_batch(4)
    assert findings()["rewards.failing"]["seen"] == (
        "1 reward could not be granted, because of IntegrityError: no purse."
    )


def test_events_of_a_server_that_was_removed(alive: None) -> None:
    EventFactory.create(referral__server="atlantis")
    EventFactory.create(referral__server="atlantis", state="accepted")
    found = findings()
    assert found["server.unknown"]["server"] == "atlantis"
    assert found["server.unknown"]["seen"] == (
        "1 event waits for the server 'atlantis', which the settings do not have."
    )
    assert "MMOLOVE_REFERRAL['SERVERS']['atlantis']" in found["server.unknown"]["cure"]


def test_what_waits_for_its_next_try(alive: None) -> None:
    EventFactory.create()
    let_pass(-100)
    assert findings()["backlog.ok"]["seen"] == "No event is due; 1 waits for its next try."


# -- rewards


def test_rewards_without_a_receiver(sandbox: Sandbox) -> None:
    call_command("mmolove_deliver", "--once", stdout=StringIO())
    assert wrong() == {"rewards.no_receiver": "warning"}
    RewardFactory.create()
    assert wrong() == {"rewards.no_receiver": "error"}
    assert findings()["rewards.no_receiver"]["seen"].startswith("1 reward is due. No receiver is connected to")


def test_a_receiver_that_fails(alive: None) -> None:
    RewardFactory.create(attempts=3, last_error="IntegrityError: no purse.")
    assert wrong() == {"rewards.failing": "error"}
    assert findings()["rewards.failing"]["seen"] == (
        "1 reward could not be granted, because of IntegrityError: no purse."
    )
    Reward.objects.update(attempts=0)
    assert findings()["rewards.ok"]["seen"] == "A receiver grants the rewards; 1 due, for the next delivery run."


def test_a_receiver_that_what_delivers_does_not_have(alive: None, granted: Granted, drain: Callable[..., Any]) -> None:
    """The doctor's process has it; the one that looked last had not."""
    RewardFactory.create_batch(2, attempts=1, last_error=NO_RECEIVER)
    assert wrong() == {"rewards.no_receiver": "warning"}
    found = findings()["rewards.no_receiver"]
    assert found["seen"].startswith("2 rewards are due, and what delivers had no receiver of referral_qualified when")
    assert "restart what delivers" in found["cure"]


# -- nothing breaks it off


@pytest.mark.django_db(transaction=True)
def test_a_table_that_is_missing(alive: None) -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(Heartbeat)
    try:
        found = {(finding["id"], finding["severity"]) for finding in examined()["findings"]}
        assert ("database.failed", "error") in found
        assert ("dry_run.passed", "ok") in found
        assert ("rewards.ok", "ok") in found
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(Heartbeat)


def test_migrations_that_were_not_applied(alive: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'mmolove_referral'")
    found = findings()
    assert found["migrations.pending"]["severity"] == "error"
    assert found["migrations.pending"]["cure"] == "python manage.py migrate"
    assert "not applied yet is 0001_initial" in found["migrations.pending"]["seen"]
    assert "dry_run.passed" in found, "the way to MMOLove is looked at without a table"
    assert "backlog.ok" not in found


def test_a_database_that_is_gone(alive: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise DatabaseError("connection refused\nIs the server running?")

    monkeypatch.setattr(connection, "cursor", refuse)
    found = findings()
    assert found["database.failed"]["severity"] == "error"
    assert "DatabaseError: connection refused" in found["database.failed"]["seen"]
    assert "\n" not in found["database.failed"]["seen"]
    assert {"settings.ok", "sessions.failed", "dry_run.passed"} <= set(found)


def test_a_database_that_takes_no_connection_is_told_once(alive: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise DatabaseError('invalid connection option "transaction_mode"')

    monkeypatch.setattr(connection, "cursor", refuse)
    monkeypatch.setattr(connection, "ensure_connection", refuse)
    found = findings()
    assert "sessions.failed" not in found
    assert 'invalid connection option "transaction_mode"' in found["database.failed"]["seen"]


def test_a_fault_of_the_doctors_own(alive: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(using: str) -> Any:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("django_mmolove_referral.doctor.delivery.of_rewards", fail)
    found = findings()
    assert re.fullmatch(
        r"This could not be examined: ZeroDivisionError in test_doctor\.py, line \d+\.", found["doctor.failed"]["seen"]
    )


def test_a_terminal_that_does_not_know_every_character(sandbox: Sandbox, configure: Callable[..., None]) -> None:
    configure(DISPATCH="thread")  # whose cure has typographic quotes
    kept = BytesIO()
    terminal = TextIOWrapper(kept, encoding="ascii", write_through=True)
    call_command("mmolove_doctor", stdout=terminal)
    assert b"for ?Delivery stopped?" in kept.getvalue()


def test_no_token_is_shown(alive: None, sandbox: Sandbox, mint: Callable[..., str], serve: Callable[..., Peer]) -> None:
    token = mint()
    attach_referral(create("bob@example.com"), token)
    assert Referral.objects.get().token == token

    def echo(caller: Any) -> None:
        body = caller.request().partition(b"\r\n\r\n")[2]
        caller.send(http(400, json.dumps({"error": f"malformed: {body.decode()}"}).encode()))

    serve(echo)
    told = examined()
    assert "dry_run.refused" in {finding["id"] for finding in told["findings"]}
    assert token not in json.dumps(told)
    assert token not in run()[1]
