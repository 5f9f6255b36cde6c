"""Trying a short transaction again after a deadlock, a serialisation error, a lock timeout or a lost connection."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from django.db import InterfaceError, OperationalError, connections

Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])

TRIES = 5


def retrying(work: Callable[[], Result]) -> Result:
    """``work()``, tried up to five times within about two seconds. The last error is raised.

    Inside somebody's transaction there is one try: what failed there is theirs to roll back.
    """
    for attempt in range(1, TRIES):
        try:
            return work()
        except (OperationalError, InterfaceError):
            mine = connections.all(initialized_only=True)
            if any(connection.in_atomic_block for connection in mine):
                raise
            for connection in mine:
                connection.close_if_unusable_or_obsolete()  # a database that was restarted
            time.sleep(random.uniform(0.5, 1) * 0.06 * 2**attempt)  # noqa: S311  # spread, not secrecy
    return work()


def retried(function: Function) -> Function:
    """``function`` in :func:`retrying`: one that may be repeated whole."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return retrying(lambda: function(*args, **kwargs))

    return cast("Function", wrapped)
