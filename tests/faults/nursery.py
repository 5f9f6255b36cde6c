"""A portal's processes, forked from one that has loaded Django, so that hundreds of them may die in a minute.

Reads one JSON object a line: ``{"job": …, "hooks": […], …}`` forks a process and prints its pid;
``{"reap": pid}`` waits for its end and prints how it ended. Nothing here is known to the package: a hook wraps one of
its functions from outside.
"""

from __future__ import annotations

import itertools
import json
import logging
import mmap
import os
import pkgutil
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import django

from tests.faults.servers import die_with_parent

Order = Mapping[str, Any]


# -- hooks: what goes wrong, and exactly where


def wrap(path: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the function at ``package.module:Class.name`` by what ``around`` makes of it."""
    owner_path, _, name = path.replace(":", ".").rpartition(".")
    owner = pkgutil.resolve_name(owner_path)
    setattr(owner, name, around(getattr(owner, name)))


def hook(at: str, act: str, call: int = 1, after: bool = False) -> None:
    """At the ``call``-th call of ``at``: before it, or ``after`` it, ``kill`` or ``stop`` this process or ``raise``."""
    calls = itertools.count(1)

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            this = next(calls) == call
            if this and not after:
                ACTS[act]()
            result = original(*args, **kwargs)
            if this and after:
                ACTS[act]()
            return result

        return wrapped

    wrap(at, around)


def _send_myself(number: signal.Signals) -> Callable[[], None]:
    # To the thread, as to the process it may reach another thread first, and this one goes on for a moment.
    return lambda: signal.pthread_kill(threading.get_ident(), number)


def _raise() -> None:
    raise RuntimeError("a fault that the test ordered")


ACTS: dict[str, Callable[[], None]] = {
    "kill": _send_myself(signal.SIGKILL),
    "stop": _send_myself(signal.SIGSTOP),
    "raise": _raise,
}


def die_at(point: int) -> Callable[[], int]:
    """Kill this process at its ``point``-th function call or return from now (0: never); call the result to count."""
    counted = [0]

    def profile(frame: Any, event: str, argument: Any) -> None:
        counted[0] += 1
        if counted[0] == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def stop() -> int:
        sys.setprofile(None)
        return counted[0]

    sys.setprofile(profile)
    return stop


def shift_clock(offset: float, shared: str) -> None:
    """This process's clock is ``offset`` seconds ahead, and by what the file ``shared`` says from moment to moment."""
    real = time.time
    moved: Callable[[], float] = float
    if shared:
        with Path(shared).open("rb") as file:
            memory = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
        moved = lambda: struct.unpack("d", memory[:8])[0]  # noqa: E731
    time.time = lambda: real() + offset + moved()


def break_statements(share: float, messages: list[str]) -> None:
    """Let that share of all SQL statements fail, in each of these ways."""
    import random

    from django.db import OperationalError, connection

    def execute(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if random.random() < share:
            raise OperationalError(random.choice(messages))
        return run(sql, params, many, context)

    connection.execute_wrappers.append(execute)


# -- jobs: what the process does


def loop(order: Order) -> None:
    """A worker without a broker."""
    from django.core.management import call_command

    call_command("mmolove_deliver", "--loop", concurrency=order.get("concurrency"))


def once(order: Order) -> None:
    from django.core.management import call_command

    call_command("mmolove_deliver", "--once", concurrency=order.get("concurrency"))


def web(order: Order) -> None:
    """A web process whose thread delivers: after one request it idles until it is told to stop."""
    from django.test import Client

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    Client().get("/page/")
    while True:
        signal.pause()


def _celery_app(order: Order) -> Any:
    os.environ["TEST_BROKER"], os.environ["TEST_QUEUE"] = order["broker"], order["queue"]
    from tests.services.app import app

    return app


def celery(order: Order) -> None:
    """A Celery worker."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=warning"]
    _celery_app(order).worker_main(["worker", "-P", "threads", "-c", str(order.get("threads", 2)), *quiet])


def beat(order: Order) -> None:
    _celery_app(order).start(["beat", "-s", order["schedule"], "--pidfile=", "--loglevel=warning"])


def visit(order: Order) -> None:
    """One request of a browser with this session; says how many calls and returns it took."""
    from django.conf import settings
    from django.db import connection
    from django.test import Client

    connection.settings_dict["ATOMIC_REQUESTS"] = order["atomic"]
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = order["session"]
    Client().get("/page/")  # so that what a process does once is not what most deaths hit
    connection.ensure_connection()
    count = die_at(order.get("point", 0))
    client.post(order["url"], order["form"])
    sys.stdout.write(f"{count()}\n")


JOBS = {job.__name__: job for job in (loop, once, web, celery, beat, visit)}


# -- the reward, as a portal grants it


def grant(referral: Any, **kwargs: Any) -> None:
    from tests.faults.ledger import pay

    pay(referral)


def _become(order: Order) -> None:
    """The child's whole life."""
    from django.conf import settings

    from django_mmolove_referral.conf import conf
    from django_mmolove_referral.signals import referral_qualified

    settings.MMOLOVE_REFERRAL = {**settings.MMOLOVE_REFERRAL, **order.get("settings", {})}
    if "secret_file" in order:
        secret = Path(order["secret_file"])
        settings.MMOLOVE_REFERRAL["SECRET"] = secret.read_text
    conf.reload()
    if order.get("receiver", True):
        referral_qualified.connect(grant)
    if "clock" in order:
        shift_clock(**order["clock"])
    if "break" in order:
        break_statements(**order["break"])
    for one in order.get("hooks", ()):
        hook(**one)
    JOBS[order["job"]](order)


def _fork(order: Order) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent()
        os.setpgid(0, 0)
        with Path(os.devnull).open() as nothing, Path(order["log"]).open("a") as log:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        _become(order)
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 0
    except BaseException:  # noqa: BLE001  # a child must never go on as the nursery
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    django.setup()
    logging.basicConfig(level=logging.WARNING, format="%(process)d %(levelname)s %(name)s %(message)s")
    for line in sys.stdin:
        order = json.loads(line)
        told: Any = os.waitpid(order["reap"], 0)[1] if "reap" in order else _fork(order)
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
