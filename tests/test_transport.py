"""The transport against real sockets: nothing a peer does holds an exchange, fills memory or raises."""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import threading
import time
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_mmolove_referral import sockets
from django_mmolove_referral.transport import Transport
from tests.peers import Caller, Peer, answers, drips, floods, goes_stale, http, says, silent, tunnels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from django_mmolove_referral.transport import Reply
    from tests.peers import Script

    Serve = Callable[..., Peer]
    Connect = Callable[..., Transport]

HEADERS = {"Content-Type": "application/json", "X-MMOLove-Signature": "t=1,v1=sha256=5ec2e7"}
BODY = b'{"event":"registered","token":"t0ken"}'
BRIEF = 0.3  # seconds


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts peers, and ends them with the test."""
    peers: list[Peer] = []

    def start(script: Script, tls: ssl.SSLContext | None = None) -> Peer:
        peers.append(Peer(script, tls))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def connect(serve: Serve, ca_file: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Makes transports that trust the tests' authority, and closes them before the peers."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    transports: list[Transport] = []

    def make(deadline: float = 5.0, *, verify: bool | str = ca_file, **options: Any) -> Transport:
        transports.append(Transport(deadline=deadline, verify=verify, **options))
        return transports[-1]

    yield make
    for transport in transports:
        transport.close()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def post(transport: Transport, peer: Peer, body: bytes = BODY) -> Reply:
    return transport.post(peer.url, body, HEADERS)


def fault(reply: Reply) -> str:
    """The error of a reply that is nothing but a fault."""
    assert (reply.status, reply.body, dict(reply.headers)) == (0, b"", {})
    assert reply.error
    assert "\n" not in reply.error
    assert "5ec2e7" not in reply.error
    assert "t0ken" not in reply.error
    return reply.error


# -- a good peer


def test_an_answer_arrives_whole(serve: Serve, connect: Connect) -> None:
    peer = serve(answers(http(422, b'{"error":"x"}', Retry_After="7")))
    before = time.time()
    reply = post(connect(), peer)
    assert (reply.status, reply.body, reply.error) == (422, b'{"error":"x"}', "")
    assert reply.headers.get("retry-after") == reply.headers.get("Retry-After") == "7"
    assert before <= reply.started_at <= reply.started_at + reply.duration <= time.time() + 0.1


def test_what_is_sent(serve: Serve, connect: Connect) -> None:
    peer = serve(answers(http()))
    post(connect(), peer)
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /api/referral/events HTTP/1.1"
    assert body == BODY
    sent = dict(line.split(": ", 1) for line in lines)
    assert sent == {
        **HEADERS,
        "Accept-Encoding": "identity",
        "Content-Length": str(len(BODY)),
        "Host": f"127.0.0.1:{peer.port}",
    }


def test_an_empty_answer_is_an_answer(serve: Serve, connect: Connect) -> None:
    assert post(connect(), serve(answers(http(200, b"")))).status == 200


@pytest.mark.parametrize("url", ["", "mmolove.com", "ftp://mmolove.com/", "https:///events", "http://[::1"])
def test_what_is_no_address_is_the_callers_mistake(url: str) -> None:
    with pytest.raises(ValueError, match=r"not an http or https address|Invalid IPv6 URL"):
        Transport(deadline=1).post(url, b"", {})


def test_headers_that_cannot_be_sent_do_not_show_up_in_the_error(serve: Serve, connect: Connect) -> None:
    peer = serve(answers(http()))
    reply = connect().post(peer.url, BODY, {"X-MMOLove-Signature": "5ec2e7\nInjected: t0ken"})
    assert fault(reply) == "the exchange with 127.0.0.1 failed: ValueError"


# -- connections


def test_connections_are_kept_and_cookies_are_not(serve: Serve, connect: Connect) -> None:
    peer = serve(answers(http(200, b'{"ok":true}', Set_Cookie="session=1; Path=/")))
    transport = connect()
    for _ in range(3):
        assert post(transport, peer).status == 200
    assert peer.connections == 1
    assert not any(b"cookie" in request.lower() for request in peer.requests)


def test_many_threads_get_their_own_answers(serve: Serve, connect: Connect) -> None:
    def echo(caller: Caller) -> None:
        while request := caller.request():
            caller.send(http(200, request.partition(b"\r\n\r\n")[2]))

    peer = serve(echo)
    transport = connect(connections=8)
    right: list[bool] = []

    def work(worker: int) -> None:
        for turn in range(25):
            body = b"%d-%d" % (worker, turn)
            right.append(post(transport, peer, body).body == body)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 200
    assert peer.connections <= 8


def test_a_stale_connection_is_replaced_at_once(serve: Serve, connect: Connect) -> None:
    peer = serve(goes_stale)
    transport = connect()
    assert [post(transport, peer).status for _ in range(3)] == [200, 200, 200]
    assert peer.connections == 3
    assert len(peer.requests) == 5


def test_all_kept_connections_may_be_stale(serve: Serve, connect: Connect) -> None:
    together = threading.Barrier(3)

    def script(caller: Caller) -> None:
        caller.request()
        if peer.connections <= 3:
            together.wait(5)
        caller.send(http())
        caller.request()

    peer = serve(script)
    transport = connect()
    threads = [threading.Thread(target=post, args=(transport, peer)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert post(transport, peer).status == 200
    assert peer.connections == 4


def test_a_stale_connection_is_replaced_once(serve: Serve, connect: Connect) -> None:
    def script(caller: Caller) -> None:
        caller.request()
        if peer.connections == 1:
            caller.send(http())
            caller.request()

    peer = serve(script)
    transport = connect()
    assert post(transport, peer).status == 200
    assert fault(post(transport, peer)) == "127.0.0.1 closed the connection without an answer"
    assert (peer.connections, len(peer.requests)) == (2, 3)


def test_nothing_is_sent_twice_on_a_new_connection(serve: Serve, connect: Connect) -> None:
    peer = serve(says(b""))
    assert fault(post(connect(), peer)) == "127.0.0.1 closed the connection without an answer"
    assert (peer.connections, len(peer.requests)) == (1, 1)


def test_nothing_is_sent_twice_once_an_answer_has_begun(serve: Serve, connect: Connect) -> None:
    peer = serve(answers(http(), b"HTTP/9 no\r\n\r\n"))
    transport = connect()
    post(transport, peer)
    assert fault(post(transport, peer)) == "the answer of 127.0.0.1 is not proper HTTP"
    assert (peer.connections, len(peer.requests)) == (1, 2)


def test_a_connection_long_idle_is_not_used(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = serve(answers(http()))
    transport = connect()
    post(transport, peer)
    monkeypatch.setattr(sockets, "IDLE_LIMIT", -1)
    post(transport, peer)
    assert peer.connections == 2


@pytest.mark.parametrize("status", [103, 204, 304])
def test_what_follows_an_answer_without_a_body_is_not_the_next_answer(
    serve: Serve, connect: Connect, status: int
) -> None:
    interim = b"HTTP/1.1 %d Any\r\nLink: </x>\r\n\r\n" % status

    def script(caller: Caller) -> None:
        while caller.request():
            first = len(peer.requests) == 1
            caller.send(interim + http(418) if first else http())

    peer = serve(script)
    transport = connect()
    reply = post(transport, peer)
    assert (reply.status, reply.body, reply.error) == (status, b"", "")
    assert post(transport, peer).status == 200
    assert peer.connections == 2


def test_an_answer_before_the_request_was_read(serve: Serve, connect: Connect) -> None:
    def script(caller: Caller) -> None:
        caller.send(http(413, b"", Connection="close"))
        caller.sock.shutdown(socket.SHUT_WR)
        while caller.sock.recv(65536):
            pass

    assert post(connect(), serve(script)).status == 413


def test_close_closes_and_the_transport_stays_usable(serve: Serve, connect: Connect) -> None:
    gone = threading.Event()

    def script(caller: Caller) -> None:
        while caller.request():
            caller.send(http())
        gone.set()

    peer = serve(script)
    transport = connect()
    post(transport, peer)
    transport.close()
    assert gone.wait(5)
    assert post(transport, peer).status == 200
    assert peer.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_uses_connections_of_its_own(serve: Serve, connect: Connect) -> None:
    peer = serve(answers(http()))
    transport = connect()
    post(transport, peer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with the peer's threads about
        child = os.fork()
    if not child:
        status = 0
        try:
            status = post(transport, peer).status
        finally:
            os._exit(0 if status == 200 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert peer.connections == 2
    assert post(transport, peer).status == 200
    assert peer.connections == 2


def test_connections_of_another_process_are_left_alone(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = serve(answers(http()))
    transport = connect()
    post(transport, peer)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    post(transport, peer)
    post(transport, peer)
    assert peer.connections == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_no_peer_provoked_passes_through(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    peer = serve(answers(http()))
    transport = connect()

    def interrupted(*args: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(sockets.Exchange, "count", interrupted)
        with pytest.raises(error):
            post(transport, peer)
    assert post(transport, peer).status == 200
    assert peer.connections == 2


# -- the deadline

OK_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK_HEADERS + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(silent, id="silence"),
        pytest.param(drips(b"", b"HTTP/1.1 "), id="status line"),
        pytest.param(drips(OK_HEADERS, b"X: y\r\n"), id="headers"),
        pytest.param(drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="100 continue"),
        pytest.param(drips(OK_HEADERS + b"Content-Length: 60000\r\n\r\n", b" "), id="body"),
        pytest.param(drips(OK_HEADERS + b"\r\n", b" "), id="body without end"),
        pytest.param(drips(CHUNKED, b"1\r\nx\r\n"), id="chunks"),
        pytest.param(drips(CHUNKED, b"0"), id="chunk size"),
        pytest.param(drips(CHUNKED + b"0\r\n", b"X: y\r\n"), id="trailers"),
    ],
)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_whatever_drips_ends_at_the_deadline(
    serve: Serve, connect: Connect, tls: ssl.SSLContext, script: Script, secure: bool
) -> None:
    peer = serve(script, tls if secure else None)
    error = fault(post(connect(BRIEF), peer))
    assert error.endswith(f"answer from {peer.host} within 0.3 s")


def test_a_late_answer_tells_how_far_it_came(serve: Serve, connect: Connect) -> None:
    peer = serve(drips(OK_HEADERS + b"\r\n", b" "))
    assert fault(post(connect(1), peer)) == "HTTP 200, but no complete answer from 127.0.0.1 within 1 s"


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_peer_that_does_not_read(serve: Serve, connect: Connect, tls: ssl.SSLContext, secure: bool) -> None:
    peer = serve(silent, tls if secure else None)
    reply = post(connect(BRIEF), peer, b" " * 20_000_000)
    assert fault(reply) == f"no answer from {peer.host} within 0.3 s"


@pytest.mark.parametrize("script", [silent, lambda caller: caller.drip(b"\x16\x03\x03\x40\x00" + b"\x02")])
def test_a_handshake_that_drips(serve: Serve, connect: Connect, script: Script) -> None:
    peer = serve(script)
    reply = connect(BRIEF).post(f"https://localhost:{peer.port}/", BODY, HEADERS)
    assert fault(reply) == "no answer from localhost within 0.3 s"


def test_no_time_is_left(serve: Serve, connect: Connect) -> None:
    assert fault(post(connect(1e-9), serve(silent))) == "no answer from 127.0.0.1 within 1e-09 s"


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Lets names resolve to ports; 0 is an address that never answers. Returns the timeouts those were given."""

    def resolve_to(*ports: int) -> list[float]:
        waited: list[float] = []

        def connect(sock: socket.socket, address: tuple[str, int]) -> None:
            if address[1]:
                return socket.socket.connect(sock, address)
            waited.append(sock.gettimeout() or 0)
            time.sleep(waited[-1])
            raise TimeoutError

        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(sockets._PlainSocket, "connect", connect, raising=False)
        return waited

    return resolve_to


def test_many_dead_addresses_share_the_deadline(connect: Connect, addresses: Callable[..., list[float]]) -> None:
    waited = addresses(0, 0, 0)
    reply = connect(BRIEF).post("http://mmolove.example/", BODY, HEADERS)
    assert fault(reply) == "could not connect to mmolove.example:80: timed out"
    assert len(waited) == 3
    assert sum(waited) <= BRIEF


def test_a_dead_address_leaves_time_for_the_next(
    serve: Serve, connect: Connect, addresses: Callable[..., list[float]]
) -> None:
    peer = serve(answers(http()))
    addresses(0, peer.port)
    assert connect(1).post("http://mmolove.example/", BODY, HEADERS).status == 200


# -- size


def endless_chunks(caller: Caller) -> None:
    caller.request()
    caller.send(CHUNKED)
    caller.flood(b"400\r\n" + b" " * 1024 + b"\r\n")


BODY_TOO_LARGE = "HTTP 200, but the answer of 127.0.0.1 is larger than 1000 bytes"
TOO_LARGE = "the answer of 127.0.0.1 is larger than 66536 bytes, headers included"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        pytest.param(answers(http(200, b" " * 1001)), BODY_TOO_LARGE, id="one byte more"),
        pytest.param(floods(OK_HEADERS + b"\r\n", b" " * 4096), BODY_TOO_LARGE, id="endless"),
        pytest.param(endless_chunks, BODY_TOO_LARGE, id="endless chunks"),
        pytest.param(
            answers(http(200, gzip.compress(b" " * 500_000), Content_Encoding="gzip")), BODY_TOO_LARGE, id="bomb"
        ),
        pytest.param(floods(OK_HEADERS, b"X: " + b"y" * 4096 + b"\r\n"), TOO_LARGE, id="long headers"),
        pytest.param(floods(OK_HEADERS, b"X: y\r\n"), "the answer of 127.0.0.1 is not proper HTTP", id="many headers"),
        pytest.param(floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), TOO_LARGE, id="100 continue"),
        pytest.param(
            floods(CHUNKED + b"0\r\n", b"X: y\r\n"),
            f"HTTP 200, but {TOO_LARGE}",
            id="trailers",
        ),
    ],
)
def test_no_answer_is_read_without_end(serve: Serve, connect: Connect, script: Script, error: str) -> None:
    transport = connect(limit=1000)
    assert fault(post(transport, serve(script))) == error


def test_no_header_is_read_without_end(serve: Serve, connect: Connect) -> None:
    peer = serve(floods(OK_HEADERS + b"X: ", b"y" * 4096))
    assert fault(post(connect(), peer)) == "the answer of 127.0.0.1 is not proper HTTP"


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_the_limit_itself_is_allowed(serve: Serve, connect: Connect, encoding: str) -> None:
    plain = b" " * 1000
    body = gzip.compress(plain) if encoding else plain
    peer = serve(answers(http(200, body, Content_Encoding=encoding)))
    assert post(connect(limit=1000), peer).body == plain


# -- encodings, though none was asked for

PLAIN = b'{"ok":true}'
BARE = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", PLAIN),
        ("gzip", gzip.compress(PLAIN)),
        ("X-GZIP", gzip.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", BARE.compress(PLAIN) + BARE.flush()),
    ],
)
def test_an_encoded_answer_is_decoded(serve: Serve, connect: Connect, encoding: str, body: bytes) -> None:
    assert post(connect(), serve(answers(http(200, body, Content_Encoding=encoding)))).body == PLAIN


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("br", b"\x0b", "is encoded as 'br'"),
        ("gzip, gzip", gzip.compress(gzip.compress(PLAIN)), "is encoded as 'gzip, gzip'"),
        ("gzip", PLAIN, "is no whole gzip"),
        ("gzip", gzip.compress(PLAIN)[:-1], "is no whole gzip"),
        ("deflate", zlib.compress(PLAIN)[:-1], "is no whole deflate"),
    ],
)
def test_an_answer_that_cannot_be_decoded(
    serve: Serve, connect: Connect, encoding: str, body: bytes, error: str
) -> None:
    reply = post(connect(), serve(answers(http(200, body, Content_Encoding=encoding))))
    assert fault(reply) == f"HTTP 200, but the answer of 127.0.0.1 {error}"


def test_an_empty_answer_needs_no_decoding(serve: Serve, connect: Connect) -> None:
    assert post(connect(), serve(answers(http(200, b"", Content_Encoding="gzip")))).error == ""


# -- broken answers


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 400 Bad", "the answer of 127.0.0.1 broke off"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Ty", "the answer of 127.0.0.1 broke off"),
        (OK_HEADERS + b"Content-Length: 12\r\n\r\n{}", "HTTP 200, but the answer of 127.0.0.1 broke off"),
        (
            CHUNKED + b"2\r\n{}\r\n",
            "HTTP 200, but the answer of 127.0.0.1 broke off",
        ),
        (
            CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
            "HTTP 200, but the answer of 127.0.0.1 broke off",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "the answer of 127.0.0.1 is not proper HTTP"),
        (OK_HEADERS + b"Content-Length: 1, 2\r\n\r\n{}", "HTTP 200, but the answer of 127.0.0.1 is not proper HTTP"),
    ],
)
def test_a_broken_answer(serve: Serve, connect: Connect, data: bytes, error: str) -> None:
    assert fault(post(connect(), serve(says(data)))) == error


def test_a_connection_reset(serve: Serve, connect: Connect) -> None:
    def script(caller: Caller) -> None:
        caller.request()
        caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    error = fault(post(connect(), serve(script)))
    assert error == "the connection to 127.0.0.1 failed: connection reset by peer"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", OK_HEADERS, OK_HEADERS + b"Content-"]),
    st.sampled_from([b"", b"\r\n\r\n{}", b"\r\nTransfer-Encoding: chunked\r\n\r\n"]),
)
def test_no_bytes_make_it_raise(garbage: Peer, connect: Connect, data: bytes, before: bytes, after: bytes) -> None:
    garbage.data = before + data + after  # type: ignore[attr-defined]
    transport = connect(1)
    reply = post(transport, garbage)
    transport.close()
    assert reply.error or reply.status >= 100


@pytest.fixture
def garbage(serve: Serve) -> Peer:
    def script(caller: Caller) -> None:
        caller.request()
        caller.send(peer.data)  # type: ignore[attr-defined]

    peer = serve(script)
    return peer


# -- redirects


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirects_are_not_followed(serve: Serve, connect: Connect, status: int) -> None:
    elsewhere = serve(answers(http()))
    peer = serve(answers(http(status, b"", Location=elsewhere.url)))
    reply = post(connect(), peer)
    assert (reply.status, reply.headers.get("location"), reply.error) == (status, elsewhere.url, "")
    assert elsewhere.connections == 0


# -- no connection


def test_connection_refused(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reply = connect().post(f"http://127.0.0.1:{port}/", BODY, HEADERS)
    assert fault(reply) == f"could not connect to 127.0.0.1:{port}: connection refused"


def test_a_name_that_cannot_be_resolved(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    reply = connect().post("https://mmolove.example/", BODY, HEADERS)
    assert fault(reply) == "could not resolve the name mmolove.example: name or service not known"


def test_a_name_that_is_none(connect: Connect) -> None:
    host = "a" * 64 + ".example"
    assert fault(connect().post(f"http://{host}/", BODY, HEADERS)) == (
        f"could not resolve the name {host}: no valid host name"
    )


def test_a_port_that_is_none(connect: Connect) -> None:
    assert fault(connect().post("http://127.0.0.1:99999/", BODY, HEADERS))


# -- TLS


def test_a_certificate_of_an_unknown_authority(serve: Serve, connect: Connect, tls: ssl.SSLContext) -> None:
    peer = serve(answers(http()), tls)
    error = fault(post(connect(verify=True), peer))
    assert error.startswith("TLS certificate of localhost not accepted: ")
    assert peer.requests == []


def test_a_certificate_of_a_known_authority(serve: Serve, connect: Connect, tls: ssl.SSLContext) -> None:
    peer = serve(answers(http()), tls)
    transport = connect()
    assert [post(transport, peer).status for _ in range(2)] == [200, 200]
    assert peer.connections == 1


def test_a_certificate_of_another_host(serve: Serve, connect: Connect, tls: ssl.SSLContext) -> None:
    peer = serve(answers(http()), tls)
    reply = connect().post(f"https://127.0.0.1:{peer.port}/", BODY, HEADERS)
    assert fault(reply).startswith("TLS certificate of 127.0.0.1 not accepted: ")


def test_no_verification(serve: Serve, connect: Connect, tls: ssl.SSLContext) -> None:
    peer = serve(answers(http()), tls)
    reply = connect(verify=False).post(f"https://127.0.0.1:{peer.port}/", BODY, HEADERS)
    assert (reply.status, reply.error) == (200, "")


def test_an_authority_that_is_not_in_the_directory(
    serve: Serve, connect: Connect, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    error = fault(post(connect(verify=str(tmp_path)), serve(answers(http()), tls)))
    assert error.startswith("TLS certificate of localhost not accepted: ")


def test_the_bundle_may_appear_later(
    serve: Serve, connect: Connect, tls: ssl.SSLContext, authority: trustme.CA, tmp_path: Path
) -> None:
    path = tmp_path / "later.pem"
    peer = serve(answers(http()), tls)
    transport = connect(verify=str(path))
    assert fault(post(transport, peer)) == (f"no CA certificates could be read from {path}: no such file or directory")
    authority.cert_pem.write_to_path(str(path))
    assert post(transport, peer).status == 200


def test_a_bundle_without_certificates(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "empty.pem"
    path.touch()
    error = fault(connect(verify=str(path)).post("https://localhost/", BODY, HEADERS))
    assert error == f"no CA certificates could be read from {path}: no certificate or crl found"


def test_the_bundle_is_loaded_once(
    serve: Serve, connect: Connect, tls: ssl.SSLContext, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []
    load = ssl.SSLContext.load_verify_locations

    def counted(self: ssl.SSLContext, *args: Any, **options: Any) -> None:
        loaded.append(options)
        load(self, *args, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counted)
    peer = serve(answers(http(200, b"{}", Connection="close")), tls)
    transport = connect(verify=ca_file)
    for _ in range(3):
        assert post(transport, peer).status == 200
    assert peer.connections == 3
    assert loaded == [{"cafile": ca_file}]


def test_a_peer_without_tls(serve: Serve, connect: Connect) -> None:
    peer = serve(lambda caller: caller.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    reply = connect().post(f"https://localhost:{peer.port}/", BODY, HEADERS)
    assert fault(reply).startswith("no TLS with localhost: ")


def test_a_connection_closed_in_the_handshake(serve: Serve, connect: Connect) -> None:
    peer = serve(lambda caller: None)
    reply = connect().post(f"https://localhost:{peer.port}/", BODY, HEADERS)
    assert fault(reply).startswith("no TLS with localhost: ")


# -- the environment


def test_the_environment_is_left_alone(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, ca_file: str
) -> None:
    proxy = serve(answers(http(502)))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
    transport = connect(verify=True)
    assert post(transport, serve(answers(http()))).status == 200
    assert "not accepted" in fault(post(transport, serve(answers(http()), tls)))
    assert proxy.connections == 0


@pytest.mark.parametrize("trust_env", [False, True])
def test_a_netrc_is_not_read(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trust_env: bool
) -> None:
    path = tmp_path / "netrc"
    path.write_text("default login someone password something\n")
    monkeypatch.setenv("NETRC", str(path))
    peer = serve(answers(http()))
    post(connect(trust_env=trust_env), peer)
    assert b"authorization" not in peer.requests[0].lower()


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_for_http(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    proxy = serve(answers(http()))
    monkeypatch.setenv("HTTP_PROXY", f"{scheme}user:word@127.0.0.1:{proxy.port}")
    transport = connect(trust_env=True)
    for _ in range(2):
        assert transport.post("http://mmolove.example/events?x=1", BODY, HEADERS).status == 200
    assert proxy.connections == 1
    assert proxy.requests[0].startswith(b"POST http://mmolove.example/events?x=1 HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in proxy.requests[0]


@pytest.mark.parametrize("proxy_scheme", ["http", "https"])
def test_a_proxy_for_https(
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    tls: ssl.SSLContext,
    ca_file: str,
    proxy_scheme: str,
) -> None:
    peer = serve(answers(http()), tls)
    proxy = serve(tunnels(peer), tls if proxy_scheme == "https" else None)
    monkeypatch.setenv("HTTPS_PROXY", f"{proxy_scheme}://localhost:{proxy.port}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
    reply = post(connect(verify=True, trust_env=True), peer)
    assert (reply.status, reply.error) == (200, "")
    assert proxy.requests[0].startswith(f"CONNECT localhost:{peer.port} HTTP/1.".encode())
    assert b"5ec2e7" not in proxy.requests[0]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (says(b"HTTP/1.1 403 Forbidden\r\n\r\n"), "the connection to mmolove.example failed: tunnel connection"),
        (drips(b"", b"HTTP/1.1 200 OK\r\nX: y\r\n"), "no answer from mmolove.example within 1 s"),
    ],
)
def test_a_proxy_that_makes_no_tunnel(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, script: Script, error: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{serve(script).port}")
    assert fault(connect(1, trust_env=True).post("https://mmolove.example/", BODY, HEADERS)).startswith(error)


def test_a_socks_proxy_is_not_passed_by(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = serve(answers(http()))
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    error = fault(post(connect(trust_env=True), peer))
    assert error == "only http and https proxies are supported, not socks5"
    assert peer.connections == 0
