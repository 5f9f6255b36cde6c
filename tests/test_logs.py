"""The log: one tree, fields beside the text, warnings for what needs a person, once per change of state, no secrets."""

from __future__ import annotations

import ast
import json
import logging
import logging.config
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client

from django_mmolove_referral import attach_referral, logs, mark_qualified, signals
from django_mmolove_referral.delivery import dispatch, health, settle
from django_mmolove_referral.delivery.dry_run import dry_run
from django_mmolove_referral.models import OutboundEvent, Referral, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault
from tests.clock import let_pass
from tests.conftest import SECRET, Granted
from tests.factories import RewardFactory
from tests.peers import Peer, http
from tests.portal import create
from tests.test_interleavings import answered, take

pytestmark = pytest.mark.django_db

PACKAGE = Path(logs.__file__).parent
LOGGERS = {
    "mmolove_referral.capture",
    "mmolove_referral.delivery",
    "mmolove_referral.join",
    "mmolove_referral.rewards",
    "mmolove_referral.sandbox",
    "mmolove_referral.signup",
}
STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "mmolove_referral")
    return caplog


def told(caplog: pytest.LogCaptureFixture, *levels: str) -> list[str]:
    """Our records of these levels: warnings and worse if none is named."""
    wanted = levels or ("WARNING", "ERROR")
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("mmolove_referral")
        and record.name != "mmolove_referral.sandbox"
        and record.levelname in wanted
    ]


def extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


def sign_up(mint: Callable[..., str], name: str = "bob") -> Any:
    user = create(f"{name}@example.com")
    attach_referral(user, mint())
    return user


# -- the tree


def test_every_logger_is_in_the_tree() -> None:
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger"):
                (name,) = node.args
                assert isinstance(name, ast.Constant), path
                names.add(name.value)
    # The testing kit listens at the root, and reports what fails as Django's own test cases do.
    assert names - {"mmolove_referral", "django.test"} == LOGGERS


def test_the_docs_name_every_logger_and_every_field() -> None:
    docs = (PACKAGE.parent / "docs" / "operations.md").read_text("utf-8")
    section = docs.partition("\n## Logs\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(mmolove_referral\.\w+)` \|", section, re.MULTILINE)) == LOGGERS
    fields = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    written = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("trouble", "over"):
                written |= {key.arg for key in node.keywords if key.arg} - {"level", "trace"}
            # An inline of the admin has an "extra", too, which is a number.
            if (
                isinstance(node, ast.Assign)
                and "extra" in map(ast.unparse, node.targets)
                and isinstance(node.value, ast.Dict)
            ):
                written |= {ast.literal_eval(key) for key in node.value.keys if key is not None}
    assert fields == written
    example = section.partition("```python\n")[2].partition("```")[0]
    scope: dict[str, Any] = {}
    exec(example, scope)
    assert scope["LOGGING"]["loggers"]["mmolove_referral"]["level"] == "INFO"
    logging.config.DictConfigurator(scope["LOGGING"])


# -- what is said of an event


def test_an_accepted_event(said: pytest.LogCaptureFixture, mint: Callable[..., str], drain: Callable[..., Any]) -> None:
    user = sign_up(mint)
    drain()
    (record,) = [record for record in said.records if record.getMessage().startswith("registered")]
    assert (record.name, record.levelname) == ("mmolove_referral.delivery", "INFO")
    assert record.getMessage() == f"registered reg-{user.pk} is accepted: advanced"
    fields = extras(record)
    assert fields.pop("duration_ms") >= 0
    assert fields == {
        "server": "default",
        "event": f"reg-{user.pk}",
        "event_id": OutboundEvent.objects.get().pk,
        "kind": "registered",
        "state": "accepted",
        "outcome": "advanced",
        "status": 200,
        "attempts": 1,
    }
    assert told(said) == []


def test_a_rejected_event_is_for_a_person(said: pytest.LogCaptureFixture, sandbox: Sandbox, drain: Any) -> None:
    user = create("bob@example.com")
    attach_referral(user, "no-token-of-the-sandbox")
    sign_up(lambda: sandbox.mint("srv_test", "alice"), "good")
    drain()
    assert told(said) == [f"registered reg-{user.pk} is rejected: HTTP 404: unknown_token"]
    (record,) = [record for record in said.records if record.levelname == "WARNING"]
    assert (extras(record)["state"], extras(record)["status"]) == ("rejected", 404)


def test_a_fault_is_for_nobody(
    said: pytest.LogCaptureFixture, sandbox: Sandbox, mint: Callable[..., str], drain: Any
) -> None:
    sign_up(mint)
    sandbox.script(Fault(status=503))
    drain()
    assert told(said) == []
    assert len(told(said, "DEBUG")) == 1
    assert "is pending: HTTP 503" in told(said, "DEBUG")[0]


def test_an_event_is_said_when_it_is_stored(
    said: pytest.LogCaptureFixture, mint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that is tried again, or split, must not tell twice of what happened once, or never."""
    sign_up(mint)
    sign_up(mint, "carol")
    save, failures = settle._Batch._save, iter([DatabaseError("once")])

    def fail(self: Any) -> None:
        for failure in failures:
            raise failure
        save(self)

    monkeypatch.setattr(settle._Batch, "_save", fail)
    settle.settle([answered(event) for event in take()], using="default")
    assert OutboundEvent.objects.filter(state="accepted").count() == 2
    assert told(said) == []
    assert len([text for text in told(said, "INFO") if "is accepted" in text]) == 2


# -- once per change of state


def test_an_outage_is_one_warning_and_its_end_is_none(
    said: pytest.LogCaptureFixture, sandbox: Sandbox, mint: Callable[..., str], drain: Any
) -> None:
    for number in range(10):
        sign_up(mint, f"player{number}")
    sandbox.outage()
    for _ in range(4):
        drain()
        let_pass(400)
    (pause,) = told(said)
    assert pause == "Delivery to MMOLove server 'default' pauses: HTTP 503 with an HTML page"
    (record,) = [record for record in said.records if record.levelname == "WARNING"]
    assert extras(record) == {"server": "default", "reason": "HTTP 503 with an HTML page"}
    assert told(said, "INFO")[0].startswith("Delivery to MMOLove server 'default' stays paused: HTTP 503")
    sandbox.clear_faults()
    drain()
    assert len(told(said)) == 1
    assert "Delivery to MMOLove server 'default' goes on." in told(said, "INFO")


def test_credentials_that_are_missing(
    said: pytest.LogCaptureFixture, configure: Callable[..., None], mint: Callable[..., str], drain: Any
) -> None:
    for secret in ("", "", SECRET, "", ""):
        configure(SECRET=secret)
        drain()
    assert len(told(said)) == 2
    assert told(said, "INFO") == ["Server 'default' has credentials again."]


def test_settling_that_fails_is_said_once(
    said: pytest.LogCaptureFixture, mint: Callable[..., str], drain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        sign_up(mint, f"player{number}")

    def fail(self: Any) -> None:
        raise ValueError("a row that cannot be written")

    with monkeypatch.context() as broken:
        broken.setattr(settle._Batch, "_save", fail)
        drain()
    (failed,) = told(said)
    assert "could not be settled" in failed
    let_pass(1000)
    drain()
    assert "Events can be settled again." in told(said, "INFO")


def test_receivers_that_fail_are_said_once(said: pytest.LogCaptureFixture, granted: Granted, drain: Any) -> None:
    granted.fail = ValueError("no purse")
    for _ in range(5):
        mark_qualified(RewardFactory.create().referral.user)
    OutboundEvent.objects.update(state="accepted")
    for _ in range(3):
        drain()
        let_pass(100_000)
    assert told(said) == ["A receiver of referral_qualified raised; the reward stays due."]
    granted.fail = None
    drain()
    assert len(granted) == 5
    assert told(said, "INFO").count("Rewards can be granted again.") == 1
    assert len([text for text in told(said, "INFO") if "was granted" in text]) == 5


def test_rewards_without_a_receiver_are_for_a_person(said: pytest.LogCaptureFixture, drain: Any) -> None:
    RewardFactory.create_batch(3)
    for _ in range(2):
        drain()
        let_pass(10_000)
    (warned,) = told(said)
    assert warned.startswith("Rewards are due. No receiver is connected")


def test_sign_ups_while_our_tables_are_out(
    said: pytest.LogCaptureFixture, client: Client, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("no such table")

    def visit(number: int) -> None:
        visitor = Client()
        visitor.get(f"/register/?mmref=token-number-{number}-0123456789")
        assert visitor.post("/register/", {"name": f"player{number}@example.com"}).status_code == 200

    with monkeypatch.context() as broken:
        broken.setattr("django_mmolove_referral.lifecycle.attach", fail)
        for number in range(5):
            visit(number)
    assert told(said) == ["A referral could not be attached; it will be at the account's next login."]
    visit(6)
    assert told(said, "INFO").count("Referrals can be attached again.") == 1
    assert Referral.objects.count() == 1


def test_captures_while_the_sessions_are_out(said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr("django_mmolove_referral.capture.Visit._load", fail)
        for _ in range(3):
            Client().get("/page/?mmref=token-number-1-0123456789")
    assert told(said) == ["A referral token could not be captured; the visitor goes on without it."]
    Client().get("/page/?mmref=token-number-1-0123456789")
    assert told(said, "INFO") == ["Referral tokens can be captured again."]


def test_share_links_that_lead_nowhere(said: pytest.LogCaptureFixture, configure: Callable[..., None]) -> None:
    configure(SHARE_URL="mmolove.example")
    for _ in range(3):
        Client().get("/join/7/")
    (warned,) = told(said)
    assert warned.startswith("A share link led nowhere: MMOLOVE_REFERRAL['SHARE_URL']")
    configure(SHARE_URL="https://mmolove.example/r/x")
    Client().get("/join/7/")
    assert told(said, "INFO") == ["Share links lead on again."]
    for number in range(3):
        Client().get(f"/join/atlantis-{number}/7/")
    assert len(told(said)) == 1, "strangers cannot write warnings"


def test_a_wrong_dispatch_is_said_once(said: pytest.LogCaptureFixture, configure: Callable[..., None]) -> None:
    configure(DISPATCH="pigeon")
    for _ in range(3):
        dispatch.wake()
    assert len(told(said)) == 1
    configure(DISPATCH="manual")
    dispatch.wake()
    assert told(said, "INFO") == ["Wake-ups work again."]


def test_another_cause_is_news_and_a_return_of_the_first_is_not(said: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("mmolove_referral.delivery")
    for error in (OSError("a"), OSError("b"), ValueError("c"), OSError("d")):
        logs.trouble(logger, "a test", error, "It failed: %s", error)
    assert told(said) == ["It failed: a", "It failed: c"]
    assert told(said, "DEBUG") == ["It failed: b", "It failed: d"]
    logs.over(logger, "a test", "It works.")
    logs.over(logger, "a test", "It works.")
    assert told(said, "INFO") == ["It works."]
    logs.trouble(logger, "a test", OSError("e"), "It failed: %s", "e")
    assert told(said)[-1] == "It failed: e"


# -- secrets


@pytest.fixture
def echo(configure: Callable[..., None]) -> Iterator[Callable[[int], Peer]]:
    """``echo(503)`` answers with that status, and with what it was sent."""
    peers: list[Peer] = []

    def start(status: int) -> Peer:
        def script(caller: Any) -> None:
            while request := caller.request():
                fields = json.loads(request.partition(b"\r\n\r\n")[2])
                # So that the longest text which is kept ends within the token.
                caller.send(http(status, json.dumps({"error": "x" * 170 + fields["token"]}).encode()))

        peers.append(Peer(script))
        configure(ENDPOINT=peers[-1].url, DEADLINE=5, PAUSE_AFTER=1)
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("status", [400, 401, 404, 429, 503])
def test_a_peer_that_sends_back_what_it_got(
    status: int, echo: Callable[[int], Peer], said: pytest.LogCaptureFixture, drain: Any, hear: Any
) -> None:
    paused = hear(signals.server_paused)
    token = "tok-" + "0123456789abcdef" * 8
    attach_referral(create("bob@example.com"), token)
    echo(status)
    for _ in range(2):
        drain()
        let_pass(10_000)
    shown = dry_run("default", using="default")
    written = [f"{record.getMessage()} {extras(record)}" for record in said.records]
    stored = [*ServerHealth.objects.values_list("reason"), *OutboundEvent.objects.values_list("last_error", "response")]
    everything = f"{written} {stored} {paused} {shown} {shown.attempt} {shown.answer}"
    assert "x" * 170 in everything
    assert token[:20] not in everything
    assert SECRET not in everything


def test_health_reasons_are_one_line(said: pytest.LogCaptureFixture) -> None:
    health.pause("default", "a\nforged line", using="default")
    assert all("\n" not in text for text in told(said))
