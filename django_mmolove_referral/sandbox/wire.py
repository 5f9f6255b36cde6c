"""A request as MMOLove reads it: the fields of an event and its signature.

Strict where the contract is silent, so that a careless sender is found out here and not in production.
Written independently of the sender's own code on purpose.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from ..protocol import REPLAY_WINDOW

KINDS = ("registered", "qualified", "reversed")
MAX_BODY = 64 * 1024
"""Bytes of the largest request body."""


class RefusedError(Exception):
    """A refusal: the HTTP ``status`` and the ``error`` text of its JSON body."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error


@dataclass(frozen=True)
class Event:
    """The fields of a well-shaped event (contract, "The request")."""

    kind: str
    token: str
    server_id: str
    server_event_id: str
    #: The stable account id; empty unless ``registered``.
    referee_identity: str
    #: A dry run: checked, never recorded.
    test: bool


@dataclass(frozen=True)
class Request:
    """A request to the endpoint, as it came."""

    body: bytes
    #: The signature header's value; empty if there was none.
    signature: str
    content_type: str
    method: str

    @cached_property
    def fields(self) -> dict[str, Any] | None:
        """The JSON object in the body (UTF-8, without the ``NaN`` that JSON does not know), or ``None``."""
        try:
            # Decoded here, as json.loads would also accept UTF-16 and UTF-32.
            parsed = json.loads(self.body.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, dict) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_event(fields: dict[str, Any] | None) -> Event:
    """The event in a parsed body; raises :class:`RefusedError` (400) naming the field. Ignores extra ones."""
    if fields is None:
        raise _malformed("the body must be a JSON object in UTF-8")
    kind = fields.get("event")
    if kind not in KINDS:
        raise _malformed(f"event must be one of {', '.join(KINDS)}")
    token = _text(fields, "token").strip()
    server_id = _text(fields, "server_id")
    server_event_id = _text(fields, "server_event_id")
    referee_identity = _text(fields, "referee_identity") if kind == "registered" else ""
    if "ts" in fields and not _is_number(fields["ts"]):
        raise _malformed("ts must be a number of unix seconds")
    test = fields.get("test", False)
    if not isinstance(test, bool):
        raise _malformed("test must be a boolean")
    return Event(kind, token, server_id, server_event_id, referee_identity, test)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _malformed(f"{name} must be a non-empty string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _malformed(f"{name} must be valid Unicode") from None
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _malformed(reason: str) -> RefusedError:
    return RefusedError(400, f"malformed: {reason}")


def check_signature(header: str, body: bytes, secret: str, now: float) -> None:
    """Raise :class:`RefusedError` (401) unless ``header`` signs ``body`` within the replay window of ``now``.

    The signature comes first: only the holder of the secret is told about the clock.
    """
    parts = [part.partition("=") for part in header.split(",")]
    names, values = [name for name, _, _ in parts], [value for _, _, value in parts]
    if names not in (["t", "v1"], ["t", "v1", "kid"]) or not all(values):
        raise RefusedError(401, "bad_signature")
    signed_at = values[0]
    if not (signed_at.isascii() and signed_at.isdigit() and len(signed_at) <= 12):
        raise RefusedError(401, "bad_signature")
    mac = hmac.new(secret.encode(), signed_at.encode() + b"." + body, hashlib.sha256).hexdigest()
    # As bytes: compare_digest refuses text that is not ASCII.
    if not hmac.compare_digest(f"sha256={mac}".encode(), values[1].encode("utf-8", "replace")):
        raise RefusedError(401, "bad_signature")
    if abs(now - int(signed_at)) > REPLAY_WINDOW:
        raise RefusedError(401, "stale_timestamp")
