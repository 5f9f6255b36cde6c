"""One signed exchange with MMOLove; and, for scripts, the calls of MMOLove's own kits.

Delivery and :class:`ReferralClient` go through the same :func:`exchange`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from . import protocol
from .masking import Blot, printable
from .protocol import DEFAULT_ENDPOINT, SIGNATURE_HEADER, Answer, Credentials, Kind, Secret, Verdict
from .transport import Transport

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True)
class Attempt:
    """One signed exchange: what was sent when, what came back, and what that means."""

    #: Unix seconds, by this machine's clock.
    started_at: float
    #: Seconds from the start to the answer's last byte, or to the fault.
    duration: float
    #: The ``t`` of the signature, in unix seconds.
    signed_at: int
    #: The HTTP status; 0 if no answer arrived whole.
    status: int
    answer: Answer
    #: The answer's body as it arrived, but for the token.
    body: bytes
    #: Where a redirect pointed to. It was not followed.
    location: str
    #: Seconds by which the server's clock (its ``Date``) is ahead of this machine's; ``None`` if unknown.
    skew: float | None


def exchange(
    transport: Transport,
    credentials: Credentials,
    kind: Kind,
    body: bytes,
    *,
    test: bool = False,
    offset: float = 0.0,
    blot: Blot | None = None,
) -> Attempt:
    """Sign ``body``, an event of ``kind`` made by :func:`protocol.encode`, now; post it; classify the answer.

    ``test`` says that ``body`` is a dry run. ``offset`` is added to this machine's clock for the signature, in
    seconds. ``blot`` takes the token out of the answer before anything is made of it: a peer may send back what it
    got, and answers end up in logs and on pages. Whatever goes wrong on the way is an answer with the verdict
    ``FAULT``, never an exception; only an endpoint that is no http or https address raises ``ValueError``.
    """
    signed_at = int(time.time() + offset)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": _user_agent(),
        SIGNATURE_HEADER: protocol.sign(credentials.secret, body, signed_at, credentials.key_id),
    }
    reply = transport.post(credentials.endpoint, body, headers)
    blot = blot or Blot()
    answered = blot.body(reply.body)
    date = protocol.parse_date(reply.headers.get("Date", ""))
    location = ""
    if reply.error:
        answer = Answer(Verdict.FAULT, error=reply.error)
    else:
        now = time.time() if date is None else date
        answer = protocol.classify(
            kind,
            reply.status,
            answered,
            content_type=reply.headers.get("Content-Type", ""),
            retry_after=protocol.parse_retry_after(reply.headers.get("Retry-After", ""), now),
            test=test,
        )
        if 300 <= reply.status < 400:
            location = printable(blot.text(reply.headers.get("Location", "")))
        if location:
            told = f"HTTP {reply.status} redirects to {location}: set ENDPOINT to the final address"
            answer = replace(answer, error=told)
    skew = None if date is None else date - (reply.started_at + reply.duration / 2)
    return Attempt(reply.started_at, reply.duration, signed_at, reply.status, answer, answered, location, skew)


@lru_cache
def _user_agent() -> str:
    name = "django-mmolove-referral"
    try:
        return f"{name}/{version(name)}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return name


@dataclass(frozen=True)
class SendResult:
    """What became of one event."""

    #: The HTTP status; 0 if no answer arrived whole.
    status: int
    #: Whether MMOLove accepted the event (advanced, duplicate, ignored or dry run).
    ok: bool
    #: The answer's JSON object; empty if it had none.
    body: dict[str, Any] = field(default_factory=dict)
    #: What went wrong, in one line; empty if ``ok``.
    error: str = ""


class ReferralClient:
    """Sends single events at once, without Django and without the outbox: nothing is stored or retried.

    ``timeout`` is the seconds one call may take in all; ``verify`` is whether to check TLS certificates, or
    the path of a CA file or directory. Raises ``ValueError`` for what can be no credentials. Thread-safe::

        with ReferralClient("srv_1", secret) as client:
            result = client.registered(token, referee_identity="7842", server_event_id="reg-7842")
    """

    def __init__(
        self,
        server_id: str,
        secret: str | Secret,
        endpoint: str = DEFAULT_ENDPOINT,
        key_id: str = "",
        timeout: float = 15.0,
        verify: bool | str = True,
    ) -> None:
        # Rebound at once, so that no report of an error below shows it among the local variables.
        secret = secret if isinstance(secret, Secret) else Secret(secret.strip())
        if not server_id:
            raise ValueError("server_id is empty")
        if not secret:
            raise ValueError("secret is empty")
        if key_id and not protocol.KEY_ID.fullmatch(key_id):
            raise ValueError("key_id must be printable ASCII without spaces and commas")
        self._credentials = Credentials(server_id, secret, endpoint, key_id)
        self._transport = Transport(deadline=timeout, verify=verify)

    def registered(
        self,
        token: str,
        *,
        referee_identity: str,
        server_event_id: str,
        ts: int | None = None,
        test: bool = False,
    ) -> SendResult:
        """The referee's account exists. ``referee_identity`` is its stable id, never a name that may change.

        ``server_event_id`` is the idempotency key, ``ts`` the time of the event in unix seconds (now if
        ``None``); ``test`` makes it a dry run, which writes nothing. Raises ``ValueError`` for what can be no
        event, nothing for a refusal.
        """
        return self._send(Kind.REGISTERED, token, server_event_id, referee_identity, ts, test)

    def qualified(self, token: str, *, server_event_id: str, ts: int | None = None, test: bool = False) -> SendResult:
        """The referee reached the portal's milestone. Otherwise as ``registered``.

        Once accepted, and not ``ignored``, the referrer's reward is due.
        """
        return self._send(Kind.QUALIFIED, token, server_event_id, "", ts, test)

    def reversed(self, token: str, *, server_event_id: str, ts: int | None = None, test: bool = False) -> SendResult:
        """The referral is taken back (refund, chargeback, abuse). Otherwise as ``registered``."""
        return self._send(Kind.REVERSED, token, server_event_id, "", ts, test)

    def sign(
        self,
        event: Kind | str,
        token: str,
        *,
        server_event_id: str,
        referee_identity: str = "",
        ts: int | None = None,
        test: bool = False,
    ) -> tuple[bytes, str]:
        """The body of an event and the value of its ``X-MMOLove-Signature``, signed now; nothing is sent.

        Raises ``ValueError`` for what can be no event.
        """
        body = self._encode(Kind(event), token, server_event_id, referee_identity, ts, test)
        return body, protocol.sign(self._credentials.secret, body, int(time.time()), self._credentials.key_id)

    def close(self) -> None:
        """Close the kept connections."""
        self._transport.close()

    def __enter__(self) -> ReferralClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self, kind: Kind, token: str, server_event_id: str, referee_identity: str, ts: int | None, test: bool
    ) -> SendResult:
        body = self._encode(kind, token, server_event_id, referee_identity, ts, test)
        attempt = exchange(self._transport, self._credentials, kind, body, test=test)
        ok = attempt.answer.verdict is Verdict.ACCEPTED
        return SendResult(attempt.status, ok, protocol.parse_object(attempt.body) or {}, attempt.answer.error)

    def _encode(
        self, kind: Kind, token: str, server_event_id: str, referee_identity: str, ts: int | None, test: bool
    ) -> bytes:
        required = {"token": token.strip(), "server_event_id": server_event_id}
        if kind is Kind.REGISTERED:
            required["referee_identity"] = referee_identity
        for name, value in required.items():
            if not value:
                raise ValueError(f"{name} is empty")
        return protocol.encode(
            kind,
            token=required["token"],
            server_id=self._credentials.server_id,
            server_event_id=server_event_id,
            referee_identity=referee_identity,
            ts=int(time.time()) if ts is None else ts,
            test=test,
        )
