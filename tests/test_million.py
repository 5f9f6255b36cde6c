"""The tables of a big portal, made small: that they are filled after every change of the model, and shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def test_the_tables_are_filled_and_the_overview_is_measured(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "TEST_"))}
    environment["DATABASE_URL"] = f"sqlite:///{tmp_path / 'million.sqlite3'}"
    page = "mmolove_referral/serverhealth/overview/"
    told = ""
    for line in ("seed 160 --days 3", f"measure --times 1 {page}"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.million", *line.split()],
            cwd=Path(__file__).parents[1],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        told += done.stdout
    assert re.findall(r"^mmolove_referral_(\w+): (\d+) rows", told, re.MULTILINE) == [
        ("referral", "100"),
        ("outboundevent", "100"),
        ("outboundevent", "60"),
        ("deliveryattempt", "162"),
        ("reward", "60"),
    ]
    assert re.search(rf"^sqlite .* queries, .* {page}$", told, re.MULTILINE)
