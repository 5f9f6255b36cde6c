"""The app's settings: ``MMOLOVE_REFERRAL``, read lazily, typed, overridable in tests.

Nothing is read at import. A wrong value raises :class:`ConfigError` where it is first needed, with the exact key
in its message; the system checks report the same error earlier, as a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings as django_settings
from django.core.signals import setting_changed

from .options import SETTING, ConfigError, Options, UnknownServerError, masked, unknown_keys
from .servers import ENVIRONMENT, SERVER_KEYS, Server

__all__ = ["ALIAS_LENGTH", "DEFAULT_SERVER", "KEYS", "SETTING", "ConfigError", "Server", "conf"]

DEFAULT_SERVER = "default"
ALIAS_LENGTH = 64

#: Requests that one claimed event can take at worst: sent, signed again with the server's clock, probed (which
#: may be signed again, too), sent once more. The lease has to outlast all of them.
REQUESTS_PER_CLAIM = 5

DISPATCHERS = ("thread", "celery", "manual")


class Settings(Options):
    """One typed property per key; each validates itself when it is first read."""

    def reload(self) -> None:
        """Forget what was read: the next access reads the settings again."""
        self.__dict__.clear()

    # -- servers

    @cached_property
    def servers(self) -> dict[str, Server]:
        """The configured servers by alias; ``"default"`` is the one written at the top level."""
        top = {key: self._raw[key] for key in SERVER_KEYS if key in self._raw}
        for key, variable in ENVIRONMENT.items():
            if key not in top and variable in os.environ:
                top |= masked({key: os.environ[variable]})
        if not isinstance(self._raw.get("SERVERS") or {}, Mapping):
            raise ConfigError(f"{SETTING}['SERVERS'] must be a dict of alias to dict.")
        more: Mapping[Any, Any] = self._raw.get("SERVERS") or {}
        servers = {} if more and "SERVER_ID" not in top else {DEFAULT_SERVER: Server(DEFAULT_SERVER, top, SETTING)}
        for alias, raw in more.items():
            where = f"{SETTING}['SERVERS'][{alias!r}]"
            if not isinstance(alias, str) or not re.fullmatch(rf"[\w.-]{{1,{ALIAS_LENGTH}}}", alias, re.ASCII):
                raise ConfigError(f"{where}: an alias is 1 to {ALIAS_LENGTH} letters, digits, '.', '-' or '_'.")
            if alias in servers:
                raise ConfigError(f"{where} is configured twice: remove it, or {SETTING}['SERVER_ID'].")
            if not isinstance(raw, Mapping):
                raise ConfigError(f"{where} must be a dict with SERVER_ID and SECRET.")
            servers[alias] = Server(alias, raw, where)
        return servers

    def server(self, alias: str) -> Server:
        """The server called ``alias``. Raises :class:`ConfigError` naming the ones there are."""
        try:
            return self.servers[alias]
        except KeyError:
            known = ", ".join(map(repr, self.servers))
            text = f"There is no server {alias!r} in {SETTING}['SERVERS']; there is {known}."
            raise UnknownServerError(text) from None

    @cached_property
    def resolve_server(self) -> Callable[..., Any] | None:
        """``callable(request) -> alias``, or ``None``."""
        return self._dotted("RESOLVE_SERVER")

    # -- capture

    @cached_property
    def query_param(self) -> str:
        return self._name("QUERY_PARAM", "mmref")

    @cached_property
    def cookie_name(self) -> str:
        return self._name("COOKIE_NAME", "mmref")

    @cached_property
    def token_names(self) -> tuple[str, str]:
        """Both in one, for those who ask on every request."""
        return self.query_param, self.cookie_name

    @cached_property
    def set_cookie(self) -> bool:
        return self._flag("SET_COOKIE", default=False)

    @cached_property
    def capture_if(self) -> Callable[..., Any] | None:
        """``callable(request) -> bool``, or ``None``: every visit may be captured."""
        found = self._dotted("CAPTURE_IF")
        # What an async function returns is true, whatever it would have said.
        if iscoroutinefunction(found) or iscoroutinefunction(getattr(found, "__call__", None)):  # noqa: B004
            raise self._error("CAPTURE_IF", "must be a plain function, not an async one")
        return found

    @cached_property
    def token_max_age(self) -> float:
        """Seconds."""
        return self._seconds("TOKEN_MAX_AGE", 90 * 86400)

    @cached_property
    def token_retention(self) -> float | None:
        """Seconds, or ``None``: tokens are kept for ever."""
        if self._raw.get("TOKEN_RETENTION", "") is None:
            return None
        return self._seconds("TOKEN_RETENTION", 180 * 86400)

    # -- accounts

    @cached_property
    def auto_register(self) -> bool:
        return self._flag("AUTO_REGISTER", default=True)

    @cached_property
    def referee_identity(self) -> Callable[[Any], str]:
        return self._of_user("REFEREE_IDENTITY")

    @cached_property
    def referee_identity_field(self) -> str | None:
        """The attribute that is the identity, or ``None`` if a callable makes it."""
        return self._attribute("REFEREE_IDENTITY")

    @cached_property
    def referrer_code(self) -> Callable[[Any], str]:
        return self._of_user("REFERRER_CODE")

    @cached_property
    def referrer_code_field(self) -> str | None:
        """The attribute that a referrer code names, or ``None`` if a callable makes the codes."""
        return self._attribute("REFERRER_CODE")

    @cached_property
    def resolve_referrer(self) -> Callable[..., Any] | None:
        """``callable(referral, response) -> user or None``, or ``None``."""
        return self._dotted("RESOLVE_REFERRER")

    # -- delivery (durations in seconds)

    @cached_property
    def dispatch(self) -> str:
        value = self._raw.get("DISPATCH", "thread")
        if value not in DISPATCHERS:
            raise self._error("DISPATCH", f"must be one of {', '.join(map(repr, DISPATCHERS))}, not {value!r}")
        return str(value)

    @cached_property
    def deadline(self) -> float:
        return self._seconds("DEADLINE", 15)

    @cached_property
    def lease(self) -> float:
        lease, least = self._seconds("LEASE", 120), REQUESTS_PER_CLAIM * self.deadline
        if lease <= least:
            raise self._error(
                "LEASE",
                f"must be over {least:g} s ({REQUESTS_PER_CLAIM} requests of DEADLINE = {self.deadline:g} s each), "
                f"not {lease:g} s",
            )
        return lease

    @cached_property
    def concurrency(self) -> int:
        return self._whole("CONCURRENCY", 32)

    @cached_property
    def retry_schedule(self) -> tuple[float, ...]:
        value = self._raw.get("RETRY_SCHEDULE", (10, 60, 300, 900, 3600, 10800, 21600, 43200, 86400, 86400))
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise self._error("RETRY_SCHEDULE", "must be a list of durations with at least one")
        return tuple(self._as_seconds("RETRY_SCHEDULE", item) for item in value)

    @cached_property
    def pause_after(self) -> int:
        return self._whole("PAUSE_AFTER", 5)

    @cached_property
    def probe_interval(self) -> tuple[float, float]:
        """First and longest interval; a single duration in the settings is the first."""
        value = self._raw.get("PROBE_INTERVAL", 15)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
            first, longest = (self._as_seconds("PROBE_INTERVAL", item) for item in value)
        else:
            first = self._as_seconds("PROBE_INTERVAL", value)
            longest = max(first, 300.0)
        if longest < first:
            raise self._error("PROBE_INTERVAL", "must have its longest interval last")
        return first, longest

    @cached_property
    def sweep_interval(self) -> float:
        return self._seconds("SWEEP_INTERVAL", 30)

    @cached_property
    def response_limit(self) -> int:
        return self._whole("RESPONSE_LIMIT", 64 * 1024)

    @cached_property
    def verify(self) -> bool | str:
        value = self._raw.get("VERIFY", True)
        if not isinstance(value, (bool, str, os.PathLike)):
            raise self._error("VERIFY", f"must be True, False or the path of a CA bundle, not {value!r}")
        return value if isinstance(value, bool) else os.fspath(value)

    @cached_property
    def trust_env(self) -> bool:
        return self._flag("TRUST_ENV", default=False)

    # -- for the checks

    def errors(self) -> list[ConfigError]:
        """What is wrong with the settings, each as it would be raised where it is needed; empty if nothing is."""
        found: list[ConfigError] = []
        for name in _properties():
            try:
                getattr(self, name)
            except ConfigError as error:
                found.append(error)
        if found and self._bad_root():
            return found[:1]
        found += map(ConfigError, unknown_keys(self._raw, KEYS, SETTING))
        for server in self.__dict__.get("servers", {}).values():
            found += map(ConfigError, server.unknown_keys())
            for read in (server.credentials, lambda server=server: server.share_url):
                try:
                    read()
                except ConfigError as error:
                    found.append(error)
        return list({str(error): error for error in found}.values())

    def problems(self) -> list[str]:
        """The same, one sentence each."""
        return list(map(str, self.errors()))

    def _bad_root(self) -> bool:
        return not isinstance(getattr(django_settings, SETTING, {}), Mapping)


def _properties() -> list[str]:
    return [name for name, value in vars(Settings).items() if isinstance(value, cached_property)]


#: Properties that are no keys, but made of some.
_MADE = ("_raw", "servers", "referee_identity_field", "referrer_code_field", "token_names")

#: Every key of the setting.
KEYS = frozenset({*SERVER_KEYS, "SERVERS"} | {name.upper() for name in _properties() if name not in _MADE})

conf = Settings()


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == SETTING:
        conf.reload()


setting_changed.connect(_forget, dispatch_uid="mmolove_referral.conf")
