"""What the commands have in common: how they end where going on makes no sense."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, router

from ..doctor import Severity
from ..doctor.installation import of_migrations
from ..models import OutboundEvent

NOBODY_READS = 141
"""Exit code of a command whose reader has gone, as a shell has it: 128 and the number of SIGPIPE."""


class ReferralCommand(BaseCommand):
    """Says in a line that tables are missing, and ends quietly when nobody reads on (``mmolove_stats | head``)."""

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            try:
                super().run_from_argv(argv)
            finally:
                sys.stdout.flush()  # here, and not while Python ends, where nobody can catch it
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
            sys.exit(NOBODY_READS)

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            missing = _missing_tables()
            if not missing:
                raise
            raise CommandError(missing) from error


def _missing_tables() -> str:
    """What the database lacks, and the command that makes it; empty if that is not why it raised."""
    try:
        found = list(of_migrations(router.db_for_write(OutboundEvent)))
    except DatabaseError:  # it does not answer at all
        return ""
    return " ".join(f"{one.seen} Run: {one.cure}" for one in found if one.severity is not Severity.OK)
