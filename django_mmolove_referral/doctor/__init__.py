"""The examination behind ``manage.py mmolove_doctor`` and the admin's overview: what is wrong here, and what mends it.

:func:`examine` only looks: it prints nothing, raises nothing that it meets on the way, and changes nothing but that a
paused server whose dry run passes is opened by the next delivery run.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from django.db import DatabaseError, InterfaceError, router
from django.utils.translation import gettext as _

from ..conf import ConfigError, Server, conf
from ..masking import printable
from ..models import OutboundEvent
from . import broker, delivery, endpoint, installation
from .finding import Finding, Severity, error
from .signs import Signs

__all__ = ["Finding", "Severity", "examine", "needs"]

PRESSING = (
    "database",
    "migrations",
    "settings",
    "middleware",
    "sessions",
    "accounts",
    "server",
    "delivery",
    "celery",
    "dispatcher",
    "sweep",
    "rewards",
    "backlog",
    "events",
)
"""Which errors are told first, and which warnings, by what was looked at: causes before what they lead to."""


def examine(*, offline: bool = False, server: str | None = None) -> Iterator[Finding]:
    """Look at everything, one finding after the other. ``offline`` sends nothing; ``server`` is the only one looked at.

    Raises :class:`~django_mmolove_referral.conf.ConfigError` for a ``server`` that the settings do not have.
    """
    servers = _servers(server)
    return _examine(servers, offline=offline, all_servers=server is None)


def needs() -> list[Finding]:
    """What needs a person, the most pressing first. Nothing is sent, and nothing begins to deliver.

    However many rows there are, the number of queries is the same, and each reads an index's entries up to a limit.
    """
    found = [finding for finding in examine(offline=True) if finding.severity is not Severity.OK]
    # A portal may do without share links; to be told so for good, each time, would be a nuisance.
    return sorted((finding for finding in found if _area(finding) != "share_links"), key=_pressing)


def _pressing(finding: Finding) -> tuple[bool, int]:
    area = _area(finding)
    return finding.severity is not Severity.ERROR, PRESSING.index(area) if area in PRESSING else len(PRESSING)


def _area(finding: Finding) -> str:
    return finding.id.partition(".")[0]


def _examine(servers: list[Server], *, offline: bool, all_servers: bool) -> Iterator[Finding]:
    for look in (
        installation.of_settings,
        installation.of_middleware,
        installation.of_sessions,
        installation.of_accounts,
        installation.of_share_links,
        installation.of_production,
    ):
        yield from _contained(look)
    using = router.db_for_write(OutboundEvent)
    tables = list(_contained(lambda: installation.of_migrations(using)))
    yield from tables
    usable = all(finding.severity is Severity.OK for finding in tables)
    signs = Signs(using)
    for server in servers:
        yield from _of_server(server, signs if usable else None, offline=offline)
    if usable:
        if all_servers:
            yield from _contained(lambda: delivery.of_strangers(using))
        yield from _contained(lambda: delivery.of_dispatcher(signs))
    if not offline:
        yield from _contained(broker.of_broker)
    if usable:
        yield from _contained(lambda: delivery.of_rewards(using))


def _of_server(server: Server, signs: Signs | None, *, offline: bool) -> Iterator[Finding]:
    try:
        server.credentials()
    except ConfigError:
        return  # named among the settings
    sent = (
        []
        if offline
        else list(_contained(lambda: endpoint.of_endpoint(server, signs.using if signs else None), server.alias))
    )
    yield from sent
    passed = any(finding.id == "dry_run.passed" for finding in sent)
    if signs is not None:
        yield from _contained(lambda: delivery.of_server(server, signs, sent=bool(sent), passed=passed), server.alias)


def _servers(alias: str | None) -> list[Server]:
    if alias is not None:
        return [conf.server(alias)]
    try:
        return list(conf.servers.values())
    except ConfigError:
        return []  # named among the settings


def _contained(look: Callable[[], Iterable[Finding]], server: str = "") -> Iterator[Finding]:
    """What ``look`` finds, up to and including what breaks it off."""
    try:
        yield from look()
    except ConfigError:
        pass  # named among the settings
    except (DatabaseError, InterfaceError) as problem:
        yield error(
            "database.failed",
            _("The database does not answer as it should: %s.")
            % printable(f"{type(problem).__name__}: {problem}").rstrip("."),
            _("Mend DATABASES, or what it names; for a table that is missing: python manage.py migrate"),
            server=server,
        )
    except Exception as problem:  # noqa: BLE001  # whatever it is, the rest is looked at
        # Its text may hold anything; where it was raised holds nothing.
        place = traceback.extract_tb(problem.__traceback__)[-1]
        yield error(
            "doctor.failed",
            _("This could not be examined: %(type)s in %(file)s, line %(line)s.")
            % {"type": type(problem).__name__, "file": Path(place.filename).name, "line": place.lineno},
            _("Report it to the authors of django-mmolove-referral, with this line."),
            server=server,
        )
