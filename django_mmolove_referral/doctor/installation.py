"""Settings, middleware, sessions, share links, tables: what has to be there before anything happens."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from django.conf import settings
from django.core.checks import CheckMessage
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.urls import NoReverseMatch
from django.utils.translation import gettext as _

from .. import checks
from ..conf import ConfigError, Server, conf
from ..lifecycle import join_path
from ..options import MissingError
from .finding import Finding, Severity, error, ok, warning

CACHED_SESSIONS = "django.contrib.sessions.backends.cache"
VOLATILE = ("django.core.cache.backends.locmem.LocMemCache", "django.core.cache.backends.dummy.DummyCache")

#: The system checks' findings: their id here, and how much they matter.
PLACES = {
    "mmolove_referral.W002": ("middleware.missing", Severity.ERROR),
    "mmolove_referral.W003": ("middleware.order", Severity.ERROR),
    "mmolove_referral.W004": ("middleware.order", Severity.WARNING),
    "mmolove_referral.W005": ("sweep.unscheduled", Severity.WARNING),
}


def of_settings() -> Iterator[Finding]:
    missing = set(_missing())
    messages = checks.check_settings(None)
    for message in messages:
        yield error("settings.missing" if message.msg in missing else "settings.wrong", message.msg, message.hint or "")
    if messages:
        return
    for server in conf.servers.values():
        seen = _("%(setting)s is complete: SERVER_ID = '%(id)s', ENDPOINT = '%(endpoint)s'.")
        values = {"setting": server.setting, "id": server.server_id, "endpoint": server.credentials().endpoint}
        yield ok("settings.ok", seen % values, server=server.alias)
    if conf.verify is False:
        yield warning(
            "tls.unverified",
            _("MMOLOVE_REFERRAL['VERIFY'] is False: anybody between here and MMOLove can answer in its place."),
            _("Remove MMOLOVE_REFERRAL['VERIFY'], or set it to the path of your own CA's certificates."),
        )


def of_middleware() -> Iterator[Finding]:
    messages = checks.check_middleware(None)
    yield from map(of_check, messages)
    if not messages:
        yield ok("middleware.ok", _("ReferralMiddleware stands where it has to in MIDDLEWARE."))


def of_check(message: CheckMessage) -> Finding:
    """A system check's message as a finding."""
    name, severity = PLACES[message.id or ""]
    return Finding(name, severity, message.msg, message.hint or "")


def of_sessions() -> Iterator[Finding]:
    engine = settings.SESSION_ENGINE
    try:
        import_module(engine).SessionStore().exists("mmolove-doctor")
    except Exception as problem:  # noqa: BLE001  # whatever a session store raises
        yield error(
            "sessions.failed",
            _("The sessions, where a visit's token is kept, cannot be read: %s.") % _named(problem),
            _("Mend SESSION_ENGINE = '%s'; sessions in the database need python manage.py migrate sessions.") % engine,
        )
        return
    alias = settings.SESSION_CACHE_ALIAS
    backend = settings.CACHES.get(alias, {}).get("BACKEND", "")
    if engine == CACHED_SESSIONS and backend in VOLATILE:
        yield warning(
            "sessions.volatile",
            _("Sessions are kept in CACHES['%s'], which no two processes share: a token that one saw, another forgot.")
            % alias,
            _("Set SESSION_ENGINE to 'django.contrib.sessions.backends.db', or CACHES['%s'] to a shared cache.")
            % alias,
        )
        return
    yield ok("sessions.ok", _("Sessions work: SESSION_ENGINE = '%s'.") % engine)


def of_share_links() -> Iterator[Finding]:
    try:
        paths = {server.alias: join_path("code", server.alias) for server in conf.servers.values()}
    except NoReverseMatch:
        yield warning(
            "share_links.no_path",
            _("The portal has no share links, so nobody knows who referred a player."),
            _('Add path("", include("django_mmolove_referral.urls")) to ROOT_URLCONF = \'%s\'.')
            % settings.ROOT_URLCONF,
        )
        return
    for server in conf.servers.values():
        if server.share_url:
            seen = _("Share links such as %(path)s lead to %(url)s.") % {
                "path": paths[server.alias],
                "url": server.share_url,
            }
            yield ok("share_links.ok", seen, server=server.alias)
        else:
            yield warning(
                "share_links.no_url",
                _("Share links lead to the portal's own front page."),
                _("Set %s['SHARE_URL'] to your server's link at MMOLove, e.g. \"https://mmolove.com/r/your-server\".")
                % server.setting,
                server=server.alias,
            )


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


def _missing() -> Iterator[str]:
    try:
        servers: list[Server] = list(conf.servers.values())
    except ConfigError:
        return
    for server in servers:
        try:
            server.credentials()
        except MissingError as problem:
            yield str(problem)
        except ConfigError:
            pass


def _named(problem: Exception) -> str:
    return type(problem).__name__  # its text may hold the address, and the password, of a cache
