"""One signed exchange, and the calls of MMOLove's kits."""

from __future__ import annotations

import json
import time
import traceback
from email.utils import formatdate
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Any, cast

import pytest

from django_mmolove_referral import client, protocol
from django_mmolove_referral.client import ReferralClient, SendResult, exchange
from django_mmolove_referral.protocol import Credentials, Kind, Outcome, Secret, Verdict
from django_mmolove_referral.transport import Reply
from tests.peers import Peer, answers, drips, http

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django_mmolove_referral.transport import Transport

HIDDEN = "5ec2e7-t0psecret"
SECRET = Secret(HIDDEN)
CREDENTIALS = Credentials("srv_1", SECRET, "https://mmolove.example/events", "key-2")
BODY = b'{"event":"registered"}'


class Wire:
    """Stands in for a transport: notes what is posted and gives one reply."""

    def __init__(self, status: int = 200, body: bytes = b'{"ok":true}', error: str = "", **headers: str) -> None:
        self.reply = Reply(
            status,
            {name.replace("_", "-"): value for name, value in headers.items()},
            body,
            error,
            started_at=1_800_000_000.0,
            duration=4.0,
        )
        self.posted: list[tuple[str, bytes, Mapping[str, str]]] = []

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        self.posted.append((url, body, headers))
        return self.reply


def send(wire: Wire, **options: Any) -> client.Attempt:
    return exchange(cast("Transport", wire), CREDENTIALS, Kind.REGISTERED, BODY, **options)


# -- exchange


@pytest.mark.parametrize("offset", [0.0, 7200.5, -7200.0])
def test_each_exchange_is_signed_afresh(offset: float) -> None:
    wire = Wire()
    attempt = send(wire, offset=offset)
    ((url, body, headers),) = wire.posted
    assert (url, body) == ("https://mmolove.example/events", BODY)
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("django-mmolove-referral")
    assert headers["X-MMOLove-Signature"] == protocol.sign(SECRET, BODY, attempt.signed_at, "key-2")
    assert abs(attempt.signed_at - time.time() - offset) < 5
    assert HIDDEN not in str(wire.posted)


def test_the_answer_is_classified() -> None:
    attempt = send(Wire(200, b'{"ok":true,"duplicate":true}'))
    assert (attempt.status, attempt.started_at, attempt.duration) == (200, 1_800_000_000.0, 4.0)
    assert attempt.answer.outcome is Outcome.DUPLICATE
    assert attempt.body == b'{"ok":true,"duplicate":true}'
    assert (attempt.location, attempt.skew) == ("", None)


def test_a_dry_run_is_classified_as_one() -> None:
    assert send(Wire(200, b'{"ok":true,"test":true}'), test=True).answer.outcome is Outcome.DRY_RUN
    assert send(Wire(200, b'{"ok":true,"test":true}')).answer.verdict is Verdict.FAULT


def test_the_content_type_counts() -> None:
    assert send(Wire(404, b"no", Content_Type="text/html")).answer.verdict is Verdict.FAULT
    assert send(Wire(404, b"no", Content_Type="text/plain")).answer.verdict is Verdict.SUSPECT


def test_a_transport_fault() -> None:
    attempt = send(Wire(0, b"", "no answer from mmolove.example within 15 s"))
    assert attempt.status == 0
    assert attempt.answer == protocol.Answer(Verdict.FAULT, error="no answer from mmolove.example within 15 s")


def test_a_redirect_names_where_it_leads() -> None:
    attempt = send(Wire(302, b"<html>", Location="https://www.mmolove.example/\nevents"))
    assert attempt.location == "https://www.mmolove.example/ events"
    assert attempt.answer.verdict is Verdict.SUSPECT
    assert attempt.answer.error == (
        "HTTP 302 redirects to https://www.mmolove.example/ events: set ENDPOINT to the final address"
    )


@pytest.mark.parametrize("wire", [Wire(302), Wire(201, Location="https://mmolove.example/event/1")])
def test_what_leads_nowhere(wire: Wire) -> None:
    attempt = send(wire)
    assert attempt.location == ""
    assert "ENDPOINT" not in attempt.answer.error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "90"}, 90.0),
        ({"Retry_After": "soon"}, None),
        # By the clock of who says so, where it tells its time.
        ({"Retry_After": "Fri, 15 Jan 2027 08:02:00 GMT", "Date": "Fri, 15 Jan 2027 08:00:00 GMT"}, 120.0),
        ({"Retry_After": formatdate(time.time() + 9000, usegmt=True)}, 3600.0),
        ({"Retry_After": formatdate(time.time() - 9000, usegmt=True)}, 1.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert send(Wire(503, b"", **headers)).answer.retry_after == seconds


@pytest.mark.parametrize(
    ("date", "skew"),
    [
        ("Fri, 15 Jan 2027 08:00:02 GMT", 0.0),  # the middle of the exchange
        ("Fri, 15 Jan 2027 09:00:02 GMT", 3600.0),
        ("Fri, 15 Jan 2027 07:00:02 GMT", -3600.0),
        ("junk", None),
        ("", None),
    ],
)
def test_the_clocks_are_compared(date: str, skew: float | None) -> None:
    assert send(Wire(401, b"{}", Date=date)).skew == skew


def test_the_user_agent_names_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "version", lambda name: f"<{name}>")
    client._user_agent.cache_clear()
    try:
        assert client._user_agent() == "django-mmolove-referral/<django-mmolove-referral>"
    finally:
        client._user_agent.cache_clear()


def test_the_user_agent_of_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(client, "version", unknown)
    client._user_agent.cache_clear()
    try:
        assert client._user_agent() == "django-mmolove-referral"
    finally:
        client._user_agent.cache_clear()


# -- ReferralClient


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer(answers(http(200, b'{"ok":true,"referral_id":"r_1","list":[1]}')))
    yield peer
    peer.close()


@pytest.fixture
def kit(peer: Peer) -> Iterator[ReferralClient]:
    with ReferralClient("srv_1", HIDDEN, peer.url, "key-2", verify=False) as kit:
        yield kit


def received(peer: Peer) -> dict[str, Any]:
    """The last event that arrived, its signature checked."""
    head, _, body = peer.requests[-1].partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert protocol.verify(SECRET, body, headers["X-MMOLove-Signature"], now=time.time())
    assert headers["X-MMOLove-Signature"].endswith(",kid=key-2")
    return cast("dict[str, Any]", json.loads(body))


def test_registered(kit: ReferralClient, peer: Peer) -> None:
    result = kit.registered(" t0ken\n", referee_identity="7842", server_event_id="reg-7842", ts=5)
    assert result == SendResult(200, True, {"ok": True, "referral_id": "r_1", "list": [1]}, "")
    assert received(peer) == {
        "event": "registered",
        "server_id": "srv_1",
        "ts": 5,
        "token": "t0ken",
        "referee_identity": "7842",
        "server_event_id": "reg-7842",
    }


@pytest.mark.parametrize("kind", ["qualified", "reversed"])
def test_later_events(kit: ReferralClient, peer: Peer, kind: str) -> None:
    assert getattr(kit, kind)("t0ken", server_event_id="e-1", test=True).ok
    event = received(peer)
    assert abs(event.pop("ts") - time.time()) < 5
    assert event == {"event": kind, "server_id": "srv_1", "token": "t0ken", "server_event_id": "e-1", "test": True}


def test_calls_share_a_connection(kit: ReferralClient, peer: Peer) -> None:
    for _ in range(3):
        kit.qualified("t0ken", server_event_id="e-1")
    assert peer.connections == 1


def test_a_refusal_is_a_result() -> None:
    peer = Peer(answers(http(422, b'{"error":"illegal_transition"}')))
    with ReferralClient("srv_1", SECRET, peer.url) as kit:
        result = kit.qualified("t0ken", server_event_id="e-1")
    peer.close()
    assert result == SendResult(422, False, {"error": "illegal_transition"}, "HTTP 422: illegal_transition")


def test_a_transport_fault_is_a_result() -> None:
    peer = Peer(drips(b"", b"HTTP"))
    with ReferralClient("srv_1", SECRET, peer.url, timeout=0.2) as kit:
        result = kit.qualified("t0ken", server_event_id="e-1")
    peer.close()
    assert result == SendResult(0, False, {}, "no answer from 127.0.0.1 within 0.2 s")


@pytest.mark.parametrize("kind", [Kind.QUALIFIED, "qualified"])
def test_signing_without_sending(kit: ReferralClient, peer: Peer, kind: Kind | str) -> None:
    body, header = kit.sign(kind, " t ", server_event_id="e", ts=1)
    assert body == b'{"event":"qualified","server_id":"srv_1","ts":1,"token":"t","server_event_id":"e"}'
    assert protocol.verify(SECRET, body, header, now=time.time())
    assert peer.connections == 0


@pytest.mark.parametrize(
    ("event", "options", "name"),
    [
        ("registered", {"token": " \n", "server_event_id": "e", "referee_identity": "r"}, "token"),
        ("registered", {"token": "t", "server_event_id": "", "referee_identity": "r"}, "server_event_id"),
        ("registered", {"token": "t", "server_event_id": "e"}, "referee_identity"),
        ("qualified", {"token": "", "server_event_id": "e"}, "token"),
        ("qualified", {"token": "\ud800", "server_event_id": "e"}, "surrogates"),
        ("clicked", {"token": "t", "server_event_id": "e"}, "clicked"),
    ],
)
def test_what_can_be_no_event(kit: ReferralClient, event: str, options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        kit.sign(event, **options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"server_id": ""}, "server_id"),
        ({"secret": ""}, "secret"),
        ({"secret": " \n"}, "secret"),
        ({"secret": Secret("")}, "secret"),
        ({"key_id": "a b"}, "key_id"),
        ({"key_id": "a\r\nX: y"}, "key_id"),
        ({"key_id": "a,b"}, "key_id"),
    ],
)
def test_what_can_be_no_credentials(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ReferralClient(**{"server_id": "srv_1", "secret": HIDDEN, **options})


def test_the_secret_stays_secret() -> None:
    with ReferralClient("srv_1", HIDDEN) as kit:
        assert HIDDEN not in repr(kit) + repr(vars(kit))
    credentials: dict[str, Any] = {"server_id": "srv_1", "secret": HIDDEN, "key_id": " "}
    try:
        ReferralClient(**credentials)
    except ValueError as error:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    assert HIDDEN not in str(frames[-1].locals)
    assert "Secret('********')" in str(frames[-1].locals)
