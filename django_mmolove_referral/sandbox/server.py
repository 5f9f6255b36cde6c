"""The threaded-server face: the sandbox over real sockets, for tests and for the ``mmolove_sandbox`` command.

It needs no database and no Django settings, and carries out what a web framework cannot: lost connections,
silence, answers byte by byte.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from .faults import Fault
from .routes import EVENTS_PATH, SHARE_PREFIX, handle
from .wire import MAX_BODY

if TYPE_CHECKING:
    from types import TracebackType

    from .core import Sandbox
    from .response import Response

logger = logging.getLogger("mmolove_referral.sandbox")


class SandboxServer:
    """``sandbox`` on ``host:port`` (0: any free port): HTTP/1.1 with keep-alive, or https by ``ssl_context``.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. A stopped server may be started
    again, on the same port: connections are refused in between. Starting raises ``OSError`` if the port
    cannot be had.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.sandbox = sandbox
        self.host = host
        self.port = port
        self._ssl_context = ssl_context
        self._listener: _Listener | None = None
        self._thread: Thread | None = None

    @property
    def url(self) -> str:
        """``http://host:port``, without a slash; the port is known once started."""
        return f"{'https' if self._ssl_context else 'http'}://{self.host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Where events are posted to."""
        return f"{self.url}/{EVENTS_PATH}"

    def share_url(self, server_id: str) -> str:
        """A server's share link, without ``?ref=``."""
        return f"{self.url}/{SHARE_PREFIX}{quote(server_id, safe='')}"

    def start(self) -> None:
        """Listen and serve, in threads."""
        self._listener = _Listener((self.host, self.port), self.sandbox, self._ssl_context)
        self.port = self._listener.server_address[1]
        self._thread = Thread(target=self._listener.serve_forever, args=(0.02,), name="mmolove-sandbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection, and wait for the threads to end."""
        if self._listener is not None and self._thread is not None:
            self._listener.stop()
            self._thread.join()
            self._listener = self._thread = None

    def __enter__(self) -> SandboxServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Listener(ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128  # a whole drain connects at once

    def __init__(self, address: tuple[str, int], sandbox: Sandbox, ssl_context: ssl.SSLContext | None) -> None:
        self.sandbox = sandbox
        self.stopping = Event()
        self._ssl_context = ssl_context
        self._connections: dict[socket.socket, Thread] = {}
        super().__init__(address, _Handler)

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        for connection, thread in self._connections.items():
            with suppress(OSError):  # closed already
                # Past SSLSocket's own shutdown, which would pull the session from under the reading thread.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            thread.join()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._ssl_context is not None:
            # The handshake is left to the connection's own thread: a silent client holds up nobody else.
            connection = self._ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        # Daemons, so that a server nobody stopped does not hold up the interpreter; kept, so that stop() can
        # wait for them, which the base class does for other threads only.
        thread = Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        alive = {kept: worker for kept, worker in self._connections.items() if worker.is_alive()}
        self._connections = {**alive, request: thread}
        thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if isinstance(request, ssl.SSLSocket):
            request.do_handshake()
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up, or trusts no such certificate, is part of what is tested here.
        level = logging.DEBUG if isinstance(sys.exc_info()[1], OSError) else logging.ERROR
        logger.log(level, "Connection from %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def _serve(self) -> None:
        body = self._read_body()
        if body is None:
            self.close_connection = True
            return
        path, _, query = self.path.partition("?")
        headers = dict(self.headers.items())
        self._send(handle(self.server.sandbox, self.command, unquote(path).removeprefix("/"), query, headers, body))

    # The names that the base class looks for.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _read_body(self) -> bytes | None:
        """The body, read to its end and kept as far as it counts; ``None`` if it has no certain end."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or len(length) > 12:
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
            return None
        left = int(length)
        body = b""
        while left > 0:
            chunk = self.rfile.read(min(left, MAX_BODY))
            if not chunk:
                return None
            left -= len(chunk)
            body = (body + chunk)[: MAX_BODY + 1]
        return body

    def _send(self, response: Response) -> None:
        fault = response.fault or Fault()
        self.close_connection = self.close_connection or fault.drop or fault.truncate
        if self.server.stopping.wait(fault.delay) or fault.drop:
            return
        raw = self._render(response)
        if fault.truncate:
            raw = raw[: -max(len(response.body) // 2, 1)]
        if not fault.drip:
            self.wfile.write(raw)
            return
        for position in range(len(raw)):
            if position and self.server.stopping.wait(fault.drip):
                return
            self.wfile.write(raw[position : position + 1])

    def _render(self, response: Response) -> bytes:
        # The sandbox's clock, so that a sender can see from the Date how far its own one is off.
        date = self.date_time_string(self.server.sandbox.clock())
        headers = {"Date": date, "Content-Length": str(len(response.body)), **response.headers}
        if self.close_connection:
            headers["Connection"] = "close"
        lines = [f"{self.protocol_version} {response.status} {self.responses.get(response.status, [''])[0]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        bodiless = self.command == "HEAD" or response.status < 200 or response.status in (204, 304)
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if bodiless else response.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        logger.debug(format, *args)
