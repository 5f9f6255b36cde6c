"""The wire of MMOLove's referral contract: body bytes, signature, and what an answer means.

Pure: no Django, no HTTP library, no clock. Every fact here is a fact of the contract; what to do about an
answer (retry, probe, pay) is decided by ``delivery``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import lru_cache
from typing import Any, NoReturn

from .masking import printable

DEFAULT_ENDPOINT = "https://mmolove.com/api/referral/events"
SIGNATURE_HEADER = "X-MMOLove-Signature"
REPLAY_WINDOW = 300
"""Seconds by which the signing time may differ from MMOLove's clock, either way."""

RETRY_AFTER_MIN, RETRY_AFTER_MAX = 1.0, 3600.0
KEY_ID = re.compile(r"[!-+\--~]{1,128}")
"""What can stand in the signature header as a key id: printable ASCII without spaces and commas."""

_LATER = frozenset({408, 425, 429})
_SIGNATURE = re.compile(rf"t=(?P<t>0|[1-9][0-9]{{0,11}}),v1=sha256=(?P<mac>[0-9a-f]{{64}})(?:,kid={KEY_ID.pattern})?")
_KEPT_FIELDS = 20


class Kind(str, Enum):
    """The ``event`` field."""

    REGISTERED = "registered"
    QUALIFIED = "qualified"
    REVERSED = "reversed"


class Secret:
    """A shared secret that shows itself in no ``repr``, ``str``, traceback or pickle.

    Compare two with ``==``; use it with :func:`sign` and :func:`verify`.
    """

    __slots__ = ("_key",)

    def __init__(self, value: str) -> None:
        self._key = value.encode("utf-8", "surrogatepass")

    def mac(self, message: bytes) -> str:
        """Lower-case hex HMAC-SHA256 of ``message``."""
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def matches(self, pattern: re.Pattern[str]) -> bool:
        """Whether ``pattern`` matches the whole of it."""
        return pattern.fullmatch(self._key.decode("utf-8", "surrogatepass")) is not None

    def __bool__(self) -> bool:
        return bool(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return "Secret('********')" if self._key else "Secret('')"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Secret is not pickled: read it from the settings where it is needed.")


@dataclass(frozen=True)
class Credentials:
    """What one request to one MMOLove server needs besides its body."""

    server_id: str
    secret: Secret
    endpoint: str = DEFAULT_ENDPOINT
    key_id: str = ""


def encode(
    kind: Kind,
    *,
    token: str,
    server_id: str,
    server_event_id: str,
    ts: int,
    referee_identity: str = "",
    test: bool = False,
) -> bytes:
    """The exact bytes of one event: compact JSON, UTF-8, slashes and non-ASCII as they are, fixed key order.

    ``ts`` is the time of the event itself in unix seconds. ``referee_identity`` is sent on ``registered`` only
    (the contract ignores it elsewhere). Raises ``ValueError`` for text that UTF-8 cannot hold.
    """
    fields: dict[str, Any] = {"event": kind.value, "server_id": server_id, "ts": ts, "token": token}
    if kind is Kind.REGISTERED:
        fields["referee_identity"] = referee_identity
    fields["server_event_id"] = server_event_id
    if test:
        fields["test"] = True
    return _dump(fields)


def with_server_id(body: bytes, server_id: str) -> bytes:
    """The same event for another ``server_id``: how a body that was never accepted follows a corrected setting."""
    return _dump({**json.loads(body), "server_id": server_id})


def server_id_of(body: bytes) -> str:
    """The ``server_id`` that a body made by :func:`encode` carries."""
    return str(json.loads(body)["server_id"])


def _dump(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def sign(secret: Secret, body: bytes, t: int, key_id: str = "") -> str:
    """The value of the signature header for ``body`` signed at ``t`` (unix seconds)."""
    header = f"t={t},v1=sha256={_mac(secret, body, t)}"
    return f"{header},kid={key_id}" if key_id else header


def verify(secret: Secret, body: bytes, header: str, now: float, window: float = REPLAY_WINDOW) -> bool:
    """Whether ``header`` is a signature of ``body`` made within ``window`` seconds of ``now``."""
    match = _SIGNATURE.fullmatch(header)
    if match is None or abs(now - int(match["t"])) > window:
        return False
    return hmac.compare_digest(_mac(secret, body, int(match["t"])), match["mac"])


def _mac(secret: Secret, body: bytes, t: int) -> str:
    return secret.mac(str(t).encode() + b"." + body)


class Verdict(str, Enum):
    """What the sender of an event does about its answer."""

    ACCEPTED = "accepted"
    """Done: advanced, already known, or ignored for good."""
    REFUSED = "refused"
    """This event is refused for itself: never retry it as it is."""
    SUSPECT = "suspect"
    """Refused, by the event's own fault or by the server's: a signed dry run tells them apart."""
    FAULT = "fault"
    """No answer of MMOLove's: later, with the same body."""


class Outcome(str, Enum):
    """How an accepted event was accepted."""

    ADVANCED = "advanced"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    OTHER_STATE = "other_state"
    """Accepted, but the referral stands in another state than the event asked for."""
    DRY_RUN = "dry_run"


@dataclass(frozen=True)
class Answer:
    """What an HTTP answer means."""

    verdict: Verdict
    outcome: Outcome | None = None
    #: What went wrong, in one line; empty when accepted.
    error: str = ""
    #: The answer's scalar JSON fields, cleaned for storage.
    fields: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    #: Seconds to leave the server alone, from ``Retry-After``; clamped to 1 s … 1 h.
    retry_after: float | None = None

    @property
    def pays(self) -> bool:
        """Whether this answer, to a ``qualified``, makes the reward due."""
        return self.outcome in (Outcome.ADVANCED, Outcome.DUPLICATE)

    @property
    def referral_id(self) -> str:
        return str(self.fields.get("referral_id") or "")


def classify(
    kind: Kind,
    status: int,
    body: bytes,
    *,
    content_type: str = "",
    retry_after: float | None = None,
    test: bool = False,
) -> Answer:
    """What a complete answer means to an event of ``kind``; ``test`` when the event was a dry run.

    ``status`` is the HTTP status; an answer that did not arrive whole never gets here (it is a fault).
    No bytes make this raise.
    """
    parsed = parse_object(body)
    fields = _clean(parsed) if parsed is not None else {}
    # A JSON object is one whatever its label says: some servers call everything text/html.
    html = parsed is None and ("html" in content_type.lower() or body.lstrip()[:1] == b"<")
    if status == 200:
        return _classify_ok(kind, parsed, fields, html=html, test=test, retry_after=retry_after)
    error = _describe(status, fields, body, html=html)
    if 300 <= status < 400:
        verdict = Verdict.SUSPECT
    elif 400 <= status < 500 and status not in _LATER and not html:
        verdict = Verdict.REFUSED if status in (400, 422) else Verdict.SUSPECT
    else:
        verdict = Verdict.FAULT
    later = retry_after if verdict is Verdict.FAULT else None
    return Answer(verdict, None, error, fields, later)


def _classify_ok(
    kind: Kind,
    parsed: dict[str, Any] | None,
    fields: dict[str, str | int | float | bool | None],
    *,
    html: bool,
    test: bool,
    retry_after: float | None,
) -> Answer:
    if parsed is None or parsed.get("ok") is not True:
        what = "an HTML page" if html else "not MMOLove's JSON" if parsed is None else "JSON without ok: true"
        error = f"HTTP 200, but {what}: a proxy or CDN seems to answer in MMOLove's place"
        return Answer(Verdict.FAULT, None, error, fields, retry_after)
    if test:
        return Answer(Verdict.ACCEPTED, Outcome.DRY_RUN, "", fields)
    if parsed.get("test") is True:
        return Answer(Verdict.FAULT, None, "HTTP 200, but as a dry run: the event was not recorded", fields)
    if parsed.get("ignored"):
        outcome = Outcome.IGNORED
    elif parsed.get("state") not in (None, "", kind.value):
        outcome = Outcome.OTHER_STATE
    elif parsed.get("duplicate"):
        outcome = Outcome.DUPLICATE
    else:
        outcome = Outcome.ADVANCED
    return Answer(Verdict.ACCEPTED, outcome, "", fields)


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that ``body`` is, or ``None``. No bytes make this raise."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _clean(parsed: dict[str, Any]) -> dict[str, str | int | float | bool | None]:
    """Scalars only, few and short, in text that every database stores."""
    kept: dict[str, str | int | float | bool | None] = {}
    for key, value in list(parsed.items())[:_KEPT_FIELDS]:
        if isinstance(value, str):
            kept[printable(key)] = printable(value)
        elif (
            value is None
            or isinstance(value, bool)
            or (isinstance(value, int) and abs(value) < 2**63)
            or (isinstance(value, float) and math.isfinite(value))
        ):
            kept[printable(key)] = value
    return kept


def _describe(status: int, fields: dict[str, str | int | float | bool | None], body: bytes, *, html: bool) -> str:
    reason = fields.get("error")
    if isinstance(reason, str) and reason:
        return f"HTTP {status}: {reason}"
    if html:
        return f"HTTP {status} with an HTML page"
    text = printable(body.decode("utf-8", "replace"), 200).strip()
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"


def parse_retry_after(value: str, now: float) -> float | None:
    """Seconds meant by a ``Retry-After`` (seconds or HTTP date; ``now`` in unix seconds), clamped to 1 s … 1 h.

    ``None`` for what is neither.
    """
    value = value.strip()
    if not value:
        return None
    if re.fullmatch(r"[0-9]+", value):
        seconds = float(value)  # of any length: inf at worst
    else:
        date = parse_date(value)
        if date is None:
            return None
        seconds = date - now
    return min(max(seconds, RETRY_AFTER_MIN), RETRY_AFTER_MAX)


@lru_cache(maxsize=64)  # a busy server sends the same one for a second
def parse_date(value: str) -> float | None:
    """Unix seconds of an HTTP date, or ``None``."""
    try:
        parsed: datetime = parsedate_to_datetime(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
