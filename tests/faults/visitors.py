"""Visitors who go on signing up while everything else goes wrong."""

from __future__ import annotations

import threading
import time

from django.contrib.auth import get_user_model
from django.db import DatabaseError, InterfaceError, connections
from django.test import Client

from tests.conftest import SERVER_ID

from .harness import PATIENCE, Witness


class SignUps(threading.Thread):
    """Visitors who sign up and reach the milestone at once, a few for every call of ``more``.

    Where the portal's database is away for a moment, they come again a moment later.
    """

    def __init__(self, witness: Witness) -> None:
        super().__init__(daemon=True)
        self._witness, self._wanted, self._ended = witness, threading.Semaphore(0), False
        self.done = self.came_again = 0
        self.error: BaseException | None = None
        self.start()

    def more(self, number: int) -> None:
        self._wanted.release(number)

    def run(self) -> None:
        try:
            while self._wanted.acquire() and not self._ended:
                self._one(f"visitor{self.done}")
                self.done += 1
        except BaseException as error:  # noqa: BLE001  # raised in the test's own thread
            self.error = error
        finally:
            connections.close_all()

    def _one(self, name: str) -> None:
        visitor, token = Client(), self._witness.mint(SERVER_ID, "alice")
        until = time.monotonic() + PATIENCE
        while not self._comes(visitor, name, token):
            assert time.monotonic() < until, f"{name} did not become a referred account"
            self.came_again += 1
            time.sleep(0.1)

    def _comes(self, visitor: Client, name: str, token: str) -> bool:
        model = get_user_model()
        try:
            visitor.get(f"/register/?mmref={token}")
            if model._default_manager.filter(**{model.USERNAME_FIELD: name}).exists():
                visitor.post("/signin/", {"name": name})
            else:
                visitor.post("/register/", {"name": name, "login": "1"})
            return visitor.post("/milestone/").content in (b"waiting", b"pending", b"accepted")
        except (DatabaseError, InterfaceError):
            connections.close_all()
            return False

    def end(self) -> None:
        """Whoever is there finishes, and nobody comes any more."""
        self._ended = True
        self._wanted.release()
        self.join(PATIENCE)
        if self.error:
            raise self.error
