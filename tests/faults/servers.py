"""Databases and brokers of the tests' own, to be stopped, paused, restarted and flushed at will."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

PATIENCE = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """The newest of that name; PostgreSQL's are not on everybody's PATH."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: the fault tests start servers of their own.")
    return found


def die_with_parent() -> None:
    """From now on this process ends when the thread that started it does, however that comes about (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


GUARD = """
while read -r pid; do last=$pid; done
[ -n "$last" ] && kill -KILL "-$last" 2>/dev/null
[ -n "$last" ] && while kill -0 "-$last" 2>/dev/null; do sleep 0.1; done
rm -rf -- "$0"
"""
"""A shell that is told each process, and ends the last and all that it wrote when its input ends: with whoever writes
there, even one that is killed."""


class Private:
    """A server on a free port, in a directory that goes with it; neither outlives the process that made it."""

    #: Who runs it if the tests run as root, which database servers refuse to do.
    account = ""
    #: Whether its first process is only a wrapper.
    wrapped = False

    def __init__(self) -> None:
        self.port = free_port()
        self.home = Path(mkdtemp(prefix="mmolove-faults-"))
        self._as: dict[str, Any] = {}
        if self.account and os.geteuid() == 0:
            entry = pwd.getpwnam(self.account)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.home, entry.pw_uid, entry.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, str(self.home)], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self.prepare()

    def prepare(self) -> None:
        """What is done once, before the first start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def ready(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def start(self) -> None:
        until = time.monotonic() + PATIENCE
        self._spawn()
        while not self.ready():
            if time.monotonic() > until:
                raise RuntimeError(f"{type(self).__name__} did not start: {(self.home / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
            assert self._process is not None
            if self._process.poll() is not None:  # what the one before has left, if killed, is not gone at once
                self._spawn()

    def _spawn(self) -> None:
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env={**os.environ, **self.environment()},
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as,
            )
        self._tell_guard(self._process.pid)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        (os.killpg if self.wrapped else os.kill)(self._process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self.send(number)
            self._process.wait(PATIENCE)
            self._process = None
            self._tell_guard(None)

    def _tell_guard(self, pid: int | None) -> None:
        assert self._guard.stdin
        self._guard.stdin.write(f"{pid or ''}\n")
        self._guard.stdin.flush()

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.stop(number)
        self.start()

    def pause(self) -> None:
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)

    def drop(self) -> None:
        with suppress(ProcessLookupError):
            if self._process is not None:
                self.go_on()
            self.stop(signal.SIGKILL)
        self._guard.communicate()

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.home, check=False, **self._as)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")


class Postgres(Private):
    account = "postgres"

    def prepare(self) -> None:
        self._run(program("initdb"), "-D", str(self.home / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8")

    def command(self) -> list[str]:
        options = ["listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self.home}"]
        # The machine outlives every test, so what the kernel has is as good as on disk.
        options += ["fsync=off", "max_connections=200"]
        return [program("postgres"), "-D", str(self.home / "data"), *(word for one in options for word in ("-c", one))]

    def ready(self) -> bool:
        asked = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        super().stop(signal.SIGINT if number is signal.SIGTERM else number)  # SIGTERM waits for the clients to leave

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/faults"


class MariaDB(Private):
    account = "mysql"

    def prepare(self) -> None:
        self._run(
            program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self.home / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def command(self) -> list[str]:
        return [
            program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.home / 'data'}",
            f"--socket={self.home / 'socket'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--innodb-flush-log-at-trx-commit=2",
            "--character-set-server=utf8mb4",
        ]

    def ready(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            return bool(connection.recv(5))
        return False

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/faults"


class Broker(Protocol):
    """A broker that tests may do anything to."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def restart(self) -> None: ...

    def pause(self) -> None: ...

    def go_on(self) -> None: ...

    def drop(self) -> None: ...


class Redis(Private):
    def command(self) -> list[str]:
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        return [program("redis-server"), *options]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class RabbitMQ(Private):
    account = "rabbitmq"
    wrapped = True

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "RABBITMQ_NODENAME": f"faults{self.port}@localhost",
            # The system's own configuration names the system's own port.
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "no-environment"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_LOG_BASE": str(self.home / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "plugins"),
            "RABBITMQ_PID_FILE": str(self.home / "pid"),
        }

    def prepare(self) -> None:
        (self.home / "plugins").write_text("[].")
        (self.home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")

    def command(self) -> list[str]:
        # The wrapper script in /usr/sbin insists on the system's own node.
        scripts = sorted(Path("/usr/lib/rabbitmq").glob("**/sbin/rabbitmq-server"))
        return [str(scripts[-1]) if scripts else program("rabbitmq-server")]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        super().stop(number)
        wait = time.monotonic() + PATIENCE
        while Private.ready(self) and time.monotonic() < wait:  # the wrapper ends first
            time.sleep(0.05)

    def ready(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(1))
        return False

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"


DATABASES: dict[str, type[Postgres | MariaDB] | None] = {"sqlite": None, "postgresql": Postgres, "mariadb": MariaDB}
