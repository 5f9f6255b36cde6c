"""A sandbox on a real socket, the settings pointed at it, and a drain to run by hand."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django.conf import settings as django_settings
from django.dispatch import Signal

from django_mmolove_referral import capture, record, signals
from django_mmolove_referral.conf import SETTING, conf
from django_mmolove_referral.delivery import dispatch
from django_mmolove_referral.delivery.drain import Drain, Tally
from django_mmolove_referral.models import OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.pytest_plugin import mmolove as mmolove  # a source tree has no entry points
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.server import SandboxServer
from django_mmolove_referral.testing.memory import forget

# What needs services or a browser runs in tox environments of its own, which say so.
APART = ("services", "browser", "faults", "package", "integrations")
collect_ignore = [name for name in APART if name not in os.environ.get("TEST_ALSO", "")]
# Portals of their own, on SQLite: another database changes nothing of them.
if "DATABASE_URL" in os.environ:
    collect_ignore += ["test_example.py", "test_million.py", "docs/test_quickstart.py", "kit/test_projects.py"]

SERVER_ID, SECRET = "srv_test", "test-secret"


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """What a process remembers between events must not pass from test to test."""
    conf.reload()
    yield
    forget()


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """``configure(DEADLINE=1)`` changes single keys of MMOLOVE_REFERRAL."""

    def change(**keys: Any) -> None:
        setattr(settings, SETTING, {**getattr(django_settings, SETTING), **keys})

    return change


@pytest.fixture
def debugging(settings: Any) -> None:
    """A developer's machine, where an endpoint of this machine is nothing to be told about."""
    settings.DEBUG = True


@pytest.fixture
def celery_app(configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """A portal that delivers by Celery: its app, with a broker that nobody asks and a beat that does nothing yet."""
    configure(DISPATCH="celery")
    app = Celery("portal", broker="amqp://guest@127.0.0.1:9//", set_as_current=False)
    app.conf.beat_schedule = {}
    monkeypatch.setattr(dispatch.celery, "app", app)
    yield app
    app.close()


@pytest.fixture
def yourapp(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    """``yourapp("forms", code)``: the module ``yourapp.forms`` of the documentation's portal, with that code."""
    package = ModuleType("yourapp")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "yourapp", package)

    def make(name: str, source: str) -> ModuleType:
        module = ModuleType(f"yourapp.{name}")
        exec(compile(source, f"yourapp/{name}.py", "exec"), vars(module))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return make


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``later(60)``: for visits a minute has passed."""
    passed = [0.0]
    for module in (capture, record):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: time.time() + sum(passed)))
    return passed.append


@pytest.fixture
def sandbox(configure: Callable[..., None]) -> Iterator[Sandbox]:
    """A local MMOLove over a real socket, with the portal's settings pointed at it."""
    core = Sandbox({SERVER_ID: SECRET}, register_url="http://testserver/register/")
    with SandboxServer(core) as server:
        configure(ENDPOINT=server.endpoint, SHARE_URL=server.share_url(SERVER_ID))
        yield core


@pytest.fixture
def mint(sandbox: Sandbox) -> Callable[..., str]:
    """``mint()`` is a fresh token of the sandbox's."""
    return lambda code="alice": sandbox.mint(SERVER_ID, code)


@pytest.fixture
def drain() -> Callable[..., Tally]:
    """Deliver all that is due, in this thread."""
    return lambda **options: Drain(**options).run()


class Granted(list[Referral]):
    """The rewards that a receiver of ``referral_qualified`` was told of."""

    fail: Exception | None = None

    def receive(self, referral: Referral, **kwargs: Any) -> None:
        if self.fail:
            raise self.fail
        self.append(referral)


@pytest.fixture
def granted() -> Iterator[Granted]:
    receiver = Granted()
    signals.referral_qualified.connect(receiver.receive)
    yield receiver
    signals.referral_qualified.disconnect(receiver.receive)


Hear = Callable[[Signal], list[dict[str, Any]]]


@pytest.fixture
def hear() -> Iterator[Hear]:
    """``hear(signal)`` is the list of what receivers of ``signal`` have been told since."""
    connected: list[tuple[Signal, Any]] = []

    def listen(signal: Signal) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []

        def receiver(signal: Signal, sender: type[Any], **news: Any) -> None:
            told.append(news)

        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))
        return told

    yield listen
    for signal, receiver in connected:
        signal.disconnect(receiver)


class Table:
    """Shorthand for looking at what is stored."""

    @property
    def referral(self) -> Referral:
        return Referral.objects.get()

    @property
    def reward(self) -> Reward:
        return Reward.objects.get()

    @property
    def health(self) -> ServerHealth:
        return ServerHealth.objects.get()

    def event(self, kind: str) -> OutboundEvent:
        return OutboundEvent.objects.get(kind=kind)

    def states(self) -> dict[str, str]:
        return dict(OutboundEvent.objects.order_by("pk").values_list("kind", "state"))


@pytest.fixture
def table(db: None) -> Table:
    return Table()
