"""What the checks share: their kind of message, and the servers that it is worth saying something about."""

from __future__ import annotations

from django.core.checks import CheckMessage, Warning  # noqa: A004

from ..conf import ConfigError, Server, conf


def warning(number: int, text: str, hint: str) -> CheckMessage:
    return Warning(text, hint=hint, id=f"mmolove_referral.W{number:03}")


def configured_servers() -> list[Server]:
    """The servers with credentials; none where the settings cannot be read, which ``check_settings`` says."""
    try:
        return [server for server in conf.servers.values() if server.configured]
    except ConfigError:
        return []
