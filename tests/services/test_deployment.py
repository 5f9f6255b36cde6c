"""The commands of the example's compose file, run without containers: the portal on PostgreSQL, Redis and Celery."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "example_project"
POSTGRES = os.environ.get("TEST_POSTGRES", "postgres://postgres@127.0.0.1:5432/mmolove_referral")
REDIS = next((url for url in os.environ.get("TEST_BROKERS", "").split(",") if url.startswith("redis")), "")
COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
PATIENCE = 60


@pytest.fixture
def database() -> Iterator[str]:
    """A database of this test's own."""
    parts, name = urlsplit(POSTGRES), f"emberfall_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        yield urlunsplit(parts._replace(path=f"/{name}", query=""))
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def queue() -> Iterator[str]:
    """A Redis database for the compose file's queue alone, which is emptied of it afterwards."""
    assert REDIS, "Set TEST_BROKERS; it has to name a Redis."
    url = urlunsplit(urlsplit(REDIS)._replace(path="/15"))
    with redis.from_url(url) as store:
        yield url
        for key in [*store.scan_iter("*mmolove*"), *store.scan_iter("_kombu.*"), *store.scan_iter("unacked*")]:
            store.delete(key)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(service: str, port: int) -> list[str]:
    """A service's command, on this machine's own Python and address."""
    words = shlex.split(COMPOSE["services"][service]["command"].replace("0.0.0.0:8000", f"127.0.0.1:{port}"))
    programs = {"python": [sys.executable], "celery": [sys.executable, "-m", "celery"]}
    return [*programs[words[0]], *words[1:]]


@contextmanager
def running(service: str, port: int, environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(service, port), cwd=EXAMPLE, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_the_example_portal_runs_on_postgresql_redis_and_celery(database: str, queue: str, tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TEST_", "DJANGO_"))},
        **COMPOSE["x-portal"]["environment"],
        "DATABASE_URL": database,
        "CELERY_BROKER_URL": queue,
        "MMOLOVE_ENDPOINT": f"http://127.0.0.1:{port}/sandbox/api/referral/events",
        "PORTAL_VAR": str(tmp_path),
        "PYTHONWARNINGS": "default",  # Celery warns of running as root, for one
        "PYTHONPATH": str(ROOT),  # for a checkout that is not installed
    }
    subprocess.run(command("migrate", port), cwd=EXAMPLE, env=environment, check=True, stdout=subprocess.DEVNULL)
    with ExitStack() as stack:
        for service in ("web", "worker", "beat"):
            stack.enter_context(running(service, port, environment, tmp_path / f"{service}.log"))
        played = subprocess.run(
            [sys.executable, "journey.py", f"http://127.0.0.1:{port}/"],
            cwd=EXAMPLE,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    logs = "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in tmp_path.glob("*.log"))
    assert played.returncode == 0, f"{played.stdout}\n{played.stderr}\n{logs}"
    assert "500 gold" in played.stdout
    assert "mmolove_referral.deliver" in (tmp_path / "worker.log").read_text()
