"""Peers on real sockets for the tests of the transport: well-behaved, and hostile in every way we know of."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Script: TypeAlias = Callable[["Caller"], None]


def http(status: int = 200, body: bytes = b'{"ok":true}', **headers: str) -> bytes:
    """A whole answer; ``Content_Type="text/html"`` adds that header."""
    lines = [f"HTTP/1.1 {status} Any", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Caller:
    """One connection to a peer, as the peer's script sees it."""

    def __init__(self, peer: Peer, sock: socket.socket) -> None:
        self._peer = peer
        self._buffer = b""
        self.sock = sock

    def request(self) -> bytes:
        """The next whole request, also noted in ``peer.requests``; ``b""`` once the caller has gone."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                return b""
        head, _, _ = self._buffer.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(self._buffer) < len(head) + 4 + length:
            if not self._fill():
                return b""
        request, self._buffer = self._buffer[: len(head) + 4 + length], self._buffer[len(head) + 4 + length :]
        self._peer.requests.append(request)
        return request

    def _fill(self) -> bool:
        data = self.sock.recv(65536)
        self._buffer += data
        return bool(data)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes) -> None:
        """Send ``data`` a byte at a time, again and again, until the test ends or the caller goes."""
        while True:
            for byte in data:
                if self._peer.released.wait(0.005):
                    return
                self.sock.sendall(bytes([byte]))

    def flood(self, data: bytes) -> None:
        """Send ``data`` over and over as fast as the caller takes it."""
        while not self._peer.released.is_set():
            self.sock.sendall(data)

    def hold(self) -> None:
        """Do nothing until the test ends."""
        self._peer.released.wait()


class Peer:
    """Listens on a port of its own and runs ``script`` in a thread for each connection it gets."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.released = threading.Event()
        self._script = script
        self._tls = tls
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.host = "localhost" if tls else "127.0.0.1"
        self.url = f"{'https' if tls else 'http'}://{self.host}:{self.port}/api/referral/events"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                if self.released.is_set():
                    sock.close()
                    return
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._socks.append(sock)
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        # What goes wrong on this side is the other side's doing, and for the test to see there.
        with contextlib.suppress(OSError):
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self._socks.append(sock)
                sock.do_handshake()
            self._script(Caller(self, sock))
        sock.close()

    def close(self) -> None:
        self.released.set()
        with contextlib.suppress(OSError):  # wakes the accepting thread
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._threads[0].join(5)
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


def answers(*replies: bytes) -> Script:
    """Answers the requests of a connection with ``replies`` in turn, and all further ones with the last."""

    def script(caller: Caller) -> None:
        turn = 0
        while caller.request():
            caller.send(replies[min(turn, len(replies) - 1)])
            turn += 1

    return script


def says(data: bytes) -> Script:
    """Takes one request, sends ``data``, and closes."""

    def script(caller: Caller) -> None:
        caller.request()
        caller.send(data)

    return script


def drips(first: bytes, then: bytes) -> Script:
    """Takes one request, sends ``first`` at once, and then drips ``then`` for ever."""

    def script(caller: Caller) -> None:
        caller.request()
        caller.send(first)
        caller.drip(then)

    return script


def floods(first: bytes, then: bytes) -> Script:
    """Takes one request, sends ``first``, and then ``then`` for ever."""

    def script(caller: Caller) -> None:
        caller.request()
        caller.send(first)
        caller.flood(then)

    return script


def goes_stale(caller: Caller) -> None:
    """Answers the first request of each connection and closes it on the second."""
    caller.request()
    caller.send(http())
    caller.request()


def silent(caller: Caller) -> None:
    """Reads nothing, says nothing, stays."""
    caller.hold()


def tunnels(to: Peer) -> Script:
    """A proxy that connects its callers to ``to``, whatever they ask for."""

    def script(caller: Caller) -> None:
        caller.request()
        with socket.create_connection(("127.0.0.1", to.port)) as onward:
            caller.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(onward, caller.sock))
            back.start()
            _pump(caller.sock, onward)
            with contextlib.suppress(OSError):
                onward.shutdown(socket.SHUT_RDWR)
            back.join(5)

    return script


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
