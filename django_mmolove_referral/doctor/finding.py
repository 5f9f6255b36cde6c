"""What the doctor says: one finding, and the words that several of them share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from django.utils.translation import gettext as _

from ..advice import Advice
from ..conf import DEFAULT_SERVER

MINUTE, HOUR, DAY = 60, 3600, 86_400


class Severity(str, Enum):
    """How much a finding matters."""

    OK = "ok"  # looked at, nothing to be done
    WARNING = "warning"  # works, and will not for ever, or not for everybody
    ERROR = "error"  # something is not delivered, granted or captured


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    #: Stable, such as ``clock.skew``: what was looked at, and how it stands. Several findings may share one.
    id: str
    severity: Severity
    #: What was seen, with this portal's own values.
    seen: str
    #: The setting, command or page that mends it; empty if nothing is to be done.
    cure: str = ""
    #: The alias of the server that it is about; empty if it is about all of them.
    server: str = ""

    @property
    def words(self) -> str:
        """What was seen, and at which server if that is not the default one."""
        if self.server in ("", DEFAULT_SERVER):
            return self.seen
        return _("%(seen)s [%(server)s]") % {"seen": self.seen, "server": self.server}

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "severity": self.severity.value}


def ok(name: str, seen: str, *, server: str = "") -> Finding:
    return Finding(name, Severity.OK, seen, server=server)


def warning(name: str, seen: str, cure: str, *, server: str = "") -> Finding:
    return Finding(name, Severity.WARNING, seen, cure, server)


def error(name: str, seen: str, cure: str, *, server: str = "") -> Finding:
    return Finding(name, Severity.ERROR, seen, cure, server)


def told(name: str, severity: Severity, advice: Advice, *, server: str = "") -> Finding:
    """A finding in the words of the admin."""
    cure = "" if severity is Severity.OK else advice.cure
    return Finding(name, severity, advice.cause, cure, server)


def lasting(seconds: float) -> str:
    """A duration, roughly."""
    if seconds >= 2 * DAY:
        return _("%d days") % (seconds // DAY)
    if seconds >= 2 * HOUR:
        return _("%d hours") % (seconds // HOUR)
    if seconds >= 2 * MINUTE:
        return _("%d minutes") % (seconds // MINUTE)
    return _("%d s") % max(seconds, 0)
