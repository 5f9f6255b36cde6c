"""``python -m tests.faults.run [pytest's arguments]``: the fault tests, once on each database.

``FAULTS`` is ``short`` (the default) or ``full``; ``FAULTS_ON`` names the databases, by a comma between. PostgreSQL
and MariaDB are started for the run, on ports of their own, and removed afterwards, even if the run is killed.
"""

from __future__ import annotations

import os
import sys

import pytest

from . import servers


class Here:
    """The database server that this process may restart; ``None`` on SQLite and where somebody else runs it."""

    database: servers.Postgres | servers.MariaDB | None = None


def main(arguments: list[str]) -> int:
    names = os.environ.get("FAULTS_ON") or ",".join(servers.DATABASES)
    worst = 0
    for name in names.split(","):
        sys.stdout.write(f"\n=== {name}\n")
        sys.stdout.flush()
        # In a fork, as Django's settings are read once a process.
        pid = os.fork()
        if pid == 0:
            _run(name, arguments)
        worst = max(worst, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return worst


def _run(name: str, arguments: list[str]) -> None:
    """Never returns."""
    servers.die_with_parent()
    status = 1
    try:
        kind = servers.DATABASES[name]
        if kind:
            Here.database = kind()
            Here.database.start()
        os.environ["TEST_ALSO"] = "faults"
        os.environ["DATABASE_URL"] = Here.database.url if Here.database else ""
        named = any(argument.startswith("tests") for argument in arguments)
        status = int(pytest.main([*arguments, *([] if named else ["tests/faults"])]))
    finally:
        if Here.database:
            Here.database.drop()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    from tests.faults.run import main as start  # under the name by which the tests import this module

    sys.exit(start(sys.argv[1:]))
