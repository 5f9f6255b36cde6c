"""What the sandbox remembers, in memory and in a small file."""

from __future__ import annotations

import json
import logging
import secrets
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("mmolove_referral.sandbox")

_VERSION = 1
_KEPT_LENGTH = 500
_STANDING = {"registered": 0, "qualified": 1}


@dataclass(frozen=True)
class Referral:
    """One referee on one server, credited to the referrer who was first."""

    id: str
    server_id: str
    #: The ``referee_identity`` of the portal.
    referee: str
    #: The ``ref`` code of the share link.
    referrer: str
    #: ``registered`` or ``qualified``; ``reversed``, ``expired`` and ``rejected`` are terminal.
    state: str
    #: Unix seconds of the sandbox's clock.
    registered_at: float
    qualified_at: float | None = None
    #: The tokens that registered it; later events name it by one of these.
    tokens: tuple[str, ...] = field(default=(), repr=False)

    @property
    def terminal(self) -> bool:
        """Whether no event can advance it any more."""
        return self.state not in _STANDING


@dataclass(frozen=True)
class Entry:
    """One line of the log: a click on a share link, or a request to the endpoint and what became of it."""

    #: Unix seconds of the sandbox's clock.
    at: float
    #: ``clicked``, or the ``event`` field as it came; empty if there was none to read.
    kind: str
    server_id: str = ""
    token: str = field(default="", repr=False)
    server_event_id: str = ""
    referee_identity: str = ""
    #: The code of a click.
    referrer: str = ""
    #: The event's own ``ts`` field.
    ts: float | None = None
    #: A dry run.
    test: bool = False
    #: The HTTP status decided on, or the fault's if the event was not processed (0: no answer at all).
    status: int = 0
    #: The JSON decided on; empty if the event was not processed.
    answer: dict[str, Any] = field(default_factory=dict)
    #: The scripted fault that was met, in words.
    fault: str = ""

    @classmethod
    def of_request(cls, at: float, fields: Mapping[str, Any], status: int, answer: dict[str, Any], fault: str) -> Entry:
        """The line of a request whose body held ``fields``, which may be of any type and length."""

        def text(name: str) -> str:
            value = fields.get(name)
            return value[:_KEPT_LENGTH] if isinstance(value, str) else ""

        ts = fields.get("ts")
        return cls(
            at,
            text("event"),
            text("server_id"),
            text("token").strip(),
            text("server_event_id"),
            text("referee_identity"),
            ts=ts if isinstance(ts, (int, float)) and not isinstance(ts, bool) else None,
            test=fields.get("test") is True,
            status=status,
            answer=answer,
            fault=fault,
        )

    @property
    def accepted(self) -> bool:
        """Whether the event was taken for good (whether or not its answer arrived)."""
        return self.answer.get("ok") is True and not self.test

    @property
    def masked_token(self) -> str:
        """The token as it may be shown."""
        if not self.token:
            return ""
        return f"…{self.token[-6:]}" if len(self.token) >= 24 else "…"


class State:
    """The sandbox's memory: its token key, referrals, accepted events and the log."""

    def __init__(self, key: bytes, log_limit: int) -> None:
        self.key = key
        self.log: deque[Entry] = deque(maxlen=log_limit)
        #: (token, event, server_event_id) of every accepted event.
        self.seen: set[tuple[str, str, str]] = set()
        self.referrals: dict[str, Referral] = {}
        self._by_referee: dict[tuple[str, str], str] = {}
        #: As a set that keeps its order.
        self._by_token: dict[str, dict[str, None]] = {}

    @classmethod
    def fresh(cls, log_limit: int) -> State:
        """A new memory with a key of its own."""
        return cls(secrets.token_bytes(32), log_limit)

    def put(self, referral: Referral) -> None:
        """Store or replace a referral."""
        self.referrals[referral.id] = referral
        self._by_referee[referral.server_id, referral.referee] = referral.id
        for token in referral.tokens:
            self._by_token.setdefault(token, {})[referral.id] = None

    def of_referee(self, server_id: str, referee: str) -> Referral | None:
        """The referral that holds this referee."""
        found = self._by_referee.get((server_id, referee))
        return self.referrals[found] if found else None

    def of_token(self, token: str) -> Referral | None:
        """The referral that an event after ``registered`` means.

        Such an event names nobody but its token. Where several referees registered with one token (two
        friends, one link), it is the one that still has to qualify, the oldest first.
        """
        holders = [self.referrals[found] for found in self._by_token.get(token, ())]
        return min(holders, key=lambda referral: _STANDING.get(referral.state, 2), default=None)

    def dump(self) -> str:
        """Everything, as JSON."""
        return json.dumps(
            {
                "version": _VERSION,
                "key": self.key.hex(),
                "referrals": [asdict(referral) for referral in self.referrals.values()],
                "seen": sorted(self.seen),
                "log": [asdict(entry) for entry in self.log],
            }
        )

    @classmethod
    def load(cls, text: str, log_limit: int) -> State:
        """The inverse of :meth:`dump`; raises ``ValueError`` for text that :meth:`dump` did not make."""
        try:
            stored: Mapping[str, Any] = json.loads(text)
            if stored["version"] != _VERSION:
                raise ValueError(f"version {stored['version']} is not {_VERSION}")
            state = cls(bytes.fromhex(stored["key"]), log_limit)
            for row in stored["referrals"]:
                state.put(Referral(**{**row, "tokens": tuple(row["tokens"])}))
            state.seen.update((token, kind, event_id) for token, kind, event_id in stored["seen"])
            state.log.extend(Entry(**row) for row in stored["log"])
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a sandbox's state: {error!r}") from error
        return state


class StateFile:
    """A state kept in one file, written atomically and read again when another process has changed it.

    There is no lock between processes: of two that write in the same instant the later one wins. Good
    enough for a ``runserver`` or a few workers at a human's pace, not for load tests. Raises ``OSError``
    where the path cannot be read or written.
    """

    def __init__(self, path: str | Path, log_limit: int) -> None:
        self._path = Path(path)
        self._log_limit = log_limit
        self._known: tuple[int, int, int] | None = None

    def refresh(self, current: State) -> State:
        """``current``, or what stands in the file if that is not what this object last read or wrote.

        A missing file starts afresh; so does a corrupted one, which is kept aside as ``<name>.corrupt``.
        """
        try:
            known = _identity(self._path)
        except FileNotFoundError:
            return self._start_afresh()
        if known == self._known:
            return current
        try:
            state = State.load(self._path.read_text("utf-8"), self._log_limit)
        except ValueError as error:
            aside = self._path.with_name(self._path.name + ".corrupt")
            self._path.replace(aside)
            logger.warning("The sandbox starts afresh: %s is unreadable (%s), kept as %s", self._path, error, aside)
            return self._start_afresh()
        self._known = known
        return state

    def _start_afresh(self) -> State:
        state = State.fresh(self._log_limit)
        self.write(state)  # at once, so that other processes take the same key
        return state

    def write(self, state: State) -> None:
        """Replace the file in one step, making its directory if need be."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_text(state.dump(), "utf-8")
            known = _identity(temporary)
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)
        self._known = known


def _identity(path: Path) -> tuple[int, int, int]:
    """What differs between two files written one after the other to the same place."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
