"""``manage.py mmolove_prune``: delete the log of what has long been over."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandParser
from django.db import router

from ...delivery.prune import Pruned, prunable, prune
from ...models import DeliveryAttempt, OutboundEvent
from ..base import ReferralCommand

WIDTH = 30
"""Characters of the progress bar."""


class Command(ReferralCommand):
    help = (
        "Delete events, with their attempts, that were accepted or cancelled over --days ago; rejected and exhausted "
        "ones only with --failed-days. Referrals and rewards stay, and so do all events of a referral of which "
        "anything is still open or due. Works in short transactions beside everything else; may be stopped at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=_days, required=True, metavar="N", help="age of accepted and cancelled ones")
        parser.add_argument("--failed-days", type=_days, metavar="M", help="age of rejected and exhausted ones")
        parser.add_argument("--dry-run", action="store_true", help="only say how many these are")

    def handle(self, *args: Any, **options: Any) -> None:
        days, failed_days = options["days"], options["failed_days"]
        using = router.db_for_write(OutboundEvent)
        rows = prunable(days, failed_days, using=using)
        if options["dry_run"]:
            attempts = DeliveryAttempt.objects.using(using).filter(event__in=rows).count()
            self.stdout.write(f"{rows.count()} events and {attempts} attempts would be deleted.")
            return
        terminal = self.stdout.isatty()
        total = rows.count() if terminal else 0
        done = prune(days, failed_days, using=using, watch=self._bar(total) if terminal else None)
        if terminal and done.events:
            self.stdout.write("")
        self.stdout.write(f"{done.events} events and {done.attempts} attempts deleted.")

    def _bar(self, total: int) -> Any:
        def show(done: Pruned) -> None:
            share = min(done.events / total, 1.0) if total else 1.0
            bar = "#" * round(WIDTH * share)
            self.stdout.write(f"\r[{bar:.<{WIDTH}}] {share:4.0%}  {done.events} of {total}", ending="")
            self.stdout.flush()

        return show


def _days(text: str) -> int:
    try:
        days = int(text)
    except ValueError:
        days = 0
    if not 1 <= days <= 36_500:
        raise ArgumentTypeError(f"takes a whole number of days from 1, not {text!r}")
    return days
