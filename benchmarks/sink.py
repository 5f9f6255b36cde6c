"""A MMOLove that does nothing but verify each signature and answer, after a latency, as the real one does.

``python -m benchmarks.sink`` listens until its standard input ends. It says where in one line of JSON, and what it
has counted, likewise, for each line that it reads.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import ssl
import sys
from collections import Counter
from email.utils import formatdate
from typing import Any

import trustme
import uvloop

SERVER_ID, SECRET = "srv_bench", "bench-secret"

_END = b"\r\n\r\n"
_SIGNATURE = b"x-mmolove-signature:"
_LENGTH = b"content-length:"

counted: Counter[str] = Counter()


def answer(head: bytes, body: bytes) -> bytes:
    """The whole answer to one request. Nothing of the package is used here, so that it may disagree."""
    signature = b""
    for line in head.split(b"\r\n"):
        if line[:20].lower() == _SIGNATURE:
            signature = line[20:].strip()
    moment, _, rest = signature.partition(b",")
    signed = hmac.new(SECRET.encode(), moment.removeprefix(b"t=") + b"." + body, hashlib.sha256).hexdigest()
    if rest.decode() != f"v1=sha256={signed}":
        counted["refused"] += 1
        return _http(b"401 Unauthorized", b'{"ok":false,"error":"invalid_signature"}')
    counted["verified"] += 1
    event = json.loads(body)
    told = {"ok": True, "referral_id": f"ref_{event['server_event_id']}", "state": event["event"]}
    return _http(b"200 OK", json.dumps(told).encode())


def _http(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nDate: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        formatdate(usegmt=True).encode(),
        len(body),
        body,
    )


class Peer(asyncio.Protocol):
    """One connection. ``latency`` is the seconds to each answer, ``opening`` those more to the first."""

    def __init__(self, latency: float, opening: float) -> None:
        self._latency, self._opening = latency, opening
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        counted["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(_END)
        if not end:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(_LENGTH)), 0)
        if len(rest) < length:
            return
        self._received = rest[length:]
        whole = answer(head, rest[:length])
        delay, self._opening = self._latency + self._opening, 0.0
        if delay:
            asyncio.get_running_loop().call_later(delay, self._transport.write, whole)
        else:
            self._transport.write(whole)


async def serve(latency: float, opening: float, authority: str) -> None:
    loop = asyncio.get_running_loop()
    context = None
    if authority:
        made = trustme.CA()
        made.cert_pem.write_to_path(authority)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.issue_cert("127.0.0.1").configure_cert(context)
    server = await loop.create_server(lambda: Peer(latency, opening), "127.0.0.1", 0, ssl=context, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    scheme = "https" if authority else "http"
    _say({"endpoint": f"{scheme}://127.0.0.1:{port}/api/referral/events"})
    while await loop.run_in_executor(None, sys.stdin.readline):
        _say(dict(counted))
        counted.clear()


def _say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds to each answer")
    parser.add_argument("--opening", type=float, default=0.0, help="seconds more to the first answer of a connection")
    parser.add_argument("--tls", default="", metavar="FILE", help="speak TLS, and write the CA's certificate there")
    options = parser.parse_args()
    uvloop.run(serve(options.latency, options.opening, options.tls))


if __name__ == "__main__":
    main()
