"""The database's clock: the one clock that all processes share, so that due times and leases mean the same to all."""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now
from django.db.models.sql.compiler import SQLCompiler


class DatabaseNow(Now):
    """``Now()``, in the time zone in which Django keeps its datetimes on MySQL and MariaDB, too.

    There ``CURRENT_TIMESTAMP`` is in the session's time zone, which Django leaves at the server's own.
    """

    def as_mysql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        if connection.timezone_name == "UTC":
            return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)
        return super().as_mysql(compiler, connection, **extra)
