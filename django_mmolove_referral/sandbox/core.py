"""The sandbox itself: what MMOLove remembers, decides and gets wrong, behind one lock. No Django, no HTTP."""

from __future__ import annotations

import time
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from . import tokens
from .contract import Contract, Server
from .faults import Fault, FaultScript
from .response import Response, spoil
from .state import Entry, Referral, State, StateFile
from .wire import RefusedError, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class Sandbox:
    """A MMOLove of one's own.

    ``servers`` maps server ids to secrets, or to a :class:`Server` where one needs more than that.
    ``register_url`` is where share links lead. ``clock`` gives unix seconds and may be replaced at any time
    to let it drift. ``state`` names a file that survives a restart; servers, secrets and scripted faults
    are not in it. ``dry_run_checks_token`` makes a dry run look its token up (404), which the contract
    leaves open. Thread-safe. Raises ``OSError`` if the file cannot be used.
    """

    def __init__(
        self,
        servers: Mapping[str, str | Server],
        *,
        register_url: str = "",
        clock: Callable[[], float] = time.time,
        state: str | Path | None = None,
        dry_run_checks_token: bool = False,
        log_limit: int = 1000,
    ) -> None:
        self.clock = clock
        self._register_url = register_url
        self._servers = {
            server_id: given if isinstance(given, Server) else Server(given) for server_id, given in servers.items()
        }
        self._contract = Contract(self._servers, dry_run_checks_token)
        self._faults = FaultScript()
        self._lock = RLock()
        self._state = State.fresh(log_limit)
        self._file = StateFile(state, log_limit) if state else None
        self._refresh()

    # The journey

    def mint(self, server_id: str, referrer_code: str) -> str:
        """The token of one click on ``referrer_code``'s link.

        Raises ``LookupError`` for an unknown server and ``ValueError`` for a code that is empty or over 64
        characters.
        """
        if server_id not in self._servers:
            raise LookupError(f"unknown server: {server_id}")
        if not 0 < len(referrer_code) <= tokens.MAX_CODE:
            raise ValueError(f"a referrer code has 1 to {tokens.MAX_CODE} characters")
        with self._lock:
            now = self.clock()
            self._refresh()
            token = tokens.mint(self._state.key, tokens.Click(server_id, referrer_code, now))
            self._record(Entry(now, "clicked", server_id, token, referrer=referrer_code, status=302))
        return token

    def click(self, server_id: str, ref: str) -> str:
        """Where a visitor of ``/r/<server_id>?ref=<ref>`` is redirected to.

        A code that none can be (empty, over-long) costs the visitor nothing but the token. Raises
        ``LookupError`` with the reason if the link leads nowhere.
        """
        try:
            server = self._contract.server(server_id)
        except RefusedError as refusal:
            raise LookupError(refusal.error) from refusal
        url = server.register_url or self._register_url
        if not url:
            raise LookupError("no_register_url")
        try:
            token = self.mint(server_id, ref)
        except ValueError:
            return url
        parts = urlsplit(url)
        return parts._replace(query="&".join(filter(None, [parts.query, f"mmref={token}"]))).geturl()

    def ingest(
        self,
        body: bytes,
        signature: str = "",
        *,
        content_type: str = "application/json",
        method: str = "POST",
    ) -> Response:
        """MMOLove's answer to a request to its endpoint; no bytes make it raise.

        ``body`` is the raw body, ``signature`` the value of the signature header (empty if there was none).
        """
        request = Request(body, signature, content_type, method)
        with self._lock:
            self._refresh()
            now = self.clock()
            fault = self._faults.take(request.fields or {})
            if fault is not None and fault.replaces_answer and not fault.processed:
                response, answer = Response(fault.status or 0), {}
            else:
                response = self._contract.answer(self._state, request, now)
                answer = response.json()
            self._record(Entry.of_request(now, request.fields or {}, response.status, answer, str(fault or "")))
        return response if fault is None else spoil(response, fault)

    # MMOLove's side

    def rotate_secret(self, server_id: str, secret: str) -> None:
        """The server's secret from now on; the old one is invalid at once. Raises ``LookupError``."""
        self._change(server_id, secret=secret)

    def lead_to(self, server_id: str, register_url: str) -> None:
        """Where the server's share links lead from now on. Raises ``LookupError``."""
        self._change(server_id, register_url=register_url)

    def referrals_off(self, server_id: str) -> None:
        """Switch the server's referrals off, as its owner can. Raises ``LookupError``."""
        self._change(server_id, referrals=False)

    def referrals_on(self, server_id: str) -> None:
        """Switch the server's referrals on again. Raises ``LookupError``."""
        self._change(server_id, referrals=True)

    def _change(self, server_id: str, **values: Any) -> None:
        with self._lock:
            self._servers[server_id] = replace(self._servers[server_id], **values)

    def reverse(self, referral_id: str, state: Literal["reversed", "expired", "rejected"] = "reversed") -> Referral:
        """End a referral (refund, abuse; or by another of the terminal states). Raises ``LookupError``."""
        with self._lock:
            self._refresh()
            referral = replace(self._state.referrals[referral_id], state=state)
            self._state.put(referral)
            self._write()
        return referral

    # Faults

    def script(self, fault: Fault, times: int | None = 1) -> None:
        """Let ``fault`` hit the next ``times`` requests it applies to, or every one if ``None``.

        Counted faults go first, in the order scripted; beneath them the standing ones, newest first.
        """
        with self._lock:
            self._faults.add(fault, times)

    def outage(self, status: int = 503) -> None:
        """Answer every request with ``status`` until :meth:`clear_faults`."""
        self.script(Fault(status), times=None)

    def clear_faults(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._faults.clear()

    # Looking

    @property
    def server_ids(self) -> list[str]:
        """The ids of the configured servers."""
        return list(self._servers)

    @property
    def referrals(self) -> list[Referral]:
        """Every referral, oldest first."""
        with self._lock:
            self._refresh()
            return list(self._state.referrals.values())

    @property
    def log(self) -> list[Entry]:
        """The last clicks and requests, oldest first."""
        with self._lock:
            self._refresh()
            return list(self._state.log)

    def events(self, kind: str | None = None, *, accepted: bool | None = None, test: bool | None = None) -> list[Entry]:
        """The requests in the log, oldest first; of one ``event``, (not) accepted, (no) dry runs."""
        return [
            entry
            for entry in self.log
            if entry.kind != "clicked"
            and kind in (None, entry.kind)
            and accepted in (None, entry.accepted)
            and test in (None, entry.test)
        ]

    def _record(self, entry: Entry) -> None:
        self._state.log.append(entry)
        self._write()

    def _refresh(self) -> None:
        if self._file is not None:
            self._state = self._file.refresh(self._state)

    def _write(self) -> None:
        if self._file is not None:
            self._file.write(self._state)
