"""Reading one value of ``MMOLOVE_REFERRAL``: what it may be, and an error that names its key if it is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .protocol import Secret

SETTING = "MMOLOVE_REFERRAL"


class ConfigError(ImproperlyConfigured):
    """A setting is missing or wrong; the message names the key and what to put there."""


class MissingError(ConfigError):
    """A setting that has to be there is not."""


class UnknownServerError(ConfigError):
    """An alias that the settings do not have."""


class InsecureError(ConfigError):
    """A setting would send signed events where others can read them."""


class Options:
    """The setting as it was written, secrets masked, and how its values are read."""

    @cached_property
    def _raw(self) -> Mapping[str, Any]:
        raw = getattr(django_settings, SETTING, None)
        if raw is None:
            return {}
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{SETTING} must be a dict, not {type(raw).__name__}.")
        return masked(raw)

    def _seconds(self, key: str, default: float) -> float:
        return self._as_seconds(key, self._raw.get(key, default))

    def _as_seconds(self, key: str, value: object) -> float:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 10**10:
            raise self._error(key, f"must be a positive number of seconds or a timedelta, not {value!r}")
        return float(value)

    def _whole(self, key: str, default: int) -> int:
        value = self._raw.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._error(key, f"must be a whole number from 1, not {value!r}")
        return value

    def _flag(self, key: str, *, default: bool) -> bool:
        value = self._raw.get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, f"must be True or False, not {value!r}")
        return value

    def _name(self, key: str, default: str) -> str:
        value = self._raw.get(key, default)
        if not isinstance(value, str) or not re.fullmatch(r"[\w.-]{1,64}", value, re.ASCII):
            raise self._error(key, f"must be a name of letters, digits, '.', '-' or '_', not {value!r}")
        return value

    def _dotted(self, key: str) -> Callable[..., Any] | None:
        value = self._raw.get(key)
        if value is None or callable(value):
            return value
        if not isinstance(value, str):
            raise self._error(key, f"must be a callable or the dotted path of one, not {value!r}")
        try:
            found = import_string(value)
        except Exception as error:  # importing runs somebody else's module
            raise self._error(key, f"cannot be imported: {error}") from error
        if not callable(found):
            raise self._error(key, f"must name a callable, and {value!r} is none")
        return found  # type: ignore[no-any-return]  # import_string is untyped by nature

    def _attribute(self, key: str) -> str | None:
        value = self._raw.get(key, "pk")
        return value if isinstance(value, str) and value.isidentifier() else None

    def _of_user(self, key: str) -> Callable[[Any], str]:
        attribute = self._attribute(key)
        if attribute is not None:
            return lambda user: _text(getattr(user, attribute))
        found = self._dotted(key)
        if found is None:
            raise self._error(key, 'must be an attribute of the user ("pk") or the dotted path of callable(user)')
        return lambda user: _text(found(user))

    def _error(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{SETTING}[{key!r}] {what}.")


def unknown_keys(raw: Mapping[str, Any], known: Collection[str], where: str) -> list[str]:
    names = ", ".join(sorted(known))
    return [f"{where} has no setting {key!r}; there are {names}." for key in sorted(map(str, raw)) if key not in known]


def masked(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose secrets show in no report of an error: not even as a variable of one of our frames."""
    copy = dict(raw)
    for key, value in raw.items():
        if isinstance(value, Mapping):
            copy[key] = masked(value)
        elif key == "SECRET" and not callable(value):
            copy[key] = as_secret(value)
    return copy


def as_secret(value: object) -> Secret:
    """``value`` in the type that never shows it; blank if it can be no secret."""
    if isinstance(value, Secret):
        return value
    return Secret(value.strip() if isinstance(value, str) else "")


def _text(value: object) -> str:
    return "" if value is None else str(value)  # "None" would be one identity for many accounts
