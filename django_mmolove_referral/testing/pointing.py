"""A portal's settings, pointed at a MMOLove of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings

from ..conf import SETTING
from ..sandbox import Sandbox
from ..sandbox.server import SandboxServer

LOG_LIMIT = 100_000
"""Requests of one test that are kept: all of them."""


def server_id(alias: str) -> str:
    """The id at this MMOLove of the server that the portal calls ``alias``."""
    return f"test-{alias}"


def sandbox_for(aliases: Iterable[str]) -> Sandbox:
    """A MMOLove that knows these servers, each by an id and a secret of its own."""
    return Sandbox({server_id(alias): _secret(alias) for alias in aliases}, log_limit=LOG_LIMIT)


def pointed_at(server: SandboxServer, aliases: Iterable[str]) -> dict[str, Any]:
    """The portal's setting with its servers at ``server``; what has nothing to do with that stays as it is."""
    raw = dict(getattr(settings, SETTING, None) or {})
    servers = dict(raw.get("SERVERS") or {})
    for alias in aliases:
        place: Callable[..., None] = raw.update
        if alias in servers:
            servers[alias] = dict(servers[alias])
            place = servers[alias].update
        place(
            SERVER_ID=server_id(alias),
            SECRET=_secret(alias),
            ENDPOINT=server.endpoint,
            SHARE_URL=server.share_url(server_id(alias)),
        )
    if servers:
        raw["SERVERS"] = servers
    # Nothing delivers but the test itself, and no proxy of this machine's stands in between.
    return {**raw, "DISPATCH": "manual", "TRUST_ENV": False}


def _secret(alias: str) -> str:
    return f"secret-of-test-{alias}"
