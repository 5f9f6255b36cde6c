"""``manage.py mmolove_redeliver``: have events sent again, by what they have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from ...conf import ConfigError, conf
from ...delivery.operate import redeliver
from ...models import OutboundEvent
from ...protocol import Kind

State = OutboundEvent.State
CHOICES = [State.REJECTED.value, State.EXHAUSTED.value, State.CANCELLED.value, State.ACCEPTED.value]


class Command(BaseCommand):
    help = (
        "Send events again whose delivery ended without success: all rejected and exhausted ones, or those that meet "
        "every filter. Events that an operator cancelled are sent with --state cancelled, accepted ones with "
        "--state accepted --force (which never makes a second reward). What a worker has in hand is left alone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="KEY", help="idempotency keys, such as reg-7842")
        parser.add_argument("--state", action="append", choices=CHOICES, help="(may be given several times)")
        parser.add_argument(
            "--status", action="append", type=int, metavar="CODE", help="last HTTP status, 0 for none (several times)"
        )
        parser.add_argument("--server", metavar="ALIAS")
        parser.add_argument("--kind", choices=[kind.value for kind in Kind])
        parser.add_argument("--since", metavar="TIME", help="created at or after: 2026-01-31, or 2026-01-31T18:00")
        parser.add_argument("--until", metavar="TIME", help="created before")
        parser.add_argument("--force", action="store_true", help="needed for accepted events")
        parser.add_argument("--dry-run", action="store_true", help="only say which events these are")

    def handle(self, *args: Any, **options: Any) -> None:
        events = self._chosen(options)
        if options["dry_run"]:
            for event in events.iterator():
                self.stdout.write(f"{event}: {event.last_error}" if event.last_error else str(event))
            self.stdout.write(f"{events.count()} events would be sent again.")
            return
        total, sent = events.count(), 0
        for number, event in enumerate(events.iterator(), 1):
            sent += redeliver(event, force=options["force"])
            if self.stdout.isatty():
                self.stdout.write(f"\r{number} of {total}", ending="" if number < total else "\n")
        self.stdout.write(f"{sent} of {total} events will be sent again.")
        if sent < total:
            self.stdout.write(
                "The others cannot be: their account was deleted, their body has been blanked (TOKEN_RETENTION), their "
                "referral has ended, they were cancelled for good, or a worker has them in hand."
            )

    def _chosen(self, options: dict[str, Any]) -> QuerySet[OutboundEvent]:
        states = options["state"] or [State.REJECTED.value, State.EXHAUSTED.value]
        if State.ACCEPTED.value in states and not options["force"]:
            raise CommandError("Accepted events are sent again only with --force.")
        events = OutboundEvent.objects.filter(state__in=states).order_by("pk")
        if options["keys"]:
            events = events.filter(server_event_id__in=options["keys"])
        if options["status"]:
            events = events.filter(last_status__in=options["status"])
        if options["server"]:
            try:
                events = events.filter(server=conf.server(options["server"]).alias)
            except ConfigError as error:
                raise CommandError(str(error)) from error
        if options["kind"]:
            events = events.filter(kind=options["kind"])
        if options["since"]:
            events = events.filter(created_at__gte=_moment("--since", options["since"]))
        if options["until"]:
            events = events.filter(created_at__lt=_moment("--until", options["until"]))
        return events


def _moment(option: str, text: str) -> datetime:
    """A moment in the portal's own time zone, unless the text names another."""
    try:
        day = parse_date(text)
        moment = datetime(day.year, day.month, day.day) if day else parse_datetime(text)  # noqa: DTZ001  # made aware below
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(f"{option} takes a time such as 2026-01-31 or 2026-01-31T18:00, not {text!r}.")
    return timezone.make_aware(moment) if settings.USE_TZ and timezone.is_naive(moment) else moment
