"""The example portal as its owner runs it: a process of its own, with a database of its own."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "ninety-nine-fires"
PATIENCE = 60.0
"""Seconds to wait for what takes one or two, and on a busy machine many."""
_OURS = ("DJANGO_", "DATABASE_", "CELERY_", "MMOLOVE_", "PORTAL_", "TEST_")

OWNER = f"""
from django.contrib.auth.models import Permission, User
User.objects.create_superuser("owner", password="{PASSWORD}")
viewer = User.objects.create_user("viewer", password="{PASSWORD}", is_staff=True)
viewer.user_permissions.set(
    Permission.objects.filter(content_type__app_label="mmolove_referral", codename__startswith="view_")
    .exclude(codename="view_token")
)
"""


class Portal:
    """``manage.py runserver`` with the block; ``environment`` is what its owner sets."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.environment = environment
        self.said: list[str] = []

    def prepare(self) -> None:
        """The tables, the owner, and a member of staff who may look and nothing more."""
        self.manage("migrate", "--verbosity", "0")
        self.manage("shell", "--verbosity", "0", "--command", OWNER)

    def manage(self, *command: str) -> str:
        done = subprocess.run(self._line(*command), env=self._env(), capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def __enter__(self) -> Portal:
        self._process = subprocess.Popen(
            # --insecure: with DEBUG off, and its pictures and styles from here all the same
            self._line("runserver", "--noreload", "--insecure", f"127.0.0.1:{self.port}"),
            env=self._env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        listening = Event()
        self._reader = Thread(target=self._read, args=(listening,))
        self._reader.start()
        if not listening.wait(PATIENCE) or self._process.poll() is not None:
            self._end()
            raise AssertionError(f"The portal did not start ({self._process.returncode}):\n" + "\n".join(self.said))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()
        if error is None:
            assert "Internal Server Error" not in "\n".join(self.said), "\n".join(self.said)

    @contextmanager
    def closed_bank(self) -> Iterator[None]:
        """The portal cannot write down any gold."""
        with closing(sqlite3.connect(self.directory / "portal.sqlite3", timeout=20)) as database:
            database.execute(
                "CREATE TRIGGER bank BEFORE INSERT ON game_goldentry "
                "BEGIN SELECT RAISE(ABORT, 'the bank is closed'); END"
            )
            yield
            database.execute("DROP TRIGGER bank")

    def _read(self, listening: Event) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line.rstrip())
            if "development server at http" in line:
                listening.set()
        listening.set()  # it has ended

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _line(self, *command: str) -> list[str]:
        return [sys.executable, str(ROOT / "example_project" / "manage.py"), *command]

    def _env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        ours = {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PORTAL_VAR": str(self.directory),
            "PORTAL_DEBUG": "0",
            "MMOLOVE_ENDPOINT": f"{self.url}sandbox/api/referral/events",
        }
        return {**kept, **ours, **self.environment}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
