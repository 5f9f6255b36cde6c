"""``MMOLOVE_REFERRAL``: values that cannot be, and MMOLove servers that are not what they look like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage
from django.utils.translation import gettext as _

from ..conf import SETTING, ConfigError, Server, conf
from ..options import InsecureError
from ..servers import on_this_machine
from .message import configured_servers, warning

SHORTEST = 8
"""Characters. How long MMOLove's secrets are is not published; shorter ones are nobody's."""

_UNFILLED = r"<.*>|\[.*\]|\{.*\}|\$\{.*\}|\$[A-Z_]+|%\(.*\).|[x*._-]+|change[\W_]?me.*"
"""What a template looks like that nobody filled in."""
_ID = re.compile(rf"{_UNFILLED}|your[\W_]?(server|id).*|server[\W_]?id", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    rf"{_UNFILLED}|.{{1,{SHORTEST - 1}}}|(your|insert|enter|paste|replace)[-_\s].*"
    r"|.*(secret|password|placeholder)[\W_]*((key|here)[\W_]*)*",
    re.IGNORECASE | re.DOTALL,
)

_QUICKSTART = re.compile(r"my-server|for-the-sandbox-only")
"""The values of the quickstart, which are good for the sandbox and for nothing that players meet."""


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W001, and W008 for what could be overheard."""
    found = []
    for error in conf.errors():
        if isinstance(error, InsecureError):
            hint = _("Use https. Plain http is for a sandbox on this machine (http://127.0.0.1:…), or for DEBUG.")
            found.append(warning(8, str(error), hint))
        else:
            hint = _("“Settings” in the documentation lists every key and what it may be.")
            found.append(warning(1, str(error), hint))
    return found


def check_placeholders(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W009. The sandbox takes any; but outside DEBUG the quickstart's are out of place even there."""
    found = []
    always = () if settings.DEBUG else (_QUICKSTART,)
    for server in configured_servers():
        ids, secrets = (always, always) if server.on_this_machine else ((*always, _ID), (*always, _SECRET))
        if any(pattern.fullmatch(server.server_id) for pattern in ids):
            text = _("%(setting)s['SERVER_ID'] = '%(id)s' is a placeholder: MMOLove knows no such server.")
            hint = _("Put the server's id there, from the MMOLove dashboard.")
            found.append(warning(9, text % {"setting": server.setting, "id": server.server_id}, hint))
        if any(map(server.written_secret.matches, secrets)):
            text = _("%s['SECRET'] looks like a placeholder: MMOLove will refuse every event that it signs.")
            hint = _("Generate the referral secret in the MMOLove dashboard (it is shown once) and put it there.")
            found.append(warning(9, text % server.setting, hint))
    return found


def check_same_servers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W010."""
    found: list[CheckMessage] = []
    seen: dict[tuple[str, str], Server] = {}
    for server in configured_servers():
        try:
            key = server.server_id, server.endpoint
        except ConfigError:
            continue  # check_settings says why
        first = seen.setdefault(key, server)
        if first is not server:
            text = _(
                "The servers '%(first)s' and '%(second)s' are one to MMOLove, as both have SERVER_ID = '%(id)s': an "
                "account can be referred at each, and its referrer rewarded twice."
            )
            values = {"first": first.alias, "second": server.alias, "id": server.server_id}
            hint = _("Remove %s, or give it the SERVER_ID of its own from the MMOLove dashboard.") % server.setting
            found.append(warning(10, text % values, hint))
    return found


def check_verify(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W022."""
    try:
        if conf.verify is not False:
            return []
    except ConfigError:
        return []  # check_settings names the key
    text = _("%s['VERIFY'] is False: anybody between here and MMOLove can answer in its place.") % SETTING
    hint = _("Remove %s['VERIFY'], or set it to the path of your own CA's certificates.") % SETTING
    return [warning(22, text, hint)]


def check_this_machine(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W025. A path as SHARE_URL leads to a sandbox among the portal's own pages, of which ``check_sandbox`` tells."""
    if settings.DEBUG:
        return []
    found = []
    for server in configured_servers():
        try:
            endpoint, share_url = server.endpoint, server.share_url
        except ConfigError:
            continue  # check_settings names the key
        if on_this_machine(endpoint):
            text = _("%(setting)s['ENDPOINT'] = '%(url)s' is on this machine: no event reaches MMOLove.")
            hint = _("Remove %s['ENDPOINT'], which was for the sandbox: MMOLove's own is used then.")
            found.append(_here(server, text, endpoint, hint))
        if on_this_machine(share_url):
            text = _(
                "%(setting)s['SHARE_URL'] = '%(url)s' is on this machine: whoever follows a share link gets nowhere."
            )
            hint = _(
                "Set %s['SHARE_URL'] to your server's link at MMOLove, e.g. \"https://mmolove.com/r/your-server\"."
            )
            found.append(_here(server, text, share_url, hint))
    return found


def _here(server: Server, text: str, url: str, hint: str) -> CheckMessage:
    return warning(25, text % {"setting": server.setting, "url": url}, hint % server.setting)
