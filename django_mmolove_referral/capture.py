"""A visit: which referral token a browser brought, and the context that carries it to the sign-up.

The visit's record lives in the session. A :class:`Visit` is a lazy view of it for one request; it touches the
session only for a visitor with a token, or when an account is in fact created.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from django.http import HttpRequest

from .conf import conf
from .logs import over, trouble
from .models import CODE_LENGTH, TOKEN_LENGTH

logger = logging.getLogger("mmolove_referral.capture")

SESSION_KEY = "mmolove_referral"
CODE_LIFETIME = 15 * 60
"""Seconds within which a token takes the referrer code that was noted before it."""

_TOKEN = re.compile(rf"[!-~]{{1,{TOKEN_LENGTH}}}")
_REMEMBERED = 20


def usable_token(raw: object) -> str | None:
    """``raw`` if it can be a token: 1 to 1,024 visible ASCII characters (the format itself is not published)."""
    return raw if isinstance(raw, str) and _TOKEN.fullmatch(raw) else None


def usable_code(raw: object) -> str | None:
    """``raw`` if it can be a referrer code: 1 to 255 printable characters without spaces and slashes."""
    if not isinstance(raw, str) or not 0 < len(raw) <= CODE_LENGTH or not raw.isprintable():
        return None
    if raw in (".", ".."):  # browsers resolve them away
        return None
    return None if any(char.isspace() or char in "/\\" for char in raw) else raw


@dataclass(frozen=True)
class Captured:
    """What a visit brings to the account that it creates."""

    token: str = field(repr=False)
    #: ``""`` if it could not be told when the token came.
    server: str = ""
    code: str = ""
    at: int = 0

    @property
    def expired(self) -> bool:
        return time.time() - self.at > conf.token_max_age


@dataclass
class Record:
    """The session's entry. Rubbish in the session reads as a blank record."""

    token: str = field(default="", repr=False)
    server: str = ""
    at: int = 0
    code: str = ""
    noted_code: str = ""
    noted_at: int = 0
    used: list[str] = field(default_factory=list)
    owed_to: str = ""

    @classmethod
    def load(cls, raw: object) -> Record:
        if not isinstance(raw, dict):
            return cls()
        record = cls(
            token=usable_token(raw.get("token")) or "",
            code=usable_code(raw.get("code")) or "",
            noted_code=usable_code(raw.get("noted_code")) or "",
            at=_moment(raw.get("at")),
            noted_at=_moment(raw.get("noted_at")),
        )
        for name in ("server", "owed_to"):
            if isinstance(raw.get(name), str):
                setattr(record, name, raw[name])
        if isinstance(raw.get("used"), list):
            record.used = [item for item in raw["used"] if isinstance(item, str)][-_REMEMBERED:]
        return record

    def take(self, token: str, server: str, now: int) -> bool:
        """Make ``token`` the one of this visit; ``False`` if that changes nothing."""
        if _fingerprint(token) in self.used:
            return False
        code = self.noted_code if now - self.noted_at <= CODE_LIFETIME else ""
        if token == self.token and server == self.server and not (code and not self.code):
            return False
        self.token, self.server, self.at, self.code = token, server, now, code
        # The code belongs to this token now; another one must not take it, too.
        self.noted_code, self.noted_at, self.owed_to = "", 0, ""
        return True

    def use_up(self, token: str) -> None:
        self.used = [*(item for item in self.used if item != _fingerprint(token)), _fingerprint(token)][-_REMEMBERED:]
        if self.token == token:
            self.token, self.code, self.at, self.owed_to = "", "", 0, ""


def _moment(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**40 else 0


def _fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:16]


class Visit:
    """One request's visit. Alive until its response has been made; holds the session that the request came with.

    Some libraries swap ``request.session`` during a sign-up, so the session is taken from the start.
    """

    __slots__ = ("_record", "_session", "attached_to", "changed", "put_off", "request", "used_up")

    def __init__(self, request: HttpRequest) -> None:
        #: ``None`` once the response is made: whatever outlives it (a background task) sees no visitor any more.
        self.request: HttpRequest | None = request
        self._session: MutableMapping[str, Any] | None = getattr(request, "session", None)
        #: Without sessions a token is good for the request that brings it (an API that creates accounts).
        self._record: Record | None = None
        #: The referral that this request's token went to, if any: a token is used once per browser.
        self.attached_to: int | None = None
        #: The database was not to be had: trying again in the same request would keep the visitor waiting twice.
        self.put_off = False
        self.changed = False
        self.used_up = False

    def capture(self, token: str) -> bool:
        """Write ``token`` into the record; ``False`` if there was nothing to change."""
        if self.request is None:
            return False
        try:
            server = self.server()
            over(logger, "visit", "The servers of visits can be told again.")
        except Exception as error:  # noqa: BLE001  # RESOLVE_SERVER is the portal's
            trouble(logger, "visit", error, "The server of a visit could not be told; it will be at the sign-up.")
            server = ""
        record = self._load()
        if not record.take(token, server, int(time.time())):
            return False
        self._store(record)
        return True

    def restore(self, captured: Captured) -> None:
        """Go on with a visit that began in another browser, unless this one has a token of its own."""
        if self.request is None or self.token:
            return
        record = self._load()
        if _fingerprint(captured.token) in record.used:
            return
        record.token, record.code = captured.token, captured.code
        record.server, record.at = captured.server, captured.at
        record.owed_to = ""
        self._store(record)

    @property
    def token(self) -> str:
        """The token that the record holds, or ``""``: none, or one too old."""
        captured = self._captured()
        return "" if captured is None or captured.expired else captured.token

    def note_code(self, code: str) -> None:
        """Remember who shared the link, for the token with which the visitor is about to come back."""
        record = self._load()
        record.noted_code, record.noted_at = code, int(time.time())
        self._store(record)

    def brings(self) -> Captured | None:
        """The token for an account created now, or ``None``: nobody's visit, a logged-in visitor, no token."""
        if self.request is None:
            return None
        captured = self._captured()
        if captured is None:
            return None
        user = getattr(self.request, "user", None)
        return None if user is not None and user.is_authenticated else captured

    def owes(self, user: Any) -> Captured | None:
        """The token for an account that logs in now and was created by this visit without getting it.

        Either the record says so, or the account was made after the token came (a crash left no note).
        """
        if self.request is None:
            return None
        captured = self._captured()
        if captured is None:
            return None
        joined = getattr(user, "date_joined", None)
        came_after = isinstance(joined, datetime) and joined.timestamp() >= captured.at
        return captured if came_after or self._load().owed_to == str(user.pk) else None

    def owe(self, user: Any) -> None:
        """Note that ``user`` was created by this visit and has not got its token."""
        record = self._load()
        record.owed_to = str(user.pk)
        self._store(record)

    def use_up(self, token: str) -> None:
        """The token went to an account for good."""
        record = self._load()
        record.use_up(token)
        self._store(record)
        self.used_up = True

    def _captured(self) -> Captured | None:
        record = self._load()
        return Captured(record.token, record.server, record.code, record.at) if record.token else None

    def server(self) -> str:
        """The alias of the server that this visit belongs to. Raises what ``RESOLVE_SERVER`` does."""
        resolve = conf.resolve_server
        alias = resolve(self.request) if resolve else None
        return conf.server(alias or next(iter(conf.servers))).alias

    def _load(self) -> Record:
        if self._session is None:
            return self._record or Record()
        return Record.load(self._session.get(SESSION_KEY))

    def _store(self, record: Record) -> None:
        self.changed = True
        if self._session is None:
            self._record = record
        else:
            self._session[SESSION_KEY] = {key: value for key, value in asdict(record).items() if value}


_current: ContextVar[Visit | None] = ContextVar("mmolove_referral_visit", default=None)

current_visit = _current.get
enter_visit = _current.set
