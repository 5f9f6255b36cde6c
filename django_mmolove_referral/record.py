"""What a visit's record in the session holds: the token, its server, who shared the link, which tokens were used."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from .conf import conf
from .models import CODE_LENGTH, TOKEN_LENGTH

CODE_LIFETIME = 15 * 60
"""Seconds within which a token takes the referrer code that was noted before it."""

_TOKEN = re.compile(rf"[!-~]{{1,{TOKEN_LENGTH}}}")
_REMEMBERED = 20


def usable_token(raw: object) -> str | None:
    """``raw`` if it can be a token: 1 to 1,024 visible ASCII characters (the format itself is not published)."""
    return raw if isinstance(raw, str) and _TOKEN.fullmatch(raw) else None


def carried_token(raw: object) -> str | None:
    """The token of a request's body, perhaps pasted with space around it; ``None`` if it can be none."""
    return usable_token(raw.strip()) if isinstance(raw, str) else None


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
    #: By server: the code of the share link that was followed last, and when.
    noted: dict[str, tuple[str, int]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    owed_to: str = ""

    @classmethod
    def load(cls, raw: object) -> Record:
        if not isinstance(raw, dict):
            return cls()
        record = cls(
            token=usable_token(raw.get("token")) or "",
            code=usable_code(raw.get("code")) or "",
            at=_moment(raw.get("at")),
        )
        for name in ("server", "owed_to"):
            if isinstance(raw.get(name), str):
                setattr(record, name, raw[name])
        if isinstance(raw.get("noted"), dict):
            record.noted = {server: note for server, value in raw["noted"].items() if (note := _note(value))}
        if isinstance(raw.get("used"), list):
            record.used = [item for item in raw["used"] if isinstance(item, str)][-_REMEMBERED:]
        return record

    def take(self, token: str, server: str, now: int) -> bool:
        """Make ``token`` the one of this visit; ``False`` if that changes nothing."""
        if self.has_used(token):
            return False
        code = self.code_for(server, now)
        if token == self.token and server == self.server and not (code and not self.code):
            return False
        self.token, self.server, self.at, self.code = token, server, now, code
        # The code belongs to this token now; another one must not take it, too.
        self.noted = {alias: note for alias, note in self.noted.items() if alias != server}
        self.owed_to = ""
        return True

    def code_for(self, server: str, now: int) -> str:
        """The code that a token of ``server`` takes which comes ``now``, or ``""``."""
        code, noted_at = self.noted.get(server, ("", 0))
        return code if now - noted_at <= CODE_LIFETIME else ""

    def expects(self, servers: Collection[str], now: int) -> str:
        """Of these ``servers`` the one whose share link was followed last, its token yet to come; or ``""``."""
        return next((one for one in reversed(self.noted) if one in servers and self.code_for(one, now)), "")

    def has_used(self, token: str) -> bool:
        """Whether ``token`` went to an account before."""
        return _fingerprint(token) in self.used

    def note(self, code: str, server: str, now: int) -> None:
        """Remember who shared the link to ``server`` that was followed ``now``, the last of them last."""
        others = [(alias, note) for alias, note in self.noted.items() if alias != server]
        self.noted = dict([*others, (server, (code, now))][-_REMEMBERED:])

    def use_up(self, token: str) -> None:
        self.used = [*(item for item in self.used if item != _fingerprint(token)), _fingerprint(token)][-_REMEMBERED:]
        if self.token == token:
            self.token, self.code, self.at, self.owed_to = "", "", 0, ""


def _moment(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**40 else 0


def _note(value: object) -> tuple[str, int] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    code = usable_code(value[0])
    return (code, _moment(value[1])) if code else None


def _fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:16]
