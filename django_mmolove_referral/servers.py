"""One MMOLove server, as the settings describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings as django_settings

from .options import SETTING, ConfigError, InsecureError, MissingError, as_secret, unknown_keys
from .protocol import DEFAULT_ENDPOINT, KEY_ID, Credentials, Secret

SERVER_KEYS = ("SERVER_ID", "SECRET", "KEY_ID", "ENDPOINT", "SHARE_URL")
ENVIRONMENT = {"SERVER_ID": "MMOLOVE_SERVER_ID", "SECRET": "MMOLOVE_REFERRAL_SECRET"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Server:
    """One MMOLove server, by the alias that the portal gave it."""

    alias: str
    _raw: Mapping[str, Any] = field(repr=False)
    #: How its settings are addressed: ``MMOLOVE_REFERRAL``, or ``MMOLOVE_REFERRAL['SERVERS'][…]``.
    setting: str = field(repr=False)

    def credentials(self) -> Credentials:
        """Id, secret, endpoint and key id, read afresh (SECRET may be a callable). Raises :class:`ConfigError`."""
        return Credentials(self._server_id(), self._secret(), self.endpoint, self._key_id())

    @property
    def server_id(self) -> str:
        """The configured server id, or ``""``: for showing and for bodies that are completed before they leave."""
        value = self._raw.get("SERVER_ID")
        return value.strip() if isinstance(value, str) else ""

    @property
    def share_url(self) -> str:
        """MMOLove's share URL for this server, or ``""``. Raises :class:`ConfigError` if it is no URL.

        A path on this host is one, too: that is where a sandbox among the portal's own URLs is.
        """
        value = self._raw.get("SHARE_URL") or ""
        local = isinstance(value, str) and value.startswith("/") and not value.startswith("//")
        if value and not local and _split(value) is None:
            raise self._error("SHARE_URL", 'must be a URL such as "https://mmolove.com/r/your-server"')
        return str(value).strip()

    @property
    def configured(self) -> bool:
        """Whether it has an id and a secret, right or wrong; a callable is not asked for one."""
        return bool(self.server_id and self._raw.get("SECRET"))

    @property
    def written_secret(self) -> Secret:
        """The secret that stands in the settings; blank if a callable has it."""
        value = self._raw.get("SECRET")
        return value if isinstance(value, Secret) else Secret("")

    @property
    def usable(self) -> bool:
        """Whether its credentials can be had: without them nothing is delivered to it."""
        try:
            self.credentials()
        except ConfigError:
            return False
        return True

    @property
    def endpoint(self) -> str:
        """Where its events go. Raises :class:`ConfigError`."""
        value = self._raw.get("ENDPOINT") or DEFAULT_ENDPOINT
        parts = _split(value)
        if parts is None:
            raise self._error("ENDPOINT", f'must be a URL such as "{DEFAULT_ENDPOINT}"')
        if parts.scheme == "http" and not django_settings.DEBUG and not self.on_this_machine:
            problem = "must be https outside DEBUG (http is accepted for this machine only)"
            raise self._error("ENDPOINT", problem, InsecureError)
        return str(value).strip()

    @property
    def on_this_machine(self) -> bool:
        """Whether its endpoint is, as a sandbox's is: nobody else hears what is sent there."""
        return on_this_machine(self._raw.get("ENDPOINT"))

    def unknown_keys(self) -> list[str]:
        """What stands there and means nothing, one sentence each."""
        return unknown_keys(self._raw, SERVER_KEYS, self.setting)

    def _server_id(self) -> str:
        if not self.server_id:
            raise self._missing("SERVER_ID", "the server's id")
        return self.server_id

    def _secret(self) -> Secret:
        value = self._raw.get("SECRET")
        if callable(value):
            try:
                value = as_secret(value())
            except Exception as error:  # noqa: BLE001  # without its cause: that one's text may hold the secret
                raise self._error("SECRET", f"is a callable that raised {type(error).__name__}") from None
            if not value:
                raise self._error(
                    "SECRET",
                    "is a callable that returned none. Have it return the referral secret from the MMOLove dashboard, "
                    "as a string",
                    MissingError,
                )
        if not value:
            raise self._missing("SECRET", "the referral secret")
        return as_secret(value)

    def _key_id(self) -> str:
        value = self._raw.get("KEY_ID") or ""
        if not isinstance(value, str) or (value and not KEY_ID.fullmatch(value)):
            raise self._error("KEY_ID", "must be printable ASCII without spaces and commas")
        return value

    def _missing(self, key: str, what: str) -> MissingError:
        # The environment names the default server only.
        otherwise = f", or into the environment variable {ENVIRONMENT[key]}" if self.setting == SETTING else ""
        return MissingError(
            f"{self.setting}[{key!r}] is missing. Put {what} from the MMOLove dashboard there, as a string{otherwise}."
        )

    def _error(self, key: str, what: str, kind: type[ConfigError] = ConfigError) -> ConfigError:
        return kind(f"{self.setting}[{key!r}] {what}.")


def on_this_machine(url: object) -> bool:
    """Whether ``url`` leads to this machine only."""
    parts = _split(url)
    return parts is not None and parts.hostname in LOOPBACK


def _split(url: object) -> SplitResult | None:
    """The parts of an absolute HTTP URL, or ``None`` if it is none."""
    try:
        parts = urlsplit(url.strip()) if isinstance(url, str) else None
    except ValueError:
        return None
    return parts if parts and parts.scheme in ("http", "https") and parts.hostname else None
