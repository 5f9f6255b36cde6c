"""The whole journey on one machine: two players, a real server, real HTTP, and MMOLove played by the sandbox.

``python example_project/demo.py`` plays it, tells what went over the wire, and leaves the portal running for you to
look at. ``--once`` ends instead: 0 if every step worked out, 1 if one did not. Each run has a database of its own.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import django
from django.core.management import call_command
from django.db import connections
from journey import PASSWORD, Journey, StepFailed, expect, say, styled, wait_for

HERE = Path(__file__).resolve().parent


def prepare(directory: str, port: int) -> None:
    """An environment that leads nowhere else, a fresh database in ``directory``, and an admin."""
    for name in list(os.environ):
        if name.startswith(("MMOLOVE_", "PORTAL_", "CELERY_")) or name in ("DATABASE_URL", "SECRET_KEY"):
            del os.environ[name]
    os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"
    os.environ["PORTAL_VAR"] = directory
    os.environ["PORTAL_DEBUG"] = "0"  # its own error pages, not Django's
    os.environ["MMOLOVE_ENDPOINT"] = f"http://127.0.0.1:{port}/sandbox/api/referral/events"
    django.setup()
    call_command("migrate", verbosity=0)

    from django.contrib.auth.models import User

    User.objects.create_superuser("admin", password=PASSWORD)


def free_port(wanted: int) -> int:
    """``wanted`` (0: any), or an error if somebody else is listening there: we would talk to them."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", wanted))
        return int(probe.getsockname()[1])


class Portal:
    """``manage.py runserver`` as a process of its own, ended with the block."""

    def __init__(self, directory: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self._port = port
        self._log = Path(directory) / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own server
                [sys.executable, HERE / "manage.py", "runserver", "--noreload", "--insecure", f"127.0.0.1:{port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Portal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()

    def answers(self) -> bool:
        self.expect_alive()
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def expect_alive(self) -> None:
        expect(self._process.poll() is None, "the portal's server has ended")

    def last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])


INVITATION = """
{heading}

   {url}                    log in as alice, bob or admin; the password is {password}
   {url}rewards/            the gold, and who earned it
   {url}behind-the-scenes/  the portal's log beside MMOLove's
   {url}admin/              the same for the portal's owner (as admin)

Ctrl-C ends it and removes the database."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Play a referral from the invite link to the reward.")
    parser.add_argument("--once", action="store_true", help="exit after the journey instead of serving the portal")
    parser.add_argument("--port", type=int, default=0, help="the portal's port (default: any free one)")
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="replace")  # readable while it goes on, in a pipe too
    # Whatever ends this program must end the server, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        port = free_port(arguments.port)
    except (OSError, OverflowError) as error:
        parser.error(f"port {arguments.port} cannot be had: {error}")
    try:
        with TemporaryDirectory(prefix="emberfall-", ignore_cleanup_errors=True) as directory:
            prepare(directory, port)
            with Portal(directory, port) as portal:
                return run(portal, directory, once=arguments.once)
    except KeyboardInterrupt:
        return 130


def run(portal: Portal, directory: str, *, once: bool) -> int:
    try:
        wait_for("the portal answers", portal.answers)
        print(styled("1", "Emberfall, a game portal with django-mmolove-referral"))
        say(f"{portal.url}, with a fresh database in {directory}")
        Journey(portal.url).play()
        print("\n" + styled("1;32", "Every step worked out."))
        if not once:
            serve(portal)
    except StepFailed as failure:
        print(f"\nFAILED: {failure}\n\nThe server's last words:\n{portal.last_words()}", file=sys.stderr)
        return 1
    finally:
        connections.close_all()
    return 0


def serve(portal: Portal) -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    heading = styled("1", "The portal goes on running:")
    print(INVITATION.format(heading=heading, url=portal.url, password=PASSWORD))
    while not stop.wait(0.5):
        portal.expect_alive()
    print("\nBye.")


if __name__ == "__main__":
    sys.exit(main())
