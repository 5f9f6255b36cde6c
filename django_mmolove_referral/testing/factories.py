"""Rows for portals' tests, as delivery would have left them. Needs factory-boy.

MMOLove knows nothing of these rows. They are for tests of pages and reports; for what is to be delivered a test begins
with ``attach_referral(user, mmolove.mint())``.
"""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.utils import timezone

from .. import protocol
from ..conf import conf
from ..lifecycle import PREFIXES
from ..models import OutboundEvent, Referral, Reward
from ..protocol import Kind, Outcome

try:
    import factory as untyped
    from factory.django import DjangoModelFactory
except ImportError as error:
    raise ImportError(f"{__name__} needs factory-boy: python -m pip install factory-boy") from error

factory: Any = untyped

_State = Referral.State
_REGISTERED = (_State.REGISTERED, _State.QUALIFIED, _State.REVERSED)
_ENDED = (_State.CONFLICT, _State.REVERSED, _State.EXPIRED)

#: The events of a referral in each state, each with its own state.
_EVENTS: dict[str, dict[Kind, dict[str, Any]]] = {
    _State.CAPTURED: {Kind.REGISTERED: {}},
    _State.REGISTERED: {Kind.REGISTERED: {"accepted": True}},
    _State.QUALIFIED: {Kind.REGISTERED: {"accepted": True}, Kind.QUALIFIED: {"accepted": True}},
    _State.CONFLICT: {Kind.REGISTERED: {"accepted": True, "outcome": Outcome.IGNORED.value}},
    _State.REVERSED: {
        Kind.REGISTERED: {"accepted": True},
        Kind.REVERSED: {"accepted": True, "outcome": Outcome.OTHER_STATE.value},  # MMOLove does not act on it so far
    },
    # AUTO_REGISTER was off, and the account was never confirmed.
    _State.EXPIRED: {Kind.QUALIFIED: {"cancelled": True, "reason": OutboundEvent.Reason.EXPIRED}},
}


def _now_if(holds: Any) -> Any:
    return factory.LazyAttribute(lambda row: timezone.now() if holds(row) else None)


def _make_events(referral: Referral, create: bool, wanted: bool | None, **fields: Any) -> None:
    if create and wanted is not False:
        for kind, how in _EVENTS[referral.state].items():
            OutboundEventFactory.create(referral=referral, kind=kind.value, **how)


def _make_due(referral: Referral, create: bool, wanted: bool | None, **fields: Any) -> None:
    if create and wanted is not False and referral.state == _State.QUALIFIED:
        RewardFactory.create(referral=referral)


def _make_granted(referral: Referral, create: bool, wanted: bool | None, **fields: Any) -> None:
    if create and wanted is not False:
        RewardFactory.create(referral=referral, state=Reward.State.GRANTED)


class UserFactory(DjangoModelFactory[Any]):
    """An account by its login ``name``, made by the user model's own ``create_user``, without a password.

    For user models that want no more than that; others have a factory of the portal's own.
    """

    class Meta:
        model = settings.AUTH_USER_MODEL

    name = factory.Sequence(lambda n: f"player{n}@example.com")

    @classmethod
    def _create(cls, model_class: type[Any], *args: Any, **fields: Any) -> Any:
        fields[model_class.USERNAME_FIELD] = fields.pop("name")
        try:
            return model_class._default_manager.create_user(**fields)
        except TypeError as error:
            raise TypeError(
                f"{error}. Accounts of this portal need more than a {model_class.USERNAME_FIELD}: pass one of your "
                "own, ReferralFactory(user=…)."
            ) from error


class ReferralFactory(DjangoModelFactory[Referral]):
    """A referral with its events, and its reward if one is due.

    Just captured by default; or ``registered=True``, ``qualified=True`` (the reward due), ``rewarded=True`` (granted),
    ``conflict=True``, ``reversed=True``, ``expired=True``. ``events=False`` and ``reward=False`` leave those out.
    """

    class Meta:
        model = Referral
        skip_postgeneration_save = True

    class Params:
        registered = factory.Trait(state=_State.REGISTERED)
        qualified = factory.Trait(state=_State.QUALIFIED)
        rewarded = factory.Trait(state=_State.QUALIFIED, reward=factory.PostGeneration(_make_granted))
        conflict = factory.Trait(state=_State.CONFLICT)
        reversed = factory.Trait(state=_State.REVERSED)
        expired = factory.Trait(state=_State.EXPIRED)

    user = factory.SubFactory(UserFactory)
    server = factory.LazyFunction(lambda: next(iter(conf.servers)))
    token = factory.Sequence(lambda n: f"token-of-a-factory-{n}")
    state = _State.CAPTURED
    referral_id = factory.LazyAttributeSequence(lambda row, n: f"ref_{n}" if row.state in _REGISTERED else "")
    registered_at = _now_if(lambda row: row.state in _REGISTERED)
    qualified_at = _now_if(lambda row: row.state == _State.QUALIFIED)
    closed_at = _now_if(lambda row: row.state in _ENDED)

    events = factory.PostGeneration(_make_events)
    reward = factory.PostGeneration(_make_due)


class OutboundEventFactory(DjangoModelFactory[OutboundEvent]):
    """One event by itself, with the body that the verb would have written: a ``registered``, due now, by default.

    ``kind="qualified"``, ``kind="reversed"``; ``accepted=True``, ``rejected=True`` (422), ``exhausted=True`` (503),
    ``cancelled=True``. Without ``referral=`` it belongs to one that has no other events.
    """

    class Meta:
        model = OutboundEvent

    class Params:
        accepted = factory.Trait(
            state=OutboundEvent.State.ACCEPTED, attempts=1, frozen=True, last_status=200, outcome=Outcome.ADVANCED.value
        )
        rejected = factory.Trait(
            state=OutboundEvent.State.REJECTED,
            attempts=1,
            last_status=422,
            last_error="HTTP 422: illegal_transition",
            response={"error": "illegal_transition"},
        )
        exhausted = factory.Trait(
            state=OutboundEvent.State.EXHAUSTED,
            attempts=factory.LazyFunction(lambda: len(conf.retry_schedule) + 1),
            frozen=True,
            last_status=503,
            last_error="HTTP 503",
        )
        cancelled = factory.Trait(state=OutboundEvent.State.CANCELLED, reason=OutboundEvent.Reason.OPERATOR)

    referral = factory.SubFactory(ReferralFactory, events=False)
    server = factory.SelfAttribute("referral.server")
    kind = Kind.REGISTERED.value
    server_event_id = factory.LazyAttribute(lambda event: f"{PREFIXES[Kind(event.kind)]}-{event.referral.user_id}")
    body = factory.LazyAttribute(lambda event: _body(event))
    due_at = factory.LazyFunction(timezone.now)
    state = OutboundEvent.State.PENDING
    outcome = ""
    response = factory.LazyAttribute(
        lambda event: _answer(event) if event.state == OutboundEvent.State.ACCEPTED else {}
    )
    attempted_at = _now_if(lambda event: event.attempts)
    settled_at = _now_if(lambda event: event.state not in (OutboundEvent.State.PENDING, OutboundEvent.State.WAITING))
    attempts = 0


class RewardFactory(DjangoModelFactory[Reward]):
    """The reward of a qualified referral: due, or ``state="granted"``."""

    class Meta:
        model = Reward

    referral = factory.SubFactory(ReferralFactory, qualified=True, reward=False)
    due_at = factory.LazyFunction(timezone.now)
    state = Reward.State.DUE
    granted_at = _now_if(lambda reward: reward.state == Reward.State.GRANTED)


def _body(event: Any) -> bytes:
    """As the verb writes it; with no server id for an alias that the settings do not have."""
    servers, user = conf.servers, event.referral.user
    return protocol.encode(
        Kind(event.kind),
        token=event.referral.token,
        server_id=servers[event.server].server_id if event.server in servers else "",
        server_event_id=event.server_event_id,
        ts=int(time.time()),
        referee_identity="" if user is None else conf.referee_identity(user),
    )


def _answer(event: Any) -> dict[str, Any]:
    """MMOLove's, to an event that it accepted."""
    if event.outcome == Outcome.IGNORED.value:
        return {"ok": True, "ignored": "first_touch_conflict"}
    if event.outcome == Outcome.DUPLICATE.value:
        return {"ok": True, "duplicate": True}
    state = "qualified" if event.kind == Kind.QUALIFIED.value else "registered"
    return {"ok": True, "referral_id": event.referral.referral_id, "state": state}
