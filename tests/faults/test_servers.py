"""The run's own servers and processes do not outlive it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import servers
from .harness import PATIENCE, wait_until

HOLD_ONE = """
import time
from tests.faults.servers import Redis
server = Redis()
server.start()
server.restart()
print(server._process.pid, server.home, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_server_ends_with_the_run(number: signal.Signals) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", HOLD_ONE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert run.stdout
    pid, home = run.stdout.readline().split()
    end = os.pidfd_open(int(pid))
    run.send_signal(number)
    run.communicate()
    assert select.select([end], [], [], PATIENCE)[0]
    os.close(end)
    wait_until(lambda: not Path(home).exists(), "its directory gone")


def test_a_server_that_is_dropped_leaves_nothing() -> None:
    server = servers.Redis()
    server.start()
    server.pause()
    server.drop()
    assert not server.home.exists()
    assert not server.ready()


FORK_ONE = """
import os, time
from tests.faults.servers import die_with_parent
child = os.fork()
if child == 0:
    die_with_parent()
    print(os.getpid(), flush=True)
time.sleep(1000)
"""


def test_a_child_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", FORK_ONE], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    end = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    assert select.select([end], [], [], PATIENCE)[0]
    os.close(end)
    parent.communicate()
