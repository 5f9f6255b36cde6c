"""What waits for the commit of a test case's transaction, which is rolled back instead."""

from __future__ import annotations

import logging
from typing import Any

from django.db import connections

logger = logging.getLogger("django.test")  # of Django's own captureOnCommitCallbacks


class CommitHooks:
    """The ``on_commit`` functions registered since this object was made, each to be run once.

    Those of transactions that are committed have run already and are none of these.
    """

    def __init__(self) -> None:
        # What was there before may be the test class's own, which every test of it would run again.
        self._before = {connection.alias: len(connection.run_on_commit) for connection in _in_transaction()}

    @property
    def waiting(self) -> bool:
        """Whether there are any."""
        return any(self._next(connection) is not None for connection in _in_transaction())

    def run(self) -> int:
        """Run them, and those that they register, in their order; returns how many. Raises what they do.

        An exception of one registered with ``robust=True`` is logged, as at a commit.
        """
        count = 0
        for connection in _in_transaction():
            while (position := self._next(connection)) is not None:
                hooks = connection.run_on_commit
                points, function, robust = hooks[position]
                # Left in its place: a captureOnCommitCallbacks() around this has counted how many there are.
                hooks[position] = (points, _ran, True)
                count += 1
                try:
                    function()
                except Exception:
                    if not robust:
                        raise
                    logger.exception("The on_commit function %r failed.", function)
        return count

    def _next(self, connection: Any) -> int | None:
        hooks = connection.run_on_commit
        start = self._before.get(connection.alias, 0)
        return next((place for place in range(start, len(hooks)) if hooks[place][1] is not _ran), None)


def _ran() -> None:
    """Stands where a function stood that was run."""


def _in_transaction() -> list[Any]:
    return [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]
