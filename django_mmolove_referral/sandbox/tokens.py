"""The sandbox's ``mmref`` tokens.

They verify themselves: whoever holds the key can read them, so that no click has to be remembered. The
format is the sandbox's own; MMOLove's is not published, and nothing outside this module may parse it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass

from .wire import RefusedError

MAX_AGE = 90 * 24 * 3600
"""Seconds for which a token is good."""
MAX_CODE = 64
"""Characters of the longest referrer code that a token can carry."""


@dataclass(frozen=True)
class Click:
    """What a token vouches for: who shared the link, for which server, and when it was clicked."""

    server_id: str
    referrer: str
    #: Unix seconds.
    at: float


def mint(key: bytes, click: Click) -> str:
    """A new token for ``click``; two clicks never share one."""
    claims = [click.server_id, click.referrer, click.at, secrets.token_hex(4)]
    payload = _base64(json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    return f"{payload}.{_mac(key, payload)}"


def read(key: bytes, token: str, server_id: str, now: float) -> Click:
    """The click behind ``token``.

    Raises :class:`RefusedError` (404) for what this key never minted, for another server's token, and after
    90 days.
    """
    payload, _, mac = token.partition(".")
    if not hmac.compare_digest(_mac(key, payload).encode(), mac.encode()):
        raise RefusedError(404, "unknown_token")
    bound_to, referrer, at, _ = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if bound_to != server_id:
        raise RefusedError(404, "unknown_token")
    if now - at > MAX_AGE:
        raise RefusedError(404, "expired_token")
    return Click(bound_to, referrer, at)


def _mac(key: bytes, payload: str) -> str:
    return _base64(hmac.new(key, payload.encode(), hashlib.sha256).digest()[:18])


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
