"""What a process remembers between events must not pass from test to test."""

from __future__ import annotations

from .. import logs
from ..conf import conf
from ..delivery import lane, life, retention


def forget() -> None:
    """As if this process had just started: connections, clocks and health seen, what was logged, settings read."""
    lane.forget()
    life.forget()
    retention.forget()
    logs.forget()
    conf.reload()
