"""One server's endpoint: is it reached, by TLS, in time, and does it accept a signed dry run?"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from django.utils.translation import gettext as _

from .. import advice
from ..conf import ConfigError, Server
from ..delivery.dry_run import DryRun, dry_run
from ..models import ServerHealth
from ..sockets import Stage, stage_of
from .finding import Finding, Severity, ok, told, warning

STAGES = {
    Stage.NAME: "dns.failed",
    Stage.CONNECTION: "connect.failed",
    Stage.TLS: "tls.failed",
    Stage.CERTIFICATE: "tls.failed",
    Stage.AUTHORITIES: "tls.failed",
}
LATER = (408, 425, 429)


def of_endpoint(server: Server, using: str | None) -> Iterator[Finding]:
    """Send a dry run. ``using`` is the database, or ``None`` if there is none to take a token from."""
    try:
        # This process ends at once, so it must not begin to deliver.
        result = dry_run(server.alias, using=using, wake=False)
    except ConfigError:
        return  # named among the settings
    attempt = result.attempt
    stage = stage_of(attempt.answer.error)
    advised = advice.of_dry_run(result, None)
    if stage is not None:
        yield told(STAGES[stage], Severity.ERROR, advised, server=server.alias)
        return
    if attempt.status:
        seen = _("%(endpoint)s answered HTTP %(status)d within %(ms)d ms.")
        values = {"endpoint": result.endpoint, "status": attempt.status, "ms": round(attempt.duration * 1000)}
        yield ok("endpoint.reached", seen % values, server=server.alias)
    yield from of_clock(server, attempt.skew, socket.gethostname(), known=attempt.status > 0)
    yield _of_answer(server, result, advised)


def of_clock(server: Server, skew: float | None, host: str, *, known: bool = True) -> Iterator[Finding]:
    """``skew``: seconds by which MMOLove's clock is ahead of that of ``host``."""
    if skew is None:
        if known:
            yield warning(
                "clock.unknown",
                _("The answer has no Date, so the clock of %s cannot be compared with MMOLove's.") % host,
                _("Check that %s['ENDPOINT'] is MMOLove's, and that the host's clock is set by NTP.") % server.setting,
                server=server.alias,
            )
        return
    advised = advice.of_clock(skew, host)
    if advised is None:
        yield ok("clock.ok", _("The clock of %s agrees with MMOLove's.") % host, server=server.alias)
    else:
        yield told("clock.skew", Severity.WARNING, advised, server=server.alias)


def of_remembered_clock(server: Server, health: ServerHealth) -> Iterator[Finding]:
    """What the last delivery found out about its host's clock, if that was off."""
    if advice.of_clock(health.clock_skew, health.clock_host):
        yield from of_clock(server, health.clock_skew, health.clock_host)


def _of_answer(server: Server, result: DryRun, advised: advice.Advice) -> Finding:
    status = result.attempt.status
    if result.passed:
        name, severity = "dry_run.passed", Severity.OK
    elif result.undecided:
        name, severity = "dry_run.undecided", Severity.WARNING
    elif 300 <= status < 500 and status not in LATER:
        name, severity = "dry_run.refused", Severity.ERROR
    else:
        name, severity = "dry_run.failed", Severity.ERROR
    return told(name, severity, advised, server=server.alias)
