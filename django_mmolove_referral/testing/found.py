"""What is stored about one account's referral, and how far that is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..conf import conf
from ..lifecycle import SeveralServersError
from ..models import OutboundEvent, Referral, Reward, ServerHealth
from ..protocol import Kind


class Step(Enum):
    """What a referral can have come to: how it is said, and the events that have to be accepted for it."""

    CAPTURED = "{} should be referred", ()
    REGISTERED = "{} should be registered at MMOLove", (Kind.REGISTERED,)
    QUALIFIED = "{} should be qualified at MMOLove", (Kind.REGISTERED, Kind.QUALIFIED)
    REWARDED = "The reward for {} should be granted", (Kind.REGISTERED, Kind.QUALIFIED)
    CONFLICT = "{} should be another referrer's at MMOLove", (Kind.REGISTERED,)
    REVERSED = "The referral of {} should be taken back", (Kind.REGISTERED, Kind.REVERSED)

    def __init__(self, claim: str, kinds: tuple[Kind, ...]) -> None:
        self.claim = claim
        self.kinds = kinds


@dataclass(frozen=True)
class Found:
    """One account's referral with all that hangs on it."""

    name: str
    referral: Referral | None
    #: By kind.
    events: dict[str, OutboundEvent]
    reward: Reward | None
    health: ServerHealth | None

    @classmethod
    def of(cls, user: Any, server: str | None) -> Found:
        """Read afresh. Raises ``ValueError`` for an account with referrals on several servers and no ``server``."""
        referrals = Referral.objects.filter(user_id=user.pk).select_related("referrer")
        if server is not None:
            referrals = referrals.filter(server=conf.server(server).alias)
        rows = list(referrals)
        if len(rows) > 1:
            raise SeveralServersError("This account", (row.server for row in rows))
        if not rows:
            return cls(user.get_username(), None, {}, None, None)
        return cls(
            user.get_username(),
            rows[0],
            {event.kind: event for event in OutboundEvent.objects.filter(referral=rows[0]).order_by("pk")},
            Reward.objects.filter(referral=rows[0]).first(),
            ServerHealth.objects.filter(server=rows[0].server).first(),
        )

    def has(self, step: Step) -> bool:
        """Whether the referral has come to ``step``."""
        if self.referral is None:
            return False
        state, states = self.referral.state, Referral.State
        if step is Step.REVERSED:
            event = self.events.get(Kind.REVERSED.value)
            return state == states.REVERSED and event is not None and event.state == event.State.ACCEPTED
        if step is Step.REWARDED:
            return self.reward is not None and self.reward.state == Reward.State.GRANTED
        wanted = {
            Step.CAPTURED: list(states),
            Step.REGISTERED: [states.REGISTERED, states.QUALIFIED],
            Step.QUALIFIED: [states.QUALIFIED],
            Step.CONFLICT: [states.CONFLICT],
        }
        return state in wanted[step]
