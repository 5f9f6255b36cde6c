"""``manage.py mmolove_doctor``: what is wrong here, and what mends it. It only prints; see ``doctor``."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import textwrap
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...conf import ConfigError
from ...doctor import Finding, Severity, examine
from ..base import ReferralCommand

LONGEST = 110
"""Characters of a line, however wide the terminal is."""
MARGIN = 9
"""Characters before the text of a finding: its severity."""


class Command(ReferralCommand):
    help = (
        "Looks at settings, middleware, sessions, tables, the way to MMOLove, clocks, a signed dry run, what delivers "
        "and what waits, and says what mends each fault. Exit code 1 if something is an error, else 0."
    )
    requires_system_checks = ()  # what they say is among the findings

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object, for monitoring")
        parser.add_argument("--offline", action="store_true", help="send nothing to MMOLove")
        parser.add_argument("--server", metavar="ALIAS", help="look at this server only")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            findings = examine(offline=options["offline"], server=options["server"])
        except ConfigError as error:
            raise CommandError(str(error)) from error
        found = self._as_json(findings) if options["json"] else self._as_text(findings)
        if any(finding.severity is Severity.ERROR for finding in found):
            sys.exit(1)

    def _as_json(self, findings: Any) -> list[Finding]:
        found = list(findings)
        told = {
            "ok": _count(found, Severity.ERROR) == 0,
            "errors": _count(found, Severity.ERROR),
            "warnings": _count(found, Severity.WARNING),
            "host": socket.gethostname(),
            "findings": [finding.as_dict() for finding in found],
        }
        self.stdout.write(json.dumps(told, indent=2))
        return found

    def _as_text(self, findings: Any) -> list[Finding]:
        found = []
        for finding in findings:  # each as soon as it is there: a dry run may take a while
            found.append(finding)
            self._tell(finding)
        errors, warnings = _count(found, Severity.ERROR), _count(found, Severity.WARNING)
        summary = ", ".join(
            (
                f"{errors} error{'s' * (errors != 1)}",
                f"{warnings} warning{'s' * (warnings != 1)}",
                f"{len(found) - errors - warnings} ok.",
            )
        )
        style = self.style.ERROR if errors else self.style.WARNING if warnings else self.style.SUCCESS
        self.stdout.write("")
        self.stdout.write(style(summary))
        return found

    def _tell(self, finding: Finding) -> None:
        style = {
            Severity.OK: self.style.SUCCESS,
            Severity.WARNING: self.style.WARNING,
            Severity.ERROR: self.style.ERROR,
        }[finding.severity]
        # One line for what is well, so that the rest stands out.
        head = "" if finding.severity is Severity.OK else f"{finding.id}: "
        first, *more = self._lines(f"{head}{finding.words}")
        self.stdout.write(style(f"{finding.severity.value:<{MARGIN}}") + first)
        for line in more:
            self.stdout.write(" " * MARGIN + line)
        for number, line in enumerate(self._lines(finding.cure)):
            self.stdout.write(" " * MARGIN + ("   " if number else "-> ") + line)
        self.stdout.flush()

    def _lines(self, text: str) -> list[str]:
        columns = min(shutil.get_terminal_size((LONGEST, 24)).columns, LONGEST) - MARGIN - 3
        return textwrap.wrap(self._printable(text), max(columns, 40), break_long_words=False, break_on_hyphens=False)

    def _printable(self, text: str) -> str:
        """For a terminal that does not know every character."""
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        return text.encode(encoding, "replace").decode(encoding)


def _count(findings: list[Finding], severity: Severity) -> int:
    return sum(finding.severity is severity for finding in findings)
