"""A visitor does not wait for a lock that somebody holds on our tables, or on an account that our rows point at.

A backup, an ``ALTER TABLE`` or a long transaction of the portal's holds one for minutes. Who calls a verb waits as
the portal's own settings say; what happens behind a visitor's back waits for :data:`WAIT`, then raises
``OperationalError``. SQLite has one lock for all writing, which the portal's own statements wait for just as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connections, transaction

WAIT = 0.5
"""Seconds that a statement waits for a lock; MariaDB and MySQL count in whole ones, so there it is one second."""

Accounts = set[Any]
_LIMIT_MS = f"{WAIT * 1000:.0f}ms"
_MYSQL_VARIABLES = ("lock_wait_timeout", "innodb_lock_wait_timeout")  # of a table, and of a row
_MYSQL_LIMIT = ", ".join(f"{name} = {math.ceil(WAIT)}" for name in _MYSQL_VARIABLES)


def promptly(using: str) -> AbstractContextManager[Accounts]:
    """``transaction.atomic`` in which no statement waits long for a lock.

    The portal's transaction goes on afterwards, with the limits that it had before. Add to the set that this gives
    the keys of all accounts that new rows point at: PostgreSQL would only check at the portal's commit that
    they are there, and wait for them as long as the portal's limit says.
    """
    connection: Any = connections[using]
    if connection.vendor == "postgresql":
        return _postgresql(connection)
    if connection.vendor == "mysql":
        return _mariadb(connection) if connection.mysql_is_mariadb else _mysql(connection)
    return _unlimited(connection)


@contextmanager
def _unlimited(connection: Any) -> Iterator[Accounts]:
    with transaction.atomic(using=connection.alias):
        yield set()


@contextmanager
def _postgresql(connection: Any) -> Iterator[Accounts]:
    """Local to the transaction, and rolled back with the savepoint; what is released has to be restored."""
    portals = not connection.get_autocommit()
    accounts: Accounts = set()
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(
            "SELECT was, set_config('lock_timeout', %s, true)"
            " FROM (SELECT current_setting('lock_timeout') AS was OFFSET 0) AS before",
            [_LIMIT_MS],
        )
        (was, _) = cursor.fetchone()
        yield accounts
        if portals:
            sql, params = _key_share(accounts, connection.alias) if accounts else ("SELECT 1", ())
            cursor.execute(
                f"WITH held AS MATERIALIZED ({sql})"  # noqa: S608  # Django's own SQL
                " SELECT set_config('lock_timeout', %s, true) FROM (SELECT count(*) FROM held) AS first",
                [*params, was],
            )


def _key_share(accounts: Accounts, using: str) -> tuple[str, tuple[Any, ...]]:
    """The lock that the check of the foreign keys takes: it is ours already when that comes."""
    rows = get_user_model()._base_manager.using(using).filter(pk__in=accounts).order_by().values("pk")
    sql, params = rows.query.get_compiler(using).as_sql()
    return f"{sql} FOR KEY SHARE", params


@contextmanager
def _mariadb(connection: Any) -> Iterator[Accounts]:
    """Each statement brings its limit along, and takes it away again."""

    def limited(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith(("SELECT", "INSERT", "UPDATE")):
            sql = f"SET STATEMENT {_MYSQL_LIMIT} FOR {sql}"
        return execute(sql, *rest)

    with connection.execute_wrapper(limited), transaction.atomic(using=connection.alias):
        yield set()


@contextmanager
def _mysql(connection: Any) -> Iterator[Accounts]:
    """The session's limits know nothing of transactions."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'@@SESSION.{name}' for name in _MYSQL_VARIABLES)}")
        before = cursor.fetchone()
        cursor.execute(f"SET SESSION {_MYSQL_LIMIT.replace(', ', ', SESSION ')}")
    try:
        with transaction.atomic(using=connection.alias):
            yield set()
    finally:
        names = ", ".join(f"SESSION {name} = {value}" for name, value in zip(_MYSQL_VARIABLES, before, strict=True))
        # Without Django's check, which refuses every statement in a transaction that is to be rolled back.
        with connection.wrap_database_errors:
            connection.create_cursor().execute(f"SET {names}")
