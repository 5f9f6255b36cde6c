"""A MMOLove that remembers, children to kill, and the numbers at the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_mmolove_referral.sandbox.server import SandboxServer
from tests.conftest import SECRET, SERVER_ID

from .harness import COUNTED, DEADLINE, LEASE, SWEEP, Nursery, Witness


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
