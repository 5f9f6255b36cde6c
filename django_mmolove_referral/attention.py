"""What needs a person now: cause, cure, and where the thing to click is; the most pressing first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import advice
from .conf import ConfigError, conf
from .delivery.send import CLOCKS_AGREE
from .models import OutboundEvent, Reward, ServerHealth
from .stats import COUNTED, Stats


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    advice: advice.Advice
    #: The model whose page shows it, by name, and that page's query; no model if only the settings help.
    model: str = ""
    query: dict[str, str] = field(default_factory=dict)
    #: Whether somebody loses something, or nothing moves, until it is mended.
    urgent: bool = True


def findings(stats: Stats) -> list[Finding]:
    """What needs attention, the most pressing first; empty if all is well."""
    return [*_servers(stats), *_delivery(stats), *_rewards(stats), *_events(stats), *_clocks(stats)]


def _servers(stats: Stats) -> Iterator[Finding]:
    if stats.problem:
        yield Finding(advice.Advice(_("The settings cannot be read, so nothing is delivered."), stats.problem))
        return
    for alias, server in conf.servers.items():
        health = stats.health.get(alias)
        try:
            server.credentials()
        except ConfigError:
            pass
        else:
            if health is None or health.state == ServerHealth.State.OPEN:
                continue
        told = advice.of_server(server, health)
        cause = _("Server “%(alias)s”: %(cause)s") % {"alias": alias, "cause": told.cause}
        yield Finding(advice.Advice(cause, told.cure), "serverhealth")
    for alias, count in stats.open_by_server.items():
        if alias not in conf.servers:
            yield Finding(
                advice.Advice(
                    _("%(count)s open events are for server “%(alias)s”, which is not configured any more.")
                    % {"count": amount(count), "alias": alias},
                    _("Put it back into MMOLOVE_REFERRAL['SERVERS'], or cancel them."),
                ),
                "outboundevent",
                {"server": alias},
            )


def _delivery(stats: Stats) -> Iterator[Finding]:
    if stats.stalled_since is None:
        return
    cures = {
        "thread": _(
            "Restart the portal. Delivery is by a thread of the web process (MMOLOVE_REFERRAL['DISPATCH'] = 'thread'), "
            "which needs real threads: with uWSGI, enable-threads = true."
        ),
        "celery": _(
            "Start the Celery worker for the queue of mmolove_referral.* and the beat with its sweep "
            "(MMOLOVE_REFERRAL['DISPATCH'] = 'celery')."
        ),
        "manual": _(
            "Start manage.py mmolove_deliver --loop, or have cron run mmolove_deliver --once "
            "(MMOLOVE_REFERRAL['DISPATCH'] = 'manual')."
        ),
    }
    try:
        cure = cures[conf.dispatch]
    except ConfigError as error:
        cure = str(error)
    yield Finding(
        advice.Advice(
            _("Nothing delivers: events have been due since %s, and nobody sends them.")
            % advice.when(stats.stalled_since),
            cure,
        ),
        "outboundevent",
        {"state__exact": OutboundEvent.State.PENDING.value},
    )


def _rewards(stats: Stats) -> Iterator[Finding]:
    rewards, due = stats.rewards, {"state__exact": Reward.State.DUE.value}
    connect = _(
        "Connect a receiver to django_mmolove_referral.signals.referral_qualified in an AppConfig's ready(), and "
        "restart all processes."
    )
    if rewards.without_receiver:
        cause = ngettext(
            "%(count)s reward is due, and no receiver of referral_qualified is there to grant it.",
            "%(count)s rewards are due, and no receiver of referral_qualified is there to grant them.",
            rewards.without_receiver,
        )
        cure = _("%s Then mark the rewards and choose “Retry reward”.") % connect
        yield Finding(advice.Advice(cause % {"count": amount(rewards.without_receiver)}, cure), "reward", due)
    elif not rewards.receiver:
        cause = _("No receiver of referral_qualified is connected, so a qualified referral will earn nobody anything.")
        yield Finding(advice.Advice(cause, connect), urgent=False)
    if rewards.failing:
        cause = ngettext(
            "%(count)s reward could not be granted: the portal's receiver of referral_qualified raised.",
            "%(count)s rewards could not be granted: the portal's receiver of referral_qualified raised.",
            rewards.failing,
        )
        cure = _("Read the error in the list and mend the receiver. They are tried again by themselves.")
        yield Finding(advice.Advice(cause % {"count": amount(rewards.failing)}, cure), "reward", due)


def _events(stats: Stats) -> Iterator[Finding]:
    cure = _("Open one: its page says why and what to do. Then redeliver it.")
    for state, count, cause in (
        (
            OutboundEvent.State.REJECTED,
            stats.events.rejected,
            ngettext("MMOLove rejected %(count)s event.", "MMOLove rejected %(count)s events.", stats.events.rejected),
        ),
        (
            OutboundEvent.State.EXHAUSTED,
            stats.events.exhausted,
            ngettext(
                "%(count)s event was tried for the whole retry schedule, in vain.",
                "%(count)s events were tried for the whole retry schedule, in vain.",
                stats.events.exhausted,
            ),
        ),
    ):
        if count:
            told = advice.Advice(cause % {"count": amount(count)}, cure)
            yield Finding(told, "outboundevent", {"state__exact": state.value}, urgent=False)


def _clocks(stats: Stats) -> Iterator[Finding]:
    for alias in () if stats.problem else conf.servers:
        health = stats.health.get(alias)
        if health is None or health.state != ServerHealth.State.OPEN or abs(health.clock_skew) <= CLOCKS_AGREE:
            continue
        words = _("behind") if health.clock_skew > 0 else _("ahead of")
        cause = _("The clock of %(host)s is %(seconds)d s %(words)s MMOLove's. Delivery allows for it, for now.") % {
            "host": health.clock_host,
            "seconds": abs(health.clock_skew),
            "words": words,
        }
        yield Finding(advice.Advice(cause, _("Have that host's clock set by NTP.")), "serverhealth", urgent=False)


def amount(count: int) -> str:
    """A number as it was counted: up to a limit."""
    return _("more than %d") % COUNTED if count > COUNTED else str(count)
