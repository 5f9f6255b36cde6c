"""Settings, middleware, sessions, share links, tables: what has to be there before anything happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module

from django.conf import settings
from django.core.checks import CheckMessage
from django.db import DatabaseError, InterfaceError, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.urls import NoReverseMatch
from django.utils.translation import gettext as _

from .. import checks
from ..conf import conf
from ..lifecycle import join_path
from ..models import OutboundEvent
from ..options import MissingError
from .finding import Finding, Severity, error, ok

#: The system checks' findings: their id here, and how much they matter.
PLACES = {
    "mmolove_referral.W002": ("middleware.missing", Severity.ERROR),
    "mmolove_referral.W003": ("middleware.order", Severity.ERROR),
    "mmolove_referral.W004": ("middleware.order", Severity.WARNING),
    "mmolove_referral.W005": ("sweep.unscheduled", Severity.WARNING),
    "mmolove_referral.W006": ("sessions.missing", Severity.ERROR),
    "mmolove_referral.W007": ("sessions.failed", Severity.ERROR),
    "mmolove_referral.W009": ("settings.placeholder", Severity.ERROR),
    "mmolove_referral.W010": ("settings.doubled", Severity.WARNING),
    "mmolove_referral.W011": ("accounts.identity", Severity.WARNING),
    "mmolove_referral.W012": ("accounts.code", Severity.WARNING),
    "mmolove_referral.W013": ("accounts.attribute", Severity.ERROR),
    "mmolove_referral.W015": ("celery.no_app", Severity.ERROR),
    "mmolove_referral.W016": ("celery.no_worker", Severity.ERROR),
    "mmolove_referral.W017": ("sessions.strict", Severity.WARNING),
    "mmolove_referral.W018": ("settings.name_taken", Severity.ERROR),
    "mmolove_referral.W019": ("share_links.no_path", Severity.WARNING),
    "mmolove_referral.W020": ("share_links.no_url", Severity.WARNING),
    "mmolove_referral.W021": ("sessions.volatile", Severity.WARNING),
    "mmolove_referral.W022": ("tls.unverified", Severity.WARNING),
    "mmolove_referral.W023": ("database.readers_first", Severity.WARNING),
    "mmolove_referral.W024": ("sandbox.public", Severity.WARNING),
    "mmolove_referral.W025": ("sandbox.configured", Severity.WARNING),
}


def of_check(message: CheckMessage) -> Finding:
    """A system check's message as a finding."""
    name, severity = PLACES[message.id or ""]
    return Finding(name, severity, message.msg, message.hint or "")


def of_settings() -> Iterator[Finding]:
    missing = {str(problem) for problem in conf.errors() if isinstance(problem, MissingError)}
    messages = checks.check_settings(None)
    for message in messages:
        yield error("settings.missing" if message.msg in missing else "settings.wrong", message.msg, message.hint or "")
    if messages:
        return
    doubts = [*checks.check_placeholders(None), *checks.check_same_servers(None), *checks.check_names(None)]
    yield from map(of_check, doubts)
    if not doubts:
        for server in conf.servers.values():
            seen = _("%(setting)s is complete: SERVER_ID = '%(id)s', ENDPOINT = '%(endpoint)s'.")
            values = {"setting": server.setting, "id": server.server_id, "endpoint": server.endpoint}
            yield ok("settings.ok", seen % values, server=server.alias)
    yield from map(of_check, checks.check_verify(None))


def of_accounts() -> Iterator[Finding]:
    yield from map(of_check, checks.check_accounts(None))


def of_middleware() -> Iterator[Finding]:
    messages = checks.check_middleware(None)
    yield from map(of_check, messages)
    if not messages:
        yield ok("middleware.ok", _("ReferralMiddleware stands where it has to in MIDDLEWARE."))


def of_sessions() -> Iterator[Finding]:
    engine = settings.SESSION_ENGINE
    messages = [*checks.check_sessions(None), *checks.check_volatile_sessions(None)]
    yield from map(of_check, messages)
    try:
        import_module(engine).SessionStore().exists("mmolove-doctor")
    except Exception as problem:  # noqa: BLE001  # whatever a session store raises
        if isinstance(problem, (DatabaseError, InterfaceError)) and not _connects():
            return  # which is told of the tables
        if not any(PLACES[message.id or ""][0] == "sessions.failed" for message in messages):
            yield error(
                "sessions.failed",
                _("The sessions, where a visit's token is kept, cannot be read: %s.") % _named(problem),
                _("Mend SESSION_ENGINE = '%s'; sessions in the database need python manage.py migrate sessions.")
                % engine,
            )
        return
    if not messages:
        yield ok("sessions.ok", _("Sessions work: SESSION_ENGINE = '%s'.") % engine)


def of_share_links() -> Iterator[Finding]:
    try:
        paths = {server.alias: join_path("code", server.alias) for server in conf.servers.values()}
    except NoReverseMatch:
        yield of_check(checks.no_join_page())
        return
    for server in conf.servers.values():
        if server.share_url:
            seen = _("Share links such as %(path)s lead to %(url)s.") % {
                "path": paths[server.alias],
                "url": server.share_url,
            }
            yield ok("share_links.ok", seen, server=server.alias)
        else:
            yield replace(of_check(checks.no_share_url(server)), server=server.alias)


def of_production() -> Iterator[Finding]:
    """What only matters where players come, and is not silenced there."""
    if not settings.DEBUG:
        for check in (checks.check_sqlite, checks.check_sandbox, checks.check_this_machine):
            yield from (of_check(message) for message in check(None) if not message.is_silenced())


def of_migrations(using: str) -> Iterator[Finding]:
    connection = connections[using]
    executor = MigrationExecutor(connection)
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "mmolove_referral"]
    plan = [migration for migration, _back in executor.migration_plan(targets)]
    pending = [migration.name for migration in plan if migration.app_label == "mmolove_referral"]
    values = {"alias": using, "vendor": connection.display_name}
    if pending:
        yield error(
            "migrations.pending",
            _("Tables are missing or old in the database '%(alias)s' (%(vendor)s): not applied yet is %(pending)s.")
            % {**values, "pending": ", ".join(pending)},
            f"python manage.py migrate{'' if using == 'default' else f' --database {using}'}",
        )
    else:
        yield ok("migrations.ok", _("All tables are there, in the database '%(alias)s' (%(vendor)s).") % values)


def _connects() -> bool:
    """Whether our database is to be had at all, which the sessions are often in, too."""
    try:
        connections[router.db_for_write(OutboundEvent)].ensure_connection()
    except (DatabaseError, InterfaceError):
        return False
    return True


def _named(problem: Exception) -> str:
    return type(problem).__name__  # its text may hold the address, and the password, of a cache
