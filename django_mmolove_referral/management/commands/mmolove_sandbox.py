"""``manage.py mmolove_sandbox``: a local MMOLove in a process of its own."""

from __future__ import annotations

import json
import secrets
import signal
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...sandbox.core import Sandbox
from ...sandbox.server import SandboxServer
from ..base import ReferralCommand

GENERATED_ID = "sandbox"


class Command(ReferralCommand):
    help = "Runs a local MMOLove: share links, the referral endpoint and a page with its log. Needs no database."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument(
            "--port",
            type=int,
            default=8780,
            help="port to listen on, 0 for any free one (default: %(default)s)",
        )
        parser.add_argument(
            "--server",
            action="append",
            default=[],
            metavar="ID=SECRET",
            help="a server id and its secret, may be repeated (default: one with a new secret)",
        )
        parser.add_argument(
            "--register-url",
            default="http://127.0.0.1:8000/",
            help="where share links lead: your sign-up page (default: %(default)s)",
        )
        parser.add_argument("--state", help="file that survives a restart (default: all is forgotten)")

    def handle(
        self, *, host: str, port: int, server: list[str], register_url: str, state: str | None, **options: Any
    ) -> None:
        if not register_url.startswith(("http://", "https://")):
            raise CommandError("--register-url must be a full URL, e.g. http://127.0.0.1:8000/accounts/signup/")
        if not 0 <= port <= 65535:
            raise CommandError("--port must be between 0 and 65535; 0 takes any free one.")
        servers = _parse_servers(server)
        generated = None if servers else secrets.token_hex(16)
        try:
            sandbox = Sandbox(servers or {GENERATED_ID: generated or ""}, register_url=register_url, state=state)
        except OSError as error:
            raise CommandError(f"The file given with --state cannot be used: {error}") from error
        listener = SandboxServer(sandbox, host, port)
        # Both, as a shell has its background jobs ignore Ctrl-C.
        stops = (signal.SIGTERM, signal.SIGINT)
        previous = [signal.signal(stop, signal.default_int_handler) for stop in stops]
        try:
            self._run(listener, generated)
        except KeyboardInterrupt:
            self.stdout.write("Stopped.")
        finally:
            for stop, handler in zip(stops, previous, strict=True):
                signal.signal(stop, handler)

    def _run(self, listener: SandboxServer, generated: str | None) -> None:
        try:
            listener.start()
        except OSError as error:
            raise CommandError(
                f"Cannot listen on {listener.host}:{listener.port} ({error}). Choose another --port, or 0."
            ) from error
        try:
            self._introduce(listener, generated)
            while True:
                time.sleep(3600)  # Ctrl-C interrupts it on every platform
        finally:
            listener.stop()

    def _introduce(self, listener: SandboxServer, generated: str | None) -> None:
        self.stdout.write(f"MMOLove sandbox at {listener.url}/ (Ctrl-C stops it). For the portal's settings:\n\n")
        first, *others = listener.sandbox.server_ids
        self.stdout.write("MMOLOVE_REFERRAL = {")
        self._tell(listener, first, generated, "    ")
        if others:
            self.stdout.write('    "SERVERS": {')
            for number, server_id in enumerate(others, 2):
                self.stdout.write(f'        "server-{number}": {{')
                self._tell(listener, server_id, generated, "            ")
                self.stdout.write("        },")
            self.stdout.write("    },")
        self.stdout.write("}")
        self.stdout.flush()  # whoever starts it through a pipe waits for these lines

    def _tell(self, listener: SandboxServer, server_id: str, generated: str | None, indent: str) -> None:
        remark = "" if generated else "  # the one given with --server"
        self.stdout.write(f'{indent}"SERVER_ID": {_literal(server_id)},')
        self.stdout.write(f'{indent}"SECRET": {_literal(generated or "")},{remark}')
        self.stdout.write(f'{indent}"ENDPOINT": {_literal(listener.endpoint)},')
        self.stdout.write(f'{indent}"SHARE_URL": {_literal(listener.share_url(server_id))},')


def _literal(text: str) -> str:
    """As Python reads it, in the quotes of the documentation."""
    return json.dumps(text, ensure_ascii=False)


def _parse_servers(given: list[str]) -> dict[str, str]:
    servers: dict[str, str] = {}
    for pair in given:
        server_id, separator, secret = pair.partition("=")
        if not (server_id and separator and secret):
            # Not quoted: it may hold a secret.
            raise CommandError("--server takes ID=SECRET, e.g. --server my-server=my-secret")
        if server_id in servers:
            raise CommandError(f"--server {server_id} is given twice: one server has one secret.")
        servers[server_id] = secret
    return servers
