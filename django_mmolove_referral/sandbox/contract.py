"""What MMOLove decides about one request, given what it remembers.

Where the contract is silent, the sandbox decides as follows.

- A request that is not JSON by its ``Content-Type`` is malformed (400); another method than POST is a 405,
  and a body above :data:`~.wire.MAX_BODY` a 413.
- The checks run in this order: shape, server, signature, replay window, (dry run,) token, dedup,
  transition. Only accepted events are remembered, so a refused one may come again under the same id.
- First touch: a referee belongs to the first *referrer*. The same referrer's second token is no conflict
  with himself: it names the same referral. A conflicting token names none, so that its ``qualified`` is a
  422.
- Two referees may register with one token (two friends, one link): each becomes a referral.
- A ``registered`` for a referral that has gone further changes nothing and is answered with the state it is
  in.
- ``reversed`` needs a referral and changes none; only ``Sandbox.reverse``, the owner's own act, does.
- A token is refused (404) after 90 days whatever the event; the anchor it may have set stays.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import tokens
from .response import Response
from .state import Referral, State
from .wire import MAX_BODY, Event, RefusedError, Request, check_signature, read_event

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Server:
    """One MMOLove server as the sandbox knows it."""

    #: Empty: none was ever generated (404).
    secret: str = field(repr=False)
    #: Where its share links lead; the sandbox's own ``register_url`` if empty.
    register_url: str = ""
    #: Whether the owner has referrals switched on.
    referrals: bool = True


@dataclass(frozen=True)
class Contract:
    """The rules, for these servers. A refused request changes nothing in the state."""

    servers: Mapping[str, Server]
    #: Whether a dry run looks its token up, which the contract leaves open.
    dry_run_checks_token: bool = False

    def server(self, server_id: str) -> Server:
        """A server that takes part; raises :class:`RefusedError` (404) with the reason."""
        server = self.servers.get(server_id)
        if server is None:
            raise RefusedError(404, "unknown_server")
        if not server.referrals:
            raise RefusedError(404, "referrals_off")
        if not server.secret:
            raise RefusedError(404, "no_secret")
        return server

    def answer(self, state: State, request: Request, now: float) -> Response:
        """The answer to ``request`` at ``now`` (unix seconds); ``state`` then holds an accepted event."""
        if request.method != "POST":
            return Response.of(405, {"error": "method_not_allowed"}, Allow="POST")
        if len(request.body) > MAX_BODY:
            return Response.of(413, {"error": "body_too_large"})
        try:
            if request.content_type.partition(";")[0].strip().lower() != "application/json":
                raise RefusedError(400, "malformed: Content-Type must be application/json")
            event = read_event(request.fields)
            check_signature(request.signature, request.body, self.server(event.server_id).secret, now)
            return Response.of(200, self._accept(state, event, now))
        except RefusedError as refusal:
            return Response.of(refusal.status, {"error": refusal.error})

    def _accept(self, state: State, event: Event, now: float) -> dict[str, Any]:
        if event.test:
            if self.dry_run_checks_token:
                tokens.read(state.key, event.token, event.server_id, now)
            return {"ok": True, "test": True}
        click = tokens.read(state.key, event.token, event.server_id, now)
        dedup = (event.token, event.kind, event.server_event_id)
        if dedup in state.seen:
            return {"ok": True, "duplicate": True}
        answer = _advance(state, event, click.referrer, now)
        state.seen.add(dedup)
        return answer


def _advance(state: State, event: Event, referrer: str, now: float) -> dict[str, Any]:
    if event.kind == "registered":
        referral = state.of_referee(event.server_id, event.referee_identity)
        if referral is None:
            new_id = f"ref_{secrets.token_hex(8)}"
            referral = Referral(new_id, event.server_id, event.referee_identity, referrer, "registered", now)
        elif referral.referrer != referrer:
            return {"ok": True, "ignored": "first_touch_conflict"}
        if event.token not in referral.tokens:
            referral = replace(referral, tokens=(*referral.tokens, event.token))
    else:
        found = state.of_token(event.token)
        if found is None:
            raise RefusedError(422, f"illegal_transition: {event.kind} before registered")
        referral = found
    if referral.terminal and referral.state != event.kind:
        raise RefusedError(422, f"illegal_transition: {event.kind} after {referral.state}")
    if event.kind == "qualified" and referral.state == "registered":
        referral = replace(referral, state="qualified", qualified_at=now)
    state.put(referral)
    return {"ok": True, "referral_id": referral.id, "state": referral.state}
