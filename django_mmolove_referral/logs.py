"""Saying once what is wrong: when trouble begins and when it is over, not each time it is met.

All loggers are below ``mmolove_referral``. Everything beyond the first report of a trouble is DEBUG, so that an outage
with a thousand sign-ups is one line for whoever is woken by it.
"""

from __future__ import annotations

import logging
from typing import Any

#: Causes that have been said, by topic. Of this process.
_said: dict[str, set[str]] = {}


def trouble(
    logger: logging.Logger,
    topic: str,
    cause: BaseException | str,
    message: str,
    *args: object,
    level: int = logging.ERROR,
    trace: bool = True,
    **extra: Any,
) -> None:
    """Log ``message`` at ``level`` if ``topic`` has not failed for this ``cause`` since it last worked, else at DEBUG.

    An exception as cause is told by its type, as its text may differ each time; with ``trace`` its traceback follows.
    """
    key = cause if isinstance(cause, str) else type(cause).__name__
    known = _said.setdefault(topic, set())
    news = key not in known
    known.add(key)
    error = cause if trace and isinstance(cause, BaseException) else None
    logger.log(level if news else logging.DEBUG, message, *args, exc_info=error, extra=extra)


def over(logger: logging.Logger, topic: str, message: str, *args: object, **extra: Any) -> None:
    """``topic`` works. Logs ``message`` if it did not; costs nothing if it did."""
    if _said and _said.pop(topic, None) is not None:
        logger.info(message, *args, extra=extra)


def forget() -> None:
    """Forget what was said (for tests)."""
    _said.clear()
