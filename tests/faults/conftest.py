"""A MMOLove that remembers, children to kill, and the numbers at the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from django_mmolove_referral.sandbox.server import SandboxServer
from tests.conftest import SECRET, SERVER_ID
from tests.services.app import make

from . import servers
from .harness import COUNTED, DEADLINE, FULL, LEASE, QUEUE, SWEEP, Child, Nursery, Witness


@pytest.fixture
def witness(request: pytest.FixtureRequest) -> Witness:
    options = getattr(request, "param", {})
    return Witness({SERVER_ID: SECRET}, register_url="http://testserver/register/", **options)


@pytest.fixture
def mmolove(witness: Witness, configure: Callable[..., None]) -> Iterator[SandboxServer]:
    """It listens, and this process's settings are the children's."""
    with SandboxServer(witness) as server:
        configure(ENDPOINT=server.endpoint, DEADLINE=DEADLINE, LEASE=LEASE, SWEEP_INTERVAL=SWEEP)
        yield server


@pytest.fixture
def nursery(transactional_db: None, mmolove: SandboxServer, tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(mmolove.endpoint, tmp_path / "children.log")
    yield nursery
    nursery.close()


@pytest.fixture(params=[servers.Redis, *([servers.RabbitMQ] if FULL else [])])
def broker(request: pytest.FixtureRequest) -> Iterator[servers.Broker]:
    broker = request.param()
    broker.start()
    yield broker
    broker.drop()


@pytest.fixture
def app(broker: servers.Broker) -> Iterator[Celery]:
    app = make(broker.url, QUEUE)
    yield app
    app.close()


@pytest.fixture
def start_celery(broker: servers.Broker, nursery: Nursery, tmp_path: Path) -> Callable[..., Child]:
    """``start_celery()`` is a worker, ``start_celery("beat")`` sweeps every second."""

    def start(job: str = "celery", **order: Any) -> Child:
        schedule = str(tmp_path / "beat")
        return nursery.start(job, broker=broker.url, queue=QUEUE, schedule=schedule, **order)

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failed test shows what its children said."""
    report = yield
    nursery = getattr(item, "funcargs", {}).get("nursery")
    if nursery is not None and report.failed:
        report.sections.append(("children", "\n".join(nursery.said()[-60:])))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTED:
        terminalreporter.section("counted")
        for line in COUNTED:
            terminalreporter.line(line)
