"""What states and answers mean to the owner of a portal: cause and cure, in words, with this portal's own values."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .conf import SETTING, ConfigError, Server, conf
from .delivery.dry_run import DryRun
from .delivery.failing import Failing
from .delivery.rewards import NO_RECEIVER
from .delivery.send import CLOCKS_AGREE
from .models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth
from .protocol import DEFAULT_ENDPOINT, Kind, parse_object
from .servers import ENVIRONMENT, LOOPBACK
from .sockets import Stage, stage_of


@dataclass(frozen=True)
class Advice:
    """What happened, and what to do; ``cure`` says so, too, when there is nothing to do."""

    cause: str
    cure: str


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


def of_answer(server: str, status: int, error: str, health: ServerHealth | None, *, again: bool = True) -> Advice:
    """What one answer means: ``status`` 0 for none, ``error`` as it was stored.

    ``again``: whether it is tried again by itself. If not, the cure is empty where waiting is all there is to do.
    """
    where, server_id, endpoint = _place(server)
    host = urlsplit(endpoint).hostname or endpoint
    wait = _("Nothing is to be done: it is tried again by itself.") if again else ""
    if status == 200 and not error:
        return Advice(_("MMOLove accepted it."), _("Nothing is to be done."))
    if status == 0:
        return _of_silence(where, host, error, again=again)
    if status == 401:
        return _of_bad_signature(where, server_id, error, health)
    if status == 404:
        return Advice(
            _("MMOLove knows no such thing: %s.") % error,
            _(
                "Check in the MMOLove dashboard that %(where)s['SERVER_ID'] = '%(id)s' is your server's id, that "
                "referrals are enabled and that a secret has been generated. If a test event passes, this referral's "
                "token is unknown or has expired, and nothing can be done for it."
            )
            % {"where": where, "id": server_id}
            + _of_another_server(),
        )
    if status == 400:
        return Advice(
            _("MMOLove calls the request malformed: %s.") % error,
            _("Check MMOLOVE_REFERRAL['REFEREE_IDENTITY'] and %(where)s['SERVER_ID'] = '%(id)s'.")
            % {"where": where, "id": server_id},
        )
    if status == 422:
        return Advice(
            _("MMOLove does not allow this step in the referral's state: %s.") % error,
            _("Look the referral up in the MMOLove dashboard: it may be reversed, expired or rejected there."),
        )
    if 300 <= status < 400:
        return Advice(
            _("The endpoint redirects, and a redirect is never followed: %s.") % error,
            _("Set %(where)s['ENDPOINT'] to the final address; MMOLove's own is %(default)s.")
            % {"where": where, "default": DEFAULT_ENDPOINT},
        )
    if status in (408, 425, 429):
        return Advice(_("MMOLove asks to wait: %s.") % error, wait)
    if status >= 500:
        return Advice(_("MMOLove, or a proxy before it, has a fault: %s.") % error, wait)
    if 200 <= status < 300:
        return Advice(
            _("Something answered in MMOLove's place: %s.") % error,
            _(
                "Check that %(where)s['ENDPOINT'] = '%(endpoint)s' is MMOLove's, and what stands between (a proxy, a "
                "captive portal)."
            )
            % {"where": where, "endpoint": endpoint},
        )
    return Advice(
        _("The request was refused: %s.") % error,
        _("Check %(where)s['ENDPOINT'] = '%(endpoint)s', and whether a firewall or proxy refuses this machine.")
        % {"where": where, "endpoint": endpoint},
    )


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


def of_clock(skew: float, host: str) -> Advice | None:
    """Two clocks that do not agree; ``None`` if they do. ``skew``: seconds by which MMOLove's is ahead."""
    if abs(skew) <= CLOCKS_AGREE:
        return None
    words = _("behind") if skew > 0 else _("ahead of")
    return Advice(
        _("The clock of %(host)s is %(seconds)d s %(words)s MMOLove's.")
        % {"host": host, "seconds": abs(skew), "words": words},
        _("Have that host's clock set by NTP."),
    )


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


def _of_silence(where: str, host: str, error: str, *, again: bool) -> Advice:
    cures = {
        Stage.CERTIFICATE: _(
            "Check this machine's clock and its CA certificates (a CA of your own: MMOLOVE_REFERRAL['VERIFY']), and "
            "that nothing between here and %(host)s opens the encryption."
        ),
        Stage.TLS: _(
            "Check that %(where)s['ENDPOINT'] is an address that speaks https, and that no firewall or proxy breaks "
            "the connection to %(host)s off."
        ),
        Stage.AUTHORITIES: _("Set MMOLOVE_REFERRAL['VERIFY'] to True, or to a file of CA certificates that is there."),
    }
    if host in LOOPBACK:
        otherwise = _("It is on this machine: is python manage.py mmolove_sandbox running, on that port?")
    else:
        otherwise = _("Check that this machine reaches %(host)s (firewall, proxy, DNS).")
    stage = stage_of(error)
    cure = (cures.get(stage, otherwise) if stage else otherwise) % {"host": host, "where": where}
    if again and stage is not Stage.AUTHORITIES:
        cure = _("%s It is tried again by itself.") % cure
    return Advice(_("No complete answer came from MMOLove: %s.") % error.rstrip("."), cure)


def _of_bad_signature(where: str, server_id: str, error: str, health: ServerHealth | None) -> Advice:
    skew = health.clock_skew if health is not None else 0.0
    if abs(skew) > CLOCKS_AGREE:
        words = _("behind") if skew > 0 else _("ahead of")
        return Advice(
            _("The clock of %(host)s is %(seconds)d s %(words)s MMOLove's, so its signatures are refused: %(error)s.")
            % {"host": health.clock_host if health else "", "seconds": abs(skew), "words": words, "error": error},
            _("Have that host's clock set by NTP."),
        )
    if "timestamp" in error.lower() or "stale" in error.lower():
        return Advice(
            _("MMOLove finds the signature too old or too new, so this host's clock and its own differ: %s.") % error,
            _("Have the clock of every host that delivers set by NTP, and send a test event."),
        )
    # Which names the secret of the server at the top of the settings only.
    variable = _(" or the environment variable %s") % ENVIRONMENT["SECRET"] if where == SETTING else ""
    return Advice(
        _("MMOLove refuses the signature: %s. The secret here is not the one it has for this server.") % error,
        _(
            "Copy the current secret of server '%(id)s' from the MMOLove dashboard (rotating it ended the old one) "
            "into %(where)s['SECRET']%(variable)s, restart the portal, and send a test event."
        )
        % {"where": where, "id": server_id, "variable": variable},
    )


def _of_another_server() -> str:
    """A token is good for the one server that it was minted for."""
    try:
        several = len(conf.servers) > 1
    except ConfigError:
        return ""
    return _(" Or it is another server's: see MMOLOVE_REFERRAL['RESOLVE_SERVER'].") if several else ""


def _place(alias: str) -> tuple[str, str, str]:
    """The setting that configures the server, its id and its endpoint, as far as they are readable."""
    try:
        server = conf.server(alias)
    except ConfigError:
        return f"MMOLOVE_REFERRAL['SERVERS']['{alias}']", "", DEFAULT_ENDPOINT
    try:
        endpoint = server.credentials().endpoint
    except ConfigError:
        endpoint = DEFAULT_ENDPOINT
    return server.setting, server.server_id, endpoint


def _dispatch() -> str:
    try:
        return conf.dispatch
    except ConfigError as error:
        return str(error)


def _status_in(reason: str) -> int:
    """The status that a stored reason begins with (``HTTP 401: …``); 0 if none arrived."""
    word = reason.removeprefix("HTTP ")[:3]
    return int(word) if reason.startswith("HTTP ") and word.isdigit() and ", but " not in reason[:13] else 0


def when(moment: datetime | None, form: str = "DATETIME_FORMAT") -> str:
    """A moment in the time zone of whoever reads it."""
    if moment is None:
        return "-"
    return date_format(timezone.localtime(moment) if timezone.is_aware(moment) else moment, form)


def exactly(moment: datetime | None) -> str:
    """A moment to the second, with the time zone that it is told in: dry runs and first retries are seconds apart."""
    return when(moment, "Y-m-d H:i:s T").strip()
