"""Why an assertion failed: what is here, what MMOLove has, what was logged, and the most likely next step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.utils import timezone

from .. import advice, checks
from ..models import OutboundEvent, Reward, ServerHealth
from ..protocol import Kind
from .found import Found, Step

if TYPE_CHECKING:
    from ..sandbox import Entry
    from .evidence import Evidence

LOGGED = 5
"""Lines of the log that are shown, the last ones."""

_VERBS = {Kind.QUALIFIED: "mark_qualified(user)", Kind.REVERSED: "mark_reversed(user)"}


def explain(claim: str, found: Found, step: Step | None, evidence: Evidence) -> str:
    """The whole message; ``step`` is what ``found`` should have come to, if a next one can be told."""
    referral = found.referral
    sections = [("here", list(_here(found)))]
    if referral is not None:
        theirs = [line_of(entry) for entry in evidence.sent if entry.token == referral.token]
        sections.append(("MMOLove", theirs or ["no event of this referral's"]))
    if evidence.overheard.lines:
        sections.append(("logged", evidence.overheard.lines[-LOGGED:]))
    if step is not None:
        sections.append(("next", [_next(found, step, evidence)]))
    lines = [claim]
    for title, texts in sections:
        lines += [f"  {f'{title}:' if not place else '':<9}{text}" for place, text in enumerate(texts)]
    return "\n".join(lines)


def line_of(entry: Entry) -> str:
    """One request, as MMOLove saw it."""
    answer = ", ".join(f"{name} {value}" for name, value in entry.answer.items() if name not in ("ok", "referral_id"))
    told = ", ".join(filter(None, [answer, entry.fault and f"fault: {entry.fault}"]))
    return f"{entry.kind} ({entry.server_event_id}): {entry.status or 'no answer'}{f', {told}' if told else ''}"


def _here(found: Found) -> Iterator[str]:
    referral = found.referral
    if referral is None:
        yield "no referral"
        return
    by = referral.referrer.get_username() if referral.referrer else "an unknown referrer"
    yield f"referral on '{referral.server}', {referral.state}, by {by}"
    for event in found.events.values():
        tries = f", {event.attempts} attempt{'s' if event.attempts > 1 else ''}" if event.attempts else ""
        told = ", ".join(filter(None, [event.last_error, event.outcome, event.reason]))
        yield f"{event.kind} ({event.server_event_id}): {event.state}{tries}{f', {told}' if told else ''}"
    if found.reward is not None:
        error = found.reward.last_error
        yield f"reward: {found.reward.state}{f', {error}' if error else ''}"


def _next(found: Found, step: Step, evidence: Evidence) -> str:
    referral = found.referral
    if referral is None:
        return _unreferred(evidence)
    if referral.ended and (step, referral.state) != (Step.REVERSED, referral.State.REVERSED):
        return advice.of_referral(referral).cause
    for kind in step.kinds:
        event = found.events.get(kind.value)
        if event is None:
            return _unwritten(kind, evidence)
        if event.state != event.State.ACCEPTED:
            return _unaccepted(event, found.health, evidence)
    if step is Step.CONFLICT:
        return "MMOLove takes it for this referrer's. Call already_referred(user) before deliver()."
    reward = found.reward
    if reward is None or reward.state == Reward.State.CANCELLED:
        return advice.of_event(found.events[step.kinds[-1].value], found.health).cause
    if reward.last_error:
        return f"{advice.of_reward(reward).cause} Mend the receiver of referral_qualified."
    return "The reward is due. Call deliver(): it grants rewards, too."


def _unreferred(evidence: Evidence) -> str:
    for message in checks.check_middleware(None):
        return f"{message.msg} {message.hint}"
    if not any(entry.kind == "clicked" for entry in evidence.sandbox.log):
        return "No token was minted in this test. Let the visitor come with one: visit(client, …), then the sign-up."
    return (
        "A sign-up is referred if the same client came with a token before, nobody was logged in, and that client's "
        "request created the account. For one that the test created: attach_referral(user, mmolove.mint())."
    )


def _unwritten(kind: Kind, evidence: Evidence) -> str:
    if kind is Kind.REGISTERED:
        return "AUTO_REGISTER is off: the portal calls mark_registered(user), and has not done so."
    waiting = " Work that waits for the commit has not run: deliver() runs it." if evidence.hooks.waiting else ""
    return f"The portal calls {_VERBS[kind]}, and has not done so for this account.{waiting}"


def _unaccepted(event: OutboundEvent, health: ServerHealth | None, evidence: Evidence) -> str:
    if not evidence.minted(event.referral.token):
        return (
            "MMOLove does not know this token: it is none that mint() made. The rows of factories are unknown to it; "
            "for what is delivered use attach_referral(user, mmolove.mint())."
        )
    told = advice.of_event(event, health)
    if event.state != event.State.PENDING:
        return f"{told.cause} {told.cure}"
    if health is not None and health.state != ServerHealth.State.OPEN:
        return f"{told.cause} Then recover(), later(3600) and deliver()."
    if not event.attempts:
        return "It has not been delivered. Call deliver() before the assertion."
    wait = max(math.ceil((event.due_at - timezone.now()).total_seconds()), 0)
    return f"{told.cause} It is tried again: call later({wait}), then deliver()."
