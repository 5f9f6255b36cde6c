"""HTTP with one hard deadline and one size limit per exchange, over kept-alive connections.

urllib3's pools are used as requests sets them up, but without its sessions: those follow redirects, keep
cookies, read .netrc, and take three times the CPU per exchange.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import parse_url

from .masking import printable
from .sockets import POOLS, Exchange, Fault, Pool, Stage, current, reason, tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping


_HEADROOM = 64 * 1024  # bytes read besides the body: headers, interim answers, framing
#: What a peer can provoke in http.client and urllib3. Not every Exception: a task's time limit is one, too.
_PROVOKED = (HTTPError, http.client.HTTPException, OSError, ValueError, LookupError)


@dataclass(frozen=True)
class Reply:
    """An HTTP answer that arrived whole, or why none did."""

    #: 0 if no answer arrived whole.
    status: int
    #: Looked up without regard to case.
    headers: Mapping[str, str]
    #: Decoded, at most as long as the transport's limit.
    body: bytes
    #: Why no answer arrived whole, in one line; empty if it did.
    error: str
    #: Unix seconds.
    started_at: float
    #: Seconds.
    duration: float


class Transport:
    """Posts bytes over kept-alive connections; one for many threads, and for the children of a fork.

    ``deadline`` is the seconds that one exchange may take, from connecting to the last byte read (name
    resolution counts, but is not interrupted). ``limit`` is the most bytes of a body, encoded or decoded.
    At most ``connections`` are kept for later; as many are opened as there are callers at a time. ``verify`` is
    whether to check TLS certificates, or the path of a CA file or directory to check them by. With
    ``trust_env``, proxies and the CA bundle come from the environment as in requests, but never a .netrc;
    SOCKS proxies are not supported.
    """

    def __init__(
        self,
        *,
        deadline: float,
        limit: int = 65536,
        connections: int = 32,
        verify: bool | str = True,
        trust_env: bool = False,
    ) -> None:
        self._deadline = deadline
        self._limit = limit
        self._connections = connections
        self._verify = verify
        self._trust_env = trust_env
        self._reset()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST ``body`` to ``url`` and read the answer.

        Whatever the peer, the network, DNS or TLS do becomes the reply's ``error``, never an exception.
        Raises ``ValueError`` for a ``url`` that is no http or https address. An answer that did not arrive
        because a kept connection had gone stale is asked for once more, on a new connection and within the same
        deadline.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https address: {url!r}")
        started_at, began = time.time(), time.monotonic()
        exchange = Exchange(parts.hostname, self._deadline, self._limit + _HEADROOM)
        answer_headers: Mapping[str, str] = {}
        status, answer, error = 0, b"", ""
        current.exchange = exchange
        try:
            answer_headers, answer = self._exchange(exchange, url, body, {"Accept-Encoding": "identity", **headers})
            status = exchange.status
        except Fault as fault:
            error = str(fault)
        except _PROVOKED as provoked:
            error = _explain(provoked, exchange.host)
        finally:
            del current.exchange
        if error and exchange.status:
            error = f"HTTP {exchange.status}, but {error}"
        return Reply(status, answer_headers, answer, printable(error), started_at, time.monotonic() - began)

    def close(self) -> None:
        """Close the kept connections. The transport stays usable: it opens new ones when needed."""
        routes = self._routes
        self._reset()
        for route in routes.values():
            route.pool.close()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._adapter: _Adapter | None = None
        self._routes: dict[str, _Route] = {}
        self._pid = os.getpid()

    def _exchange(
        self, exchange: Exchange, url: str, body: bytes, headers: dict[str, str]
    ) -> tuple[Mapping[str, str], bytes]:
        route = self._route(url)
        try:
            return self._attempt(exchange, route, body, headers)
        except _PROVOKED:
            # The peer may have closed a kept connection while the request was on its way. Events carry an
            # idempotency key, so sending one twice does no harm.
            if exchange.connected or exchange.received:
                raise
        exchange.fresh = True
        return self._attempt(exchange, route, body, headers)

    def _attempt(
        self, exchange: Exchange, route: _Route, body: bytes, headers: dict[str, str]
    ) -> tuple[Mapping[str, str], bytes]:
        answer_headers, answer = route.pool.post(route.target, body, headers, self._limit)
        if len(answer) > self._limit:
            raise Fault(f"the answer of {exchange.host} is larger than {self._limit} bytes")
        encoding = answer_headers.get("Content-Encoding", "").strip().lower()
        if answer and encoding not in ("", "identity"):
            answer = _decode(answer, encoding, self._limit, exchange.host)
        return answer_headers, answer

    def _route(self, url: str) -> _Route:
        if self._pid != os.getpid():
            self._reset()  # a fork: these connections are the parent's
        route = self._routes.get(url)
        if route is None:
            with self._lock:  # all threads start at once; the CA bundle takes 17 ms of CPU to load
                route = self._routes[url] = self._routes.get(url) or self._new_route(url)
        return route

    def _new_route(self, url: str) -> _Route:
        if self._adapter is None:
            self._adapter = _Adapter(self._tls_context(), self._connections)
        proxy = select_proxy(url, get_environ_proxies(url)) if self._trust_env else None
        if not proxy:
            pool = cast("Pool", self._adapter.poolmanager.connection_from_url(url))
            return _Route(pool, parse_url(url).request_uri)
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if not proxy.lower().startswith("http"):
            raise Fault(f"only http and https proxies are supported, not {proxy.partition(':')[0]}")
        pool = cast("Pool", self._adapter.proxy_manager_for(proxy).connection_from_url(url))
        return _Route(pool, url if pool.scheme == "http" else parse_url(url).request_uri)

    def _tls_context(self) -> ssl.SSLContext:
        verify = self._verify
        if verify is True and self._trust_env:
            verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        path = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
        try:
            return tls_context(path)
        except OSError as error:
            raise Fault(f"{Stage.AUTHORITIES.value}{path}: {reason(error)}") from None


@dataclass(frozen=True)
class _Route:
    """The way to one address: the pool of connections, and what stands in the request line."""

    pool: Pool
    target: str


class _Adapter(HTTPAdapter):
    """requests' pools and proxies, with our connections in them and one TLS context for all."""

    def __init__(self, context: ssl.SSLContext, connections: int) -> None:
        self._context = context
        super().__init__(pool_maxsize=connections)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        contexts = {"ssl_context": self._context, "proxy_ssl_context": self._context}
        manager = super().proxy_manager_for(proxy, **contexts, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


def _decode(body: bytes, encoding: str, limit: int, host: str) -> bytes:
    """An answer encoded although none was asked for; never inflated beyond ``limit``."""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Fault(f"the answer of {host} is encoded as {encoding!r}")
    # "deflate" means zlib's format, but some send it bare.
    for wbits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        inflater = zlib.decompressobj(wbits)
        try:
            plain = inflater.decompress(body, limit + 1)
        except zlib.error:
            continue
        if len(plain) > limit:
            raise Fault(f"the answer of {host} is larger than {limit} bytes")
        if inflater.eof:
            return plain
    raise Fault(f"the answer of {host} is no whole {encoding}")


def _explain(error: Exception, host: str) -> str:
    """What went wrong, told by the innermost of the errors that urllib3 wraps; nothing that the peer sent."""
    cause = error
    while inner := next((arg for arg in cause.args if isinstance(arg, Exception)), None):
        cause = inner
    if isinstance(cause, http.client.RemoteDisconnected):
        return f"{host} closed the connection without an answer"
    if isinstance(cause, http.client.IncompleteRead):
        return f"the answer of {host} broke off"
    if isinstance(cause, OSError):
        return f"the connection to {host} failed: {reason(cause)}"
    if isinstance(cause, (http.client.HTTPException, InvalidHeader)):
        return f"the answer of {host} is not proper HTTP"
    return f"the exchange with {host} failed: {type(cause).__name__}"
