"""``DATABASE_URL`` for the tests: ``postgres://…``, ``mysql://…``, or nothing for SQLite in a file."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from django.db import connection


def from_url(url: str) -> dict[str, Any]:
    if not url or url.startswith("sqlite:///"):
        # A file, as threads of their own are part of what is tested; one for each test process.
        name = url.removeprefix("sqlite:///") or str(Path(gettempdir()) / f"mmolove-referral-{os.getpid()}.sqlite3")
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": name,
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
            },
            "TEST": {"NAME": name},
        }
    parts = urlsplit(url)
    engine = {"postgres": "postgresql", "postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}[parts.scheme]
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": dict(parse_qsl(parts.query)),
        "TEST": {"CHARSET": "utf8mb4"} if engine == "mysql" else {},
    }


def running_url() -> str:
    """The URL of the database that the running tests use, for processes of their own."""
    options = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{options['NAME']}"
    login = f"{quote(options['USER'])}:{quote(options['PASSWORD'])}"
    return f"{connection.vendor}://{login}@{options['HOST']}:{options['PORT']}/{options['NAME']}"
