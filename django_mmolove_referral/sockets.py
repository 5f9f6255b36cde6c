"""Connections for urllib3 that end with the exchange they serve.

Timeouts of requests and urllib3 are per operation: a peer that sends a byte now and then holds an exchange for
as long as it likes. Here every operation on a socket gets what is left of its exchange's one deadline and one
budget of bytes, so that no peer holds it longer or makes it read more, whatever it drips: connecting to many
addresses, TLS, a proxy's tunnel, sending, interim answers, headers, body. (Name resolution cannot be
interrupted; the time it takes counts.)
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    _Socket = socket.socket
    _Connection = HTTPConnection
    _Pool = HTTPConnectionPool
else:  # the mixins below name what they are mixed into for the type checker only
    _Socket = _Connection = _Pool = object

_T = TypeVar("_T")

SLACK = 0.1
"""Seconds by which an operation may end before or after its exchange's deadline."""
IDLE_LIMIT = 30.0
"""Seconds after which an idle connection is not used again: firewalls drop such ones without a word."""


class Stage(str, Enum):
    """How far an exchange came that nobody answered; each with the words that its error begins with."""

    NAME = "could not resolve the name "
    CONNECTION = "could not connect to "
    TLS = "no TLS with "
    CERTIFICATE = "TLS certificate of "
    AUTHORITIES = "no CA certificates could be read from "


def stage_of(error: str) -> Stage | None:
    """Where an exchange with this error ended; ``None``: with the answer, or for want of one."""
    return next((stage for stage in Stage if error.startswith(stage.value)), None)


class Fault(Exception):
    """The exchange ends here; ``str`` says why, in plain words.

    No ``OSError``, so that http.client and urllib3 pass it on as it is.
    """


class Exchange:
    """One POST and its answer: how much time and how many bytes it may still take, and how far it has come.

    ``host`` is for error texts; ``deadline`` is in seconds from now; ``budget`` is the most bytes read from the
    peer, with headers, interim answers and framing.
    """

    __slots__ = ("_budget", "_ends_at", "connected", "deadline", "fresh", "host", "received", "status")

    def __init__(self, host: str, deadline: float, budget: int) -> None:
        self.host = host
        self.deadline = deadline
        self.received = 0
        #: The answer's HTTP status, 0 until its headers have arrived.
        self.status = 0
        #: Whether a connection was opened for it, rather than a kept one used again.
        self.connected = False
        #: Whether no kept connection will do.
        self.fresh = False
        self._budget = budget
        self._ends_at = time.monotonic() + deadline

    def remaining(self) -> float:
        """Seconds left, more than 0; raises :class:`Fault` when there are none."""
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise self.late()
        return left

    def late(self) -> Fault:
        return Fault(f"no {'complete ' if self.status else ''}answer from {self.host} within {self.deadline:g} s")

    def count(self, received: int) -> None:
        self.received += received
        if self.received > self._budget:
            raise Fault(f"the answer of {self.host} is larger than {self._budget} bytes, headers included")


class _Current(threading.local):
    exchange: Exchange


#: The exchange that this thread is busy with: urllib3 hands nothing of ours down to the socket.
current = _Current()


def reason(error: OSError) -> str:
    """What has happened in the system's own words, without numbers and names of classes."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = error.verify_message
    elif isinstance(error, ssl.SSLError):
        text = (error.reason or "connection closed").replace("_", " ").lower()
    else:
        text = error.strerror or str(error) or "connection lost"
    return text[:1].lower() + text[1:]


class _Timed(_Socket):
    """A socket none of whose operations outlasts the exchange of the thread that uses it."""

    used_at = 0.0
    """Monotonic time of the last bytes received."""

    def settimeout(self, value: float | None) -> None:
        """Nothing: urllib3 sets timeouts of its own, several in each exchange, and here the deadline rules."""

    def recv_into(self, *args: Any) -> int:
        received = self._within(super().recv_into, *args)
        self.used_at = time.monotonic()
        exchange = current.exchange
        exchange.count(received)
        if not received and exchange.received and not exchange.status:
            # http.client would take the end of the stream for the end of the headers.
            raise Fault(f"the answer of {exchange.host} broke off")
        return received

    def recv(self, *args: Any) -> bytes:
        """What urllib3 calls in the place of ``recv_into`` where TLS runs within TLS, through an https proxy."""
        data = self._within(super().recv, *args)
        current.exchange.count(len(data))
        return data

    def sendall(self, *args: Any) -> None:
        self._within(super().sendall, *args)

    def _within(self, operation: Callable[..., _T], *args: Any) -> _T:
        exchange = current.exchange
        left = exchange.remaining()
        # Setting it is a system call and a chance for each other thread to take the interpreter, several times in each
        # exchange.
        if abs(left - (self.gettimeout() or 0.0)) > SLACK:
            super().settimeout(left)
        try:
            return operation(*args)
        except TimeoutError:
            raise exchange.late() from None


class _PlainSocket(_Timed, socket.socket):
    pass


class _TLSSocket(_Timed, ssl.SSLSocket):
    def send(self, *args: Any) -> int:
        """One piece of a ``sendall``: on TLS the timeout is for each of them."""
        return self._within(super().send, *args)

    def do_handshake(self, block: bool = False) -> None:
        host = self.server_hostname or current.exchange.host
        try:
            self._within(super().do_handshake, block)
        except BaseException as error:
            self.close()  # ssl does so for an OSError only
            if isinstance(error, ssl.SSLCertVerificationError):
                raise Fault(f"{Stage.CERTIFICATE.value}{host} not accepted: {reason(error)}") from None
            if isinstance(error, OSError):
                raise Fault(f"{Stage.TLS.value}{host}: {reason(error)}") from None
            raise


class _Timely(_Connection):
    """A connection made of such sockets. Headers leave together with the body: one packet, one TLS record, and half
    of the time that sending takes."""

    _head = b""
    _holding = False

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        self._holding = True
        try:
            super().endheaders(*args, **kwargs)
        finally:
            self._holding = False

    def send(self, data: Any) -> None:
        if self._holding:
            self._holding, self._head = False, data
            return
        head, self._head = self._head, b""
        super().send(head + data)

    @property
    def is_connected(self) -> bool:
        """Asked by the pool before it hands out a kept connection; a "no" makes it connect anew."""
        if current.exchange.fresh or time.monotonic() - getattr(self.sock, "used_at", 0.0) > IDLE_LIMIT:
            return False
        return super().is_connected

    def _new_conn(self) -> socket.socket:
        exchange = current.exchange
        exchange.connected = True
        try:
            addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = reason(error) if isinstance(error, OSError) else "no valid host name"
            raise Fault(f"{Stage.NAME.value}{self.host}: {why}") from None
        why = "no address"
        for tried, (family, kind, proto, _, address) in enumerate(addresses):
            try:
                # A share each, so that one dead address does not use up the time of those after it.
                timeout = exchange.remaining() / (len(addresses) - tried)
                return self._open(family, kind, proto, address, timeout)
            except TimeoutError:
                why = "timed out"
            except OSError as error:
                why = reason(error)
        raise Fault(f"{Stage.CONNECTION.value}{self.host}:{self.port}: {why}")

    def _open(self, family: int, kind: int, proto: int, address: Any, timeout: float) -> socket.socket:
        sock = _PlainSocket(family, kind, proto)
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            socket.socket.settimeout(sock, timeout)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock


class _PlainConnection(_Timely, HTTPConnection):
    pass


class _TLSConnection(_Timely, HTTPSConnection):
    pass


class Pool(_Pool):
    """urllib3's pools keep the connections and set up proxies; the exchange itself is http.client's.

    What urllib3 puts around it (retries, redirects, timeouts, responses of its own) is not wanted here, and takes
    half of the CPU.
    """

    def post(self, target: str, body: bytes, headers: Mapping[str, str], limit: int) -> tuple[Mapping[str, str], bytes]:
        """Post ``body``; the headers and the body of the answer, at most ``limit`` bytes of it and one more."""
        if self.proxy is not None and self.scheme == "http":
            headers = {**headers, **self.proxy_headers}
        connection: Any = self._get_conn()
        whole = False
        try:
            if connection.sock is None and self.proxy is not None:
                self._prepare_proxy(connection)  # connects, if there is a tunnel to be made
            if connection.sock is None:
                connection.connect()
            http.client.HTTPConnection.request(connection, "POST", target, body, headers)
            response = http.client.HTTPConnection.getresponse(connection)
            current.exchange.status = response.status
            answer = _read(response, limit)
            # After an answer without a body something may follow (the final answer after an interim one), which must
            # not be taken for the answer to the next event.
            whole = response.isclosed() and response.status >= 200 and response.status not in (204, 304)
            return cast("Mapping[str, str]", response.headers), answer
        finally:
            if not whole:
                connection.close()
            self._put_conn(connection)


def _read(response: http.client.HTTPResponse, limit: int) -> bytes:
    if response.length is None and not response.chunked and "Content-Length" in response.headers:
        raise http.client.HTTPException("Content-Length is no number")  # http.client would read to the end
    body = b""
    while len(body) <= limit and (chunk := response.read(limit + 1 - len(body))):
        body += chunk
    if response.length and len(body) <= limit:  # http.client takes what it gets for the whole
        raise http.client.IncompleteRead(body, response.length)
    return body


class _PlainPool(Pool, HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TLSPool(Pool, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


#: For ``pool_classes_by_scheme`` of urllib3's pool managers, with a TLS context made by :func:`tls_context`.
POOLS = {"http": _PlainPool, "https": _TLSPool}


def tls_context(trust: str | Literal[False]) -> ssl.SSLContext:
    """A client's TLS context with urllib3's policy, whose sockets keep to their exchange, handshake included.

    ``trust`` is a file or directory of CA certificates; with ``False`` no certificate is checked.
    Raises ``OSError`` for a path without certificates.
    """
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if trust else ssl.CERT_NONE)
    context.sslsocket_class = _TLSSocket
    if trust:
        context.check_hostname = True  # OpenSSL's own check, which urllib3 1 replaces by one after the handshake
        context.load_verify_locations(**{"capath" if Path(trust).is_dir() else "cafile": trust})
    return context
