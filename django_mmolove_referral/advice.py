"""What states and answers mean to the owner of a portal: cause and cure, in words, with this portal's own values."""

from __future__ import annotations

import socket

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .answers import Advice as Advice
from .answers import exactly as exactly
from .answers import of_answer as of_answer
from .answers import of_clock as of_clock
from .answers import when as when
from .conf import ConfigError, Server, conf
from .delivery.dry_run import DryRun
from .delivery.failing import Failing
from .delivery.rewards import NO_RECEIVER
from .models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth
from .protocol import Kind, parse_object


def of_event(event: OutboundEvent, health: ServerHealth | None) -> Advice:
    """Why this event is where it is."""
    state = event.State(event.state)
    if state is event.State.ACCEPTED:
        return _of_accepted(event)
    if state is event.State.CANCELLED:
        return _of_cancelled(event)
    if state is event.State.WAITING:
        return _of_waiting(event)
    if state is event.State.PENDING:
        return _of_pending(event, health)
    told = of_answer(event.server, event.last_status or 0, event.last_error, health, again=False)
    if state is event.State.EXHAUSTED:
        cause = _("It was tried for the whole retry schedule, in vain. The last time: %s") % told.cause
    else:
        cause = told.cause
    if not event.body:
        return Advice(cause, _nothing_left())
    if not told.cure:
        return Advice(cause, _("Redeliver this event once a test event passes."))
    return Advice(cause, _("%(cure)s Then redeliver this event.") % {"cure": told.cure})


def of_attempt(event: OutboundEvent, attempt: DeliveryAttempt) -> str:
    """What one attempt of ``event`` came to, in a sentence."""
    if attempt.status == 200 and not attempt.error:
        fields = parse_object(attempt.answer.encode()) or {}
        outcome = "ignored" if fields.get("ignored") else "duplicate" if fields.get("duplicate") else ""
        return _accepted_as(outcome, "")
    return of_answer(event.server, attempt.status, attempt.error, None).cause


def of_referral(referral: Referral) -> Advice:
    """How far a referral got, and what it waits for."""
    state = referral.State(referral.state)
    if referral.blanked and state in (referral.State.CAPTURED, referral.State.REGISTERED):
        words = {
            referral.State.CAPTURED: _("MMOLove never accepted its “registered”, and its token has been blanked."),
            referral.State.REGISTERED: _(
                "MMOLove knows the account. It had not reached the milestone when its token was blanked."
            ),
        }
        return Advice(words[state], _nothing_left())
    if state is referral.State.CAPTURED:
        return Advice(
            _("The account came with a token; MMOLove has not accepted its “registered” yet."),
            _("See the event “registered” below for why. There is none while AUTO_REGISTER is off."),
        )
    if state is referral.State.REGISTERED:
        return Advice(
            _("MMOLove knows the account. It has not been credited with the portal's milestone yet."),
            _("The portal calls mark_qualified(user) at the milestone; then see the event “qualified” below."),
        )
    causes = {
        referral.State.QUALIFIED: _(
            "MMOLove has credited the referrer. The reward's own page says whether it was granted."
        ),
        referral.State.CONFLICT: _accepted_as("ignored", ""),
        referral.State.REVERSED: _("The portal took the referral back (mark_reversed)."),
        referral.State.EXPIRED: _("The token grew too old before MMOLove accepted anything (%s days).")
        % f"{conf.token_max_age / 86400:g}",
    }
    return Advice(causes[state], _("Nothing is to be done."))


def of_dry_run(result: DryRun, health: ServerHealth | None) -> Advice:
    """What a test event has found out."""
    clock = None if result.attempt.skew is None else of_clock(result.attempt.skew, socket.gethostname())
    if result.passed and clock is not None:
        return Advice(
            _("MMOLove accepted the test event: address, server id and secret are right. %s") % clock.cause, clock.cure
        )
    if result.passed:
        return Advice(
            _("MMOLove accepted the test event: address, server id, secret and clock are right."),
            _("Nothing is to be done. What waited for this server leaves now."),
        )
    if result.undecided:
        return Advice(
            _("MMOLove answered 404 to a token that it has never accepted, which decides nothing."),
            _("Check the server id '%s' in the MMOLove dashboard; then follow a real share link and sign up once.")
            % conf.server(result.server).server_id,
        )
    attempt = result.attempt
    if attempt.skew is not None:
        health = health or ServerHealth(server=result.server)
        health.clock_skew, health.clock_host = attempt.skew, socket.gethostname()
    return of_answer(result.server, attempt.status, attempt.answer.error, health)


def of_server(server: Server, health: ServerHealth | None, failing: Failing | None = None) -> Advice:
    """How delivery to a server stands. ``failing``: what failed there since its last success."""
    try:
        server.credentials()
    except ConfigError as error:
        return Advice(_("Nothing is delivered."), str(error))
    if failing is not None:
        return _of_failing(server, health, failing)
    if health is None or health.state == ServerHealth.State.OPEN:
        if health is None or health.last_success_at is None:
            return Advice(
                _("Nothing has been delivered to it yet."), _("Sending a test event finds out whether delivery works.")
            )
        return Advice(_("Delivery works as far as is known."), _("Nothing is to be done."))
    told = of_answer(server.alias, _status_in(health.reason), health.reason, health)
    return Advice(
        _("Delivery has been paused (since %(since)s). %(cause)s")
        % {"since": exactly(health.since), "cause": told.cause},
        _(
            "%(cure)s Events wait meanwhile, and none is lost. The next dry run (%(probe)s) finds out whether it works "
            "again; sending a test event does so now."
        )
        % {"cure": told.cure, "probe": exactly(health.probe_at)},
    )


def _of_failing(server: Server, health: ServerHealth | None, failing: Failing) -> Advice:
    told = of_answer(server.alias, failing.status, failing.error, health)
    cause = ngettext(
        "The last try of %(count)d event failed. %(cause)s",
        "The last tries of %(count)d events failed. %(cause)s",
        failing.count,
    ) % {"count": failing.count, "cause": told.cause}
    if failing.next_at is None or failing.next_at <= timezone.now():
        cure = _("%(cure)s The next delivery run finds out whether it works again; sending a test event does so now.")
        return Advice(cause, cure % {"cure": told.cure})
    cure = _("%(cure)s The next try (%(due)s) finds out whether it works again; sending a test event does so now.")
    return Advice(cause, cure % {"cure": told.cure, "due": exactly(failing.next_at)})


def of_reward(reward: Reward) -> Advice:
    """Why a reward is where it is."""
    if reward.state == Reward.State.GRANTED:
        return Advice(_("It has been granted (%s).") % exactly(reward.granted_at), _("Nothing is to be done."))
    if reward.state == Reward.State.CANCELLED:
        return Advice(_("The referral ended without a reward before it was granted."), _("Nothing is to be done."))
    if reward.last_error == NO_RECEIVER:
        return Advice(
            _("It could not be granted: %s.") % _(NO_RECEIVER).rstrip("."),
            _("Restart what delivers once one is connected: the next delivery run of a process that has it grants it."),
        )
    if reward.last_error:
        cause = _("It could not be granted: %s.") % reward.last_error.rstrip(".")
        if reward.due_at <= timezone.now():
            return Advice(
                cause,
                _("The next delivery run tries it again. If it fails again, mend the receiver of referral_qualified."),
            )
        return Advice(
            cause,
            _("Mend the receiver of referral_qualified. It is tried again by itself (%s), or at once with “Retry now”.")
            % exactly(reward.due_at),
        )
    return Advice(
        _("It is due and will be granted by the next delivery run."),
        _("If it stays so, nothing delivers: see MMOLOVE_REFERRAL['DISPATCH'] = '%s'.") % _dispatch(),
    )


def _of_accepted(event: OutboundEvent) -> Advice:
    return Advice(_accepted_as(event.outcome, event.response.get("state", "")), _("Nothing is to be done."))


def _accepted_as(outcome: str, state: object) -> str:
    causes = {
        "duplicate": _("MMOLove had it already: an earlier answer was lost. It counts the same."),
        "ignored": _("Another referrer already holds this account at MMOLove (first touch). There is no reward."),
        "other_state": _("MMOLove accepted it, but the referral is in the state “%s” there. There is no reward.")
        % state,
    }
    return causes.get(outcome, _("MMOLove accepted it."))


def _of_cancelled(event: OutboundEvent) -> Advice:
    if event.reason == event.Reason.OPERATOR and not event.body:
        return Advice(_("A member of staff cancelled it."), _nothing_left())
    if event.reason == event.Reason.OPERATOR:
        return Advice(_("A member of staff cancelled it."), _("Redeliver it to send it after all."))
    return Advice(
        _("It was cancelled: %s.") % event.get_reason_display(), _("Nothing is to be done; it cannot be sent any more.")
    )


def _nothing_left() -> str:
    return _("Nothing is to be done: its token and body have been blanked, and nothing can be sent any more.")


def _of_waiting(event: OutboundEvent) -> Advice:
    registered = event.referral.events.filter(kind=Kind.REGISTERED.value).first()
    if event.kind == Kind.REVERSED.value and event.referral.registered_at is not None:
        return Advice(_("It waits until “qualified” is settled."), _("Nothing is to be done."))
    if registered is None:
        return Advice(
            _("It waits for “registered”, which has not been written."),
            _("Call mark_registered(user): MMOLOVE_REFERRAL['AUTO_REGISTER'] is off."),
        )
    if registered.open:
        return Advice(_("It waits until “registered” has been accepted."), _("Nothing is to be done."))
    return Advice(
        _("It waits for “registered”, which is %s.") % registered.get_state_display(),
        _("Open “registered” (%s), do what its page says, and redeliver it.") % registered.server_event_id,
    )


def _of_pending(event: OutboundEvent, health: ServerHealth | None) -> Advice:
    try:
        server = conf.server(event.server)
        server.credentials()
    except ConfigError as error:
        return Advice(_("It is not sent."), str(error))
    if health is not None and health.state != ServerHealth.State.OPEN:
        return of_server(server, health)
    if event.claim is not None and event.due_at > timezone.now():
        return Advice(_("A worker is sending it now."), _("Nothing is to be done."))
    if event.attempts:
        told = of_answer(event.server, event.last_status or 0, event.last_error, health)
        return Advice(told.cause, _("%(cure)s (Next try: %(due)s)") % {"cure": told.cure, "due": exactly(event.due_at)})
    return Advice(
        _("It is due and leaves with the next delivery run."),
        _("If it stays so, nothing delivers: see MMOLOVE_REFERRAL['DISPATCH'] = '%s'.") % _dispatch(),
    )


def _dispatch() -> str:
    try:
        return conf.dispatch
    except ConfigError as error:
        return str(error)


def _status_in(reason: str) -> int:
    """The status that a stored reason begins with (``HTTP 401: …``); 0 if none arrived."""
    word = reason.removeprefix("HTTP ")[:3]
    return int(word) if reason.startswith("HTTP ") and word.isdigit() and ", but " not in reason[:13] else 0
