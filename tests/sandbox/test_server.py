"""The threaded-server face, over real sockets."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from django_mmolove_referral.protocol import SIGNATURE_HEADER
from django_mmolove_referral.sandbox import Fault
from django_mmolove_referral.sandbox.server import SandboxServer

from .portal import NOW, SECRET, SERVER, Portal, event, sign

TIMEOUT = 20


@pytest.fixture
def server(portal: Portal) -> Iterator[SandboxServer]:
    before = set(threading.enumerate())
    with SandboxServer(portal.sandbox) as running:
        yield running
    assert set(threading.enumerate()) <= before


@pytest.fixture
def http(server: SandboxServer) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(server.host, server.port, timeout=TIMEOUT)
    yield connection
    connection.close()


def post(http: HTTPConnection, token: str, **fields: Any) -> tuple[HTTPResponse, bytes]:
    body = json.dumps(event("registered", token, **fields)).encode()
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: sign(SECRET, body, int(NOW))}
    http.request("POST", "/api/referral/events", body, headers)
    answer = http.getresponse()
    return answer, answer.read()


def get(http: HTTPConnection, path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    http.request(method, path)
    answer = http.getresponse()
    return answer, answer.read()


def in_thread(target: Callable[[], Any]) -> tuple[Thread, list[BaseException]]:
    """``target`` running; the errors of its connection once it has ended."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            target()
        except (OSError, HTTPException) as error:
            errors.append(error)

    thread = Thread(target=run)
    thread.start()
    return thread, errors


def test_the_journey(portal: Portal, server: SandboxServer, http: HTTPConnection) -> None:
    assert server.endpoint == f"{server.url}/api/referral/events"
    answer, _ = get(http, urlsplit(f"{server.share_url(SERVER)}?ref=alice").path + "?ref=alice")
    location = answer.headers["Location"]
    assert (answer.status, location.partition("?")[0]) == (302, "https://portal.example/signup/")
    assert answer.headers["Set-Cookie"] is None
    (token,) = parse_qs(urlsplit(location).query)["mmref"]
    answer, body = post(http, token)
    assert (answer.status, json.loads(body)["state"]) == (200, "registered")
    answer, body = get(http, "/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"alice" in body
    assert portal.sandbox.referrals[0].referrer == "alice"


def test_connections_are_kept_alive(server: SandboxServer, http: HTTPConnection) -> None:
    http.connect()
    kept = http.sock
    for n in range(3):
        assert post(http, "unknown", server_event_id=str(n))[0].status == 404
        assert http.sock is kept


def test_a_client_may_close(portal: Portal, http: HTTPConnection) -> None:
    http.request("GET", "/", headers={"Connection": "close"})
    answer = http.getresponse()
    answer.read()
    assert answer.headers["Connection"] == "close"


def test_the_date_is_the_sandbox_s(http: HTTPConnection) -> None:
    assert post(http, "unknown")[0].headers["Date"] == "Fri, 06 Dec 2024 15:46:40 GMT"


def test_ids_are_quoted(portal: Portal) -> None:
    server = SandboxServer(portal.sandbox, port=81)
    assert server.share_url("a/b é") == "http://127.0.0.1:81/r/a%2Fb%20%C3%A9"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/referral/events", 405),
        ("PUT", "/api/referral/events", 405),
        ("POST", "/", 405),
        ("OPTIONS", "/r/srv_1", 405),
        ("GET", "/log.css", 200),
        ("GET", "/nothing", 404),
        ("GET", "/r/nobody?ref=a", 404),
        ("GET", "/r/", 404),
        ("GET", "/r/srv_1/", 302),
        ("GET", "/r/srv%5F1?ref=%E7%8E%A9", 302),
        ("BREW", "/", 501),
    ],
)
def test_other_requests(http: HTTPConnection, method: str, path: str, status: int) -> None:
    assert get(http, path, method)[0].status == status


def test_head(http: HTTPConnection) -> None:
    answer, body = get(http, "/", "HEAD")
    assert (answer.status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 100
    assert get(http, "/")[0].status == 200


@pytest.mark.parametrize(
    "headers", [{"Transfer-Encoding": "chunked"}, {"Content-Length": "-1"}, {"Content-Length": "9" * 99}]
)
def test_bodies_without_a_certain_end(http: HTTPConnection, headers: dict[str, str]) -> None:
    http.putrequest("POST", "/api/referral/events")
    for name, value in headers.items():
        http.putheader(name, value)
    http.endheaders()
    assert http.getresponse().status == 411


def test_oversized_bodies_are_read_to_their_end(portal: Portal, http: HTTPConnection) -> None:
    assert post(http, "unknown", padding="x" * 300_000)[0].status == 413
    assert post(http, "unknown")[0].status == 404, "the connection is still good"


def test_a_client_that_hangs_up_in_mid_body(portal: Portal, server: SandboxServer) -> None:
    with socket.create_connection((server.host, server.port), timeout=TIMEOUT) as raw:
        raw.sendall(b"POST /api/referral/events HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(1) == b""
    assert portal.sandbox.log == []


# Transport faults


def test_dropped_before_and_after(portal: Portal, http: HTTPConnection) -> None:
    token = portal.mint()
    for processed in (False, True):
        portal.sandbox.script(Fault(drop=True, processed=processed))
        with pytest.raises(ConnectionError):
            post(http, token)
        http.close()
        assert len(portal.sandbox.referrals) == processed
    assert json.loads(post(http, token)[1]) == {"ok": True, "duplicate": True}


@pytest.mark.parametrize("fault", [Fault(truncate=True), Fault(200, b'{"ok": true}', truncate=True)])
def test_cut_in_mid_body(portal: Portal, http: HTTPConnection, fault: Fault) -> None:
    portal.sandbox.script(fault)
    with pytest.raises(IncompleteRead):
        post(http, portal.mint())
    assert portal.sandbox.log[-1].accepted is not fault.replaces_answer


def test_cut_without_a_body(portal: Portal, server: SandboxServer) -> None:
    portal.sandbox.script(Fault(503, truncate=True))
    with socket.create_connection((server.host, server.port), timeout=TIMEOUT) as raw, raw.makefile("rb") as answer:
        raw.sendall(b"POST /api/referral/events HTTP/1.1\r\n\r\n")
        received = answer.read()
    assert received.startswith(b"HTTP/1.1 503")
    assert b"\r\n\r\n" not in received


def test_a_scripted_answer_is_sent_as_it_is(portal: Portal, http: HTTPConnection) -> None:
    portal.sandbox.script(Fault(302, b"moved", {"location": "https://elsewhere.example/", "date": "today"}))
    answer, body = post(http, "probe")
    assert (answer.status, body) == (302, b"moved")
    assert answer.headers.get_all("Date") == ["today"]
    assert answer.headers["Location"] == "https://elsewhere.example/"


@pytest.mark.parametrize("status", [204, 304, 599])
def test_odd_statuses(portal: Portal, http: HTTPConnection, status: int) -> None:
    portal.sandbox.script(Fault(status))
    assert post(http, "probe")[0].status == status
    assert post(http, "probe")[0].status == 404


def test_drip(portal: Portal, http: HTTPConnection) -> None:
    portal.sandbox.script(Fault(drip=1e-6, delay=1e-6))
    answer, body = post(http, portal.mint())
    assert (answer.status, json.loads(body)["ok"]) == (200, True)


def test_stopping_ends_a_silence(portal: Portal) -> None:
    arrived = Event()

    def hit(fields: Any) -> bool:
        arrived.set()
        return True

    portal.sandbox.script(Fault(delay=3600, when=hit))
    with SandboxServer(portal.sandbox) as server:
        http = HTTPConnection(server.host, server.port, timeout=TIMEOUT)
        client, errors = in_thread(lambda: post(http, "probe"))
        assert arrived.wait(TIMEOUT)
    client.join(TIMEOUT)
    http.close()
    assert not client.is_alive()
    assert isinstance(errors[0], ConnectionError)


def test_stopping_ends_a_drip(portal: Portal) -> None:
    portal.sandbox.script(Fault(drip=3600))
    with SandboxServer(portal.sandbox) as server:
        raw = socket.create_connection((server.host, server.port), timeout=TIMEOUT)
        raw.sendall(b"POST /api/referral/events HTTP/1.1\r\n\r\n")
        assert raw.recv(10) == b"H"
    with raw:
        assert raw.recv(10) == b""


def test_stopping_ends_idle_connections_and_lets_the_port_be_had_again(portal: Portal) -> None:
    server = SandboxServer(portal.sandbox)
    with server:
        port = server.port
        idle = HTTPConnection(server.host, port, timeout=TIMEOUT)
        assert get(idle, "/")[0].status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, port), timeout=TIMEOUT)
    with server:
        assert server.port == port
        with pytest.raises(OSError, match="in use"):
            SandboxServer(portal.sandbox, port=port).start()
    idle.close()
    server.stop()


def test_a_fault_of_the_sandbox_itself_is_not_hidden(
    portal: Portal, http: HTTPConnection, caplog: pytest.LogCaptureFixture
) -> None:
    portal.sandbox.script(Fault(500, when=lambda fields: bool(1 // 0)))
    with pytest.raises(ConnectionError):
        post(http, "probe")
    assert "ZeroDivisionError" in caplog.text


def test_requests_are_logged_quietly(http: HTTPConnection, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    get(http, "/nothing", "BREW")
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


# TLS


def anonymous(side: ssl.Purpose) -> ssl.SSLContext:
    """TLS without a certificate to make and to keep: anonymous Diffie-Hellman, which TLS 1.3 has no more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side is ssl.Purpose.SERVER_AUTH else ssl.PROTOCOL_TLS_SERVER)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


def test_tls(portal: Portal, caplog: pytest.LogCaptureFixture) -> None:
    with SandboxServer(portal.sandbox, ssl_context=anonymous(ssl.Purpose.CLIENT_AUTH)) as server:
        assert server.endpoint.startswith("https://")
        silent = socket.create_connection((server.host, server.port), timeout=TIMEOUT)
        http = HTTPSConnection(server.host, server.port, timeout=TIMEOUT, context=anonymous(ssl.Purpose.SERVER_AUTH))
        answer, body = post(http, portal.mint())
        assert (answer.status, json.loads(body)["ok"]) == (200, True)
        plain = HTTPConnection(server.host, server.port, timeout=TIMEOUT)
        with pytest.raises((ConnectionError, HTTPException)):
            get(plain, "/")
    for connection in (silent, http, plain):
        connection.close()
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


# Independence

ALONE = """
import sys, urllib.request
from django_mmolove_referral.sandbox import Sandbox
assert not any(name.partition(".")[0] == "django" for name in sys.modules), "the core is pure"
from django_mmolove_referral.sandbox.server import SandboxServer
sandbox = Sandbox({"srv": "secret"})
sandbox.mint("srv", "alice")
sandbox.ingest(b'{"event": "registered", "ts": 1.5}')
with SandboxServer(sandbox) as server:
    page = urllib.request.urlopen(server.url).read()
assert b"alice" in page
from django.conf import settings
assert not settings.configured
"""


def test_no_django_settings_are_needed() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    alone = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (alone.returncode, alone.stderr) == (0, "")
