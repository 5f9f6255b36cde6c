"""``python -m benchmarks.backlog``: a long outage is over, and one process delivers what has piled up. How much memory
does that take, over what the process had before?
"""

from __future__ import annotations

import argparse
import os
import sys

from . import portal
from .drain import command
from .race import Contestant, judge, race, say, sink


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--laps", type=int, default=1)
    options = parser.parse_args()
    portal.setup()
    with portal.database() as url, sink() as mmolove:
        os.environ["DATABASE_URL"] = url
        portal.populate(options.events)
        drain = command("drain", mmolove.endpoint, "", options.connections)
        contestant = Contestant(f"drain, {options.connections} connections", [drain], options.events)
        found = race([contestant], mmolove, portal.unsend, options.laps)[contestant.name]
    say(f"{options.events} events at {found.rate:.0f}/s, {found.cpu:.3f} CPU s per 1,000")
    return 0 if judge("peak memory over idle", found.memory, 40, least=False, unit=" MB") else 1


if __name__ == "__main__":
    sys.exit(main())
