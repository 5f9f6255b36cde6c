"""The benchmarks run, on a table of next to nothing: what they measure there means nothing, that they end does."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from django.db import connection

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="measured on PostgreSQL")

TARGETS = {
    "drain --events 40 --single 2 --laps 1": 7,  # one more where PHP is installed
    "claim --finished 500 --waiting 50 --due 200 --laps 1": 2,
    "backlog --events 100": 1,
    "signup --visitors 5 --laps 1 --accounts 2000": 3,
    "middleware --requests 100 --laps 1": 2,
}


@pytest.mark.parametrize("line", TARGETS)
def test_each_measures_against_its_targets(line: str) -> None:
    name, *options = line.split()
    options_of_its_own = {"DATABASE_URL": f"postgres://postgres@127.0.0.1:5432/benchmarks_{os.getpid()}"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        env={**environment, **options_of_its_own},
        capture_output=True,
        text=True,
        timeout=300,
    )
    verdicts = re.findall(r"^(met|MISSED) ", done.stdout, re.MULTILINE)
    assert len(verdicts) >= TARGETS[line], done.stdout + done.stderr
    assert done.returncode == ("MISSED" in verdicts)
