"""A MMOLove of the test's own on a real socket, the portal's settings pointed at it, and delivery by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import astuple
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.conf import settings
from django.db import router, transaction
from django.test import override_settings

from ..conf import DEFAULT_SERVER, SETTING, conf
from ..delivery.drain import Drain, Tally
from ..lifecycle import share_link
from ..models import OutboundEvent
from ..sandbox.server import SandboxServer
from .assertions import Assertions
from .clock import let_pass
from .commit import CommitHooks
from .faults import Faults
from .memory import forget
from .pointing import pointed_at, sandbox_for, server_id
from .trouble import Overheard

if TYPE_CHECKING:
    from types import TracebackType

    from django.test import Client


class MMOLove(Faults, Assertions):
    """One test's MMOLove: use it as a context manager, or call :meth:`start` and :meth:`stop`.

    While it runs, ``MMOLOVE_REFERRAL`` names this MMOLove in place of each server's own, nothing is delivered but by
    :meth:`deliver`, and what the process remembered of earlier tests is forgotten. The portal's other keys hold.
    ``override`` is called with each new value of the setting, and whoever gives it takes the value back after
    :meth:`stop`; without it that is done here.
    """

    def __init__(self, *, override: Callable[[dict[str, Any]], None] | None = None) -> None:
        super().__init__()
        self._override = override or self._override_here
        self._stack = ExitStack()

    def start(self) -> None:
        """Listen on a free port of this machine and point the settings there.

        Raises :class:`~django_mmolove_referral.conf.ConfigError` if the setting's own ``SERVERS`` cannot be read.
        """
        forget()
        self._stack.callback(forget)
        aliases = list(conf.servers)
        self.sandbox = sandbox_for(aliases)
        server = self._stack.enter_context(SandboxServer(self.sandbox))
        #: Its address, without a slash at the end.
        self.url = server.url
        self._endpoint = server.endpoint
        self._override(pointed_at(server, aliases))
        self.overheard = self._stack.enter_context(Overheard())
        self.hooks = CommitHooks()

    def stop(self) -> None:
        """Close the port, put the settings back and forget what the process remembers of this test."""
        self._stack.close()

    def __enter__(self) -> MMOLove:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # Visits

    def mint(self, code: str = "alice", *, server: str = DEFAULT_SERVER) -> str:
        """The ``mmref`` token of a click on the share link of whom MMOLove knows as ``code``."""
        alias = conf.server(server).alias
        self._refuse_another_mmolove()
        return self.sandbox.mint(server_id(alias), code)

    def visit(
        self, client: Client, path: str = "/", *, referrer: Any = None, server: str = DEFAULT_SERVER, **options: Any
    ) -> Any:
        """Let ``client`` come from MMOLove to the portal's ``path``, with a fresh token; returns the response.

        With an account as ``referrer`` the visit begins at that player's share link on the portal, so that the
        referral will name the referrer. ``options`` go to ``client.get()``: ``secure=True``, ``follow=True``.
        """
        token = self.mint(server=server) if referrer is None else self._follow(client, referrer, server, options)
        return client.get(f"{path}{'&' if '?' in path else '?'}{urlencode({conf.query_param: token})}", **options)

    def _follow(self, client: Client, referrer: Any, server: str, options: dict[str, Any]) -> str:
        link = share_link(referrer, server=server)
        response = client.get(link, **{**options, "follow": False})
        place = response.headers.get("Location", "")
        codes = parse_qs(urlsplit(place).query).get("ref")
        if not codes or not place.startswith(conf.server(server).share_url):
            raise RuntimeError(
                f"The share link {link} did not lead to MMOLove: HTTP {response.status_code}"
                f"{f' to {place}' if place else ''}. (A portal that redirects to https wants secure=True.)"
            )
        return self.mint(codes[-1], server=server)

    def lead_to(self, url: str, *, server: str = DEFAULT_SERVER) -> None:
        """Let MMOLove's share link lead to ``url``, for browsers that follow it over the socket (a live server)."""
        self.sandbox.lead_to(server_id(conf.server(server).alias), url)

    # Settings, time, delivery

    def configure(self, **keys: Any) -> None:
        """Change single keys of ``MMOLOVE_REFERRAL`` until the test ends."""
        self._override({**getattr(settings, SETTING), **keys})

    def later(self, passed: float | timedelta) -> None:
        """Let time pass for what is stored, in seconds or as a ``timedelta``: retries, dry runs, rewards come due."""
        let_pass(passed.total_seconds() if isinstance(passed, timedelta) else passed)

    def deliver(self) -> Tally:
        """Do what a worker does, until nothing is due; returns what came of it, in events and rewards.

        Runs what waits for a commit that a ``TestCase`` never makes, sends what is due over the socket, settles the
        answers, grants the rewards. Raises ``RuntimeError`` inside a transaction of the test's own and if the settings
        were pointed elsewhere since the start, and whatever ``on_commit`` functions of the portal's raise.
        """
        self._refuse_another_mmolove()
        self._refuse_a_transaction()
        total = Tally()
        while True:
            ran, tally = self.hooks.run(), Drain().run()
            total = Tally(*map(sum, zip(astuple(total), astuple(tally), strict=True)))
            if not ran and tally == Tally():
                return total

    def _refuse_a_transaction(self) -> None:
        try:
            with transaction.atomic(using=router.db_for_write(OutboundEvent), durable=True):
                pass
        except RuntimeError:
            text = "deliver() was called inside transaction.atomic(); call it after that block, as delivery comes after"
            raise RuntimeError(f"{text} the commit.") from None

    def _refuse_another_mmolove(self) -> None:
        """A test that put its own servers into the settings would send them its events."""
        for server in conf.servers.values():
            if server.credentials().endpoint != self._endpoint:
                raise RuntimeError(
                    f"{server.setting} does not lead to this test's MMOLove any more. Change single keys with "
                    "mmolove.configure(…); set servers before the kit starts, in a fixture named before mmolove."
                )

    def _override_here(self, value: dict[str, Any]) -> None:
        self._stack.enter_context(override_settings(**{SETTING: value}))
