"""The app's own pages among the portal's: there, and fit to be there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from ..conf import ConfigError, Server
from .message import configured_servers, warning


def check_share_links(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W019 and W020. A portal may do without share links: then it has neither the page nor a SHARE_URL."""
    servers = configured_servers()
    without = [server for server in servers if not _share_url(server)]
    if not servers or not getattr(settings, "ROOT_URLCONF", None):
        return []
    if not _mounted("mmolove_referral:join", "code"):
        return [] if without == servers else [no_join_page()]
    return [no_share_url(server) for server in without]


def no_join_page() -> CheckMessage:
    text = _("The portal has no share links, so nobody knows who referred a player.")
    hint = _('Add path("", include("django_mmolove_referral.urls")) to ROOT_URLCONF = \'%s\'.')
    return warning(19, text, hint % settings.ROOT_URLCONF)


def no_share_url(server: Server) -> CheckMessage:
    text = _("Share links lead to the portal's own front page: %s has no SHARE_URL.")
    hint = _("Set %s['SHARE_URL'] to your server's link at MMOLove, e.g. \"https://mmolove.com/r/your-server\".")
    return warning(20, text % server.setting, hint % server.setting)


def check_sandbox(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W024."""
    if settings.DEBUG or not getattr(settings, "ROOT_URLCONF", None) or not _mounted("mmolove_sandbox:log"):
        return []
    text = _("The sandbox is among the portal's pages: everybody can make tokens there, and read what was sent.")
    hint = _("Include django_mmolove_referral.sandbox.urls only if settings.DEBUG, or take it out.")
    return [warning(24, text, hint)]


def _share_url(server: Server) -> str:
    try:
        return server.share_url
    except ConfigError:
        return "wrong"  # which check_settings says


def _mounted(name: str, *args: str) -> bool:
    try:
        reverse(name, args=args)
    except NoReverseMatch:
        return False
    return True
