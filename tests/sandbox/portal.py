"""A sender of the tests' own: it signs with these few lines, and never with the package's."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from django_mmolove_referral.sandbox import Response, Sandbox

SERVER, SECRET = "srv_1", "topsecret"
OTHER_SERVER, OTHER_SECRET = "srv_2", "another secret"
REGISTER_URL = "https://portal.example/signup/?lang=en#form"
NOW = 1_733_500_000.0


def sign(secret: str, body: bytes, t: int | str) -> str:
    mac = hmac.new(secret.encode(), str(t).encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={t},v1=sha256={mac}"


class Clock:
    """Time that passes when told to."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def event(kind: str, token: str, **fields: Any) -> dict[str, Any]:
    """A complete event; ``fields`` replace or add, and take away where they are ``None``."""
    complete = {
        "event": kind,
        "server_id": SERVER,
        "ts": int(NOW) - 10,
        "token": token,
        "referee_identity": "7842",
        "server_event_id": f"{kind[:3]}-7842",
        **fields,
    }
    return {name: value for name, value in complete.items() if value is not None}


@dataclass
class Portal:
    """One sandbox, and a well-behaved sender for it."""

    clock: Clock = field(default_factory=Clock)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sandbox = Sandbox(
            {SERVER: SECRET, OTHER_SERVER: OTHER_SECRET},
            register_url=REGISTER_URL,
            clock=self.clock,
            **self.options,
        )

    def mint(self, referrer: str = "alice", server_id: str = SERVER) -> str:
        return self.sandbox.mint(server_id, referrer)

    def send(self, kind: str, token: str, *, secret: str = SECRET, **fields: Any) -> Response:
        return self.post(event(kind, token, **fields), secret=secret)

    def post(self, fields: dict[str, Any], *, secret: str = SECRET, off: float = 0) -> Response:
        body = json.dumps(fields).encode()
        return self.sandbox.ingest(body, sign(secret, body, int(self.clock() + off)))


def outcome(response: Response) -> tuple[int, dict[str, Any]]:
    """An answer without the referral's id, which is random."""
    return response.status, {name: value for name, value in response.json().items() if name != "referral_id"}
