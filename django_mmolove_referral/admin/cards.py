"""A card for each configured MMOLove server, as several pages show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.utils.translation import gettext as _

from .. import advice
from ..conf import ConfigError, Server, conf
from ..delivery.failing import failing
from ..models import ServerHealth
from .base import TONES


@dataclass(frozen=True)
class Card:
    """How delivery to one server stands, in words."""

    alias: str
    server_id: str
    endpoint: str
    health: ServerHealth
    last_success: str
    next_probe: str
    state: str
    tone: str
    advice: advice.Advice


def cards(rows: Mapping[str, ServerHealth]) -> list[Card]:
    """One for each configured server, whether or not there is a row about it.

    Raises :class:`~django_mmolove_referral.conf.ConfigError` if the settings do not say which servers there are.
    """
    return [_card(server, rows.get(alias)) for alias, server in conf.servers.items()]


def _card(server: Server, health: ServerHealth | None) -> Card:
    health = health or ServerHealth(server=server.alias)
    try:
        endpoint, usable = server.credentials().endpoint, True
    except ConfigError:
        endpoint, usable = "", False
    failed = failing(server.alias, health)
    return Card(
        alias=server.alias,
        server_id=server.server_id,
        endpoint=endpoint,
        health=health,
        last_success=advice.exactly(health.last_success_at),
        next_probe=advice.exactly(health.probe_at),
        state=str(health.get_state_display()) if usable else _("not configured"),
        tone="bad" if not usable else "busy" if failed else TONES[health.state],
        advice=advice.of_server(server, health, failed),
    )
