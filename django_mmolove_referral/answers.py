"""What one answer of MMOLove's means to a portal's owner: cause and cure, in words, with this portal's own values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from .conf import SETTING, ConfigError, conf
from .delivery.send import CLOCKS_AGREE
from .models import ServerHealth
from .protocol import DEFAULT_ENDPOINT
from .servers import ENVIRONMENT, LOOPBACK
from .sockets import Stage, stage_of


@dataclass(frozen=True)
class Advice:
    """What happened, and what to do; ``cure`` says so, too, when there is nothing to do."""

    cause: str
    cure: str


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


def when(moment: datetime | None, form: str = "DATETIME_FORMAT") -> str:
    """A moment in the time zone of whoever reads it."""
    if moment is None:
        return "-"
    return date_format(timezone.localtime(moment) if timezone.is_aware(moment) else moment, form)


def exactly(moment: datetime | None) -> str:
    """A moment to the second, with the time zone that it is told in: dry runs and first retries are seconds apart."""
    return when(moment, "Y-m-d H:i:s T").strip()
