"""What goes wrong between MMOLove and the portal, to order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import ReferralClient
from ..conf import DEFAULT_SERVER, conf
from ..masking import printable
from ..sandbox import Fault, only_real
from .evidence import Evidence


class Faults(Evidence):
    """Scripted faults. Those with ``times`` hit so many events and no dry runs, in the order they were ordered."""

    def answer(self, status: int, *, times: int = 1, error: str = "", retry_after: int | None = None) -> None:
        """Answer with this HTTP status; ``error`` is the JSON's, ``retry_after`` are seconds.

        The events do not take effect. 400 and 422 end them; 401, 403 and 404 do if a dry run passes and the second
        try is refused, too (``times=2``); 5xx has them tried again later.
        """
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._script(Fault(status, {"error": error or f"scripted {status}"}, headers, when=self._ours), times)

    def drop(self, times: int = 1) -> None:
        """Close the connection without an answer, before the event takes effect."""
        self._script(Fault(drop=True, when=self._ours), times)

    def lose_answer(self, times: int = 1) -> None:
        """Close the connection without an answer, after the event took effect: the next try is a duplicate."""
        self._script(Fault(drop=True, processed=True, when=self._ours), times)

    def outage(self, status: int = 503) -> None:
        """Answer everything with ``status``, dry runs too, until :meth:`recover`."""
        self.sandbox.outage(status)

    def recover(self) -> None:
        """Nothing goes wrong any more. A paused server still waits for its next dry run: let :meth:`later` pass."""
        self.sandbox.clear_faults()

    def already_referred(self, user: Any, *, by: str = "mallory", server: str = DEFAULT_SERVER) -> None:
        """Let MMOLove know ``user`` already, by another referrer: first touch wins, so ours is a conflict."""
        own = conf.server(server).credentials()
        token = self.sandbox.mint(own.server_id, by)
        self._foreign.add(token)
        with ReferralClient(own.server_id, own.secret, endpoint=own.endpoint) as client:
            identity = conf.referee_identity(user)
            result = client.registered(token, referee_identity=identity, server_event_id=f"by-{by}")
        if not result.ok or "ignored" in result.body:
            raise RuntimeError(f"MMOLove did not take {printable(identity)} for {by}'s: {result.body or result.error}")

    def _script(self, fault: Fault, times: int) -> None:
        self.sandbox.script(fault, times)

    def _ours(self, fields: Mapping[str, Any]) -> bool:
        return only_real(fields) and fields.get("token") not in self._foreign
