"""The contestants: ``python -m benchmarks.senders NAME …``, each in a process of its own (see ``race``).

``drain`` is this package's ``mmolove_deliver --once``: it claims from the database, sends, settles and grants. The
others send the lines of a file, and write nothing down.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import hmac
import json
import os
import resource
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from .sink import SECRET

Work = Callable[[], None]


def sign(body: bytes) -> dict[str, str]:
    """As the kits do it."""
    moment = str(int(time.time()))
    mac = hmac.new(SECRET.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Content-Type": "application/json", "X-MMOLove-Signature": f"t={moment},v1=sha256={mac}"}


def drain(options: argparse.Namespace) -> Work:
    from . import portal

    portal.setup(ENDPOINT=options.endpoint, VERIFY=options.ca or True)
    from django.core.management import call_command
    from django.db import connection

    from django_mmolove_referral.management.commands.mmolove_deliver import Command

    connection.ensure_connection()
    command = Command(stdout=StringIO())
    gc.freeze()  # as the command itself does when it is a process's only one

    def work() -> None:
        call_command(command, once=True, concurrency=options.connections)

    return work


def one_by_one_urllib(options: argparse.Namespace) -> Work:
    context = ssl.create_default_context(cafile=options.ca) if options.ca else None

    def work() -> None:
        for body in bodies(options):
            request = urllib.request.Request(options.endpoint, body, sign(body))
            with urllib.request.urlopen(request, timeout=15, context=context) as answer:
                assert json.load(answer)["ok"]

    return work


def one_by_one_requests(options: argparse.Namespace) -> Work:
    import requests

    def work() -> None:
        for body in bodies(options):
            answer = requests.post(
                options.endpoint, data=body, headers=sign(body), timeout=15, verify=options.ca or True
            )
            assert answer.json()["ok"]

    return work


def session_pool(options: argparse.Namespace) -> Work:
    """One ``requests.Session`` and as many threads as connections: no database, no order, no retries."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.mount("https://", HTTPAdapter(pool_maxsize=options.connections))
    session.mount("http://", HTTPAdapter(pool_maxsize=options.connections))
    session.trust_env = False  # 30 % faster
    session.verify = options.ca or True
    jobs: SimpleQueue[bytes] = SimpleQueue()
    for body in bodies(options):
        jobs.put(body)

    def send() -> None:
        while True:
            try:
                body = jobs.get_nowait()
            except Empty:
                return
            assert session.post(options.endpoint, data=body, headers=sign(body), timeout=15).json()["ok"]

    def work() -> None:
        threads = [threading.Thread(target=send) for _ in range(options.connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return work


def bodies(options: argparse.Namespace) -> list[bytes]:
    return Path(options.bodies).read_bytes().splitlines()


SENDERS: dict[str, Callable[[argparse.Namespace], Work]] = {
    "drain": drain,
    "urllib": one_by_one_urllib,
    "requests": one_by_one_requests,
    "session-pool": session_pool,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sender", choices=SENDERS)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--ca", default="")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--bodies", default=os.devnull)
    options = parser.parse_args()
    work = SENDERS[options.sender](options)
    told(work)


def told(work: Work) -> None:
    """Do the work when told to, and tell what it took."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    idle, began = _memory("VmRSS"), _cpu()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    work()
    took: dict[str, Any] = {"cpu": _cpu() - began, "memory": _memory("VmHWM") - idle}
    sys.stdout.write(json.dumps(took) + "\n")


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory(field: str) -> float:
    """MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    main()
