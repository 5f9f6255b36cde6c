"""``python -m benchmarks.drain``: a whole backlog delivered over TLS, against the kits' way, a pool of requests, and
the bound that the latency sets. Settling in the database is included for this package; the others write nothing down.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from . import portal
from .race import Contestant, Sink, judge, race, say, sink
from .sink import SECRET

LATENCY, OPENING = 0.05, 0.06


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000, help="for the concurrent ones")
    parser.add_argument("--single", type=int, default=50, help="events for those that send one by one")
    parser.add_argument("--laps", type=int, default=5)
    parser.add_argument("--only", default="", help="contestants whose names contain this")
    options = parser.parse_args()
    portal.setup()
    with tempfile.TemporaryDirectory() as directory, portal.database() as url:
        os.environ["DATABASE_URL"] = url
        ca = str(Path(directory) / "ca.pem")
        with sink(latency=LATENCY, opening=OPENING, tls=ca) as mmolove:
            portal.populate(options.events)
            return _race(options, mmolove, Path(directory), ca)


def _race(options: argparse.Namespace, mmolove: Sink, directory: Path, ca: str) -> int:
    from django_mmolove_referral.models import OutboundEvent

    many, few = directory / "many", directory / "few"
    bodies = [bytes(body) for body in OutboundEvent.objects.values_list("body", flat=True)]
    many.write_bytes(b"\n".join(bodies))
    few.write_bytes(b"\n".join(bodies[: options.single]))

    def ours(connections: int) -> list[str]:
        return command("drain", mmolove.endpoint, ca, connections)

    def pool(connections: int) -> list[str]:
        return [*command("session-pool", mmolove.endpoint, ca, connections), f"--bodies={many}"]

    def single(name: str) -> list[str]:
        return [*command(name, mmolove.endpoint, ca, 1), f"--bodies={few}"]

    php = shutil.which("php")
    contestants = [
        Contestant("drain, 64 connections", [ours(64)], options.events),
        Contestant("requests.Session pool, 64 connections", [pool(64)], options.events),
        Contestant("drain, 128 connections", [ours(128)], options.events),
        Contestant("requests.Session pool, 128 connections", [pool(128)], options.events),
        Contestant("drain, 32 connections", [ours(32)], options.events),
        Contestant("drain, 2 processes of 32", [ours(32), ours(32)], options.events),
        Contestant("urllib, one by one", [single("urllib")], options.single),
        Contestant("requests.post, one by one", [single("requests")], options.single),
    ]
    if php:
        script = str(Path(__file__).with_name("one_by_one.php"))
        line = [php, script, mmolove.endpoint, ca, SECRET, str(few)]
        contestants.append(Contestant("PHP's curl, one by one", [line], options.single))
    else:
        say("PHP is left out: install php-cli and php-curl.")
    contestants = [one for one in contestants if options.only in one.name]
    say(f"{options.events} events, TLS, {LATENCY * 1000:g} ms, {OPENING * 1000:g} ms more per new connection")
    found = race(contestants, mmolove, portal.unsend, options.laps)
    say()
    say(f"{'median of ' + str(options.laps):40} events/s  CPU s per 1,000  MB over idle")
    for name, lap in found.items():
        say(f"{name:40} {lap.rate:8.1f}  {lap.cpu:15.3f}  {lap.memory:12.1f}")
    say()
    if options.only:
        return 0
    ours64 = found["drain, 64 connections"]
    peer64 = found["requests.Session pool, 64 connections"]
    met = [
        judge(f"drain at 64 against {name}", ours64.rate / lap.rate, 100)
        for name, lap in found.items()
        if "one by one" in name
    ]
    met += [
        judge("drain at 64 against the pool: events/s", ours64.rate / peer64.rate, 1.0),
        judge("drain at 64 against the pool: CPU per event", ours64.cpu / peer64.cpu, 1.0, least=False),
        judge("drain at 64 against the bound", ours64.rate / (64 / LATENCY), 0.8),
        judge("drain at 128 against the bound", found["drain, 128 connections"].rate / (128 / LATENCY), 0.7),
        judge(
            "two processes of 32 against one",
            found["drain, 2 processes of 32"].rate / found["drain, 32 connections"].rate,
            1.8,
        ),
    ]
    return 0 if all(met) else 1


def command(sender: str, endpoint: str, ca: str, connections: int) -> list[str]:
    """The command line of a contestant of ``senders``."""
    return [
        sys.executable, "-m", "benchmarks.senders", sender,
        f"--endpoint={endpoint}", f"--ca={ca}", f"--connections={connections}",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
