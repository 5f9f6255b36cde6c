"""``manage.py mmolove_redeliver``: have events sent again, by what they have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from ... import advice
from ...conf import ConfigError, conf
from ...delivery.operate import hurry, may_redeliver, redeliver
from ...models import OutboundEvent, ServerHealth
from ...protocol import Kind
from ..base import ReferralCommand

State = OutboundEvent.State
CHOICES = [State.REJECTED.value, State.EXHAUSTED.value, State.CANCELLED.value, State.ACCEPTED.value]

MISSED = 3
"""Exit code if some of the keys led to nothing; the others are done."""
_FOR_GOOD = (
    "the account was deleted, the body has been blanked (TOKEN_RETENTION), the referral has ended, it was cancelled "
    "for good, or a worker has it in hand"
)


class Command(ReferralCommand):
    help = (
        "Send events again whose delivery ended without success: all rejected and exhausted ones, or those that meet "
        "every filter. Events that an operator cancelled are sent with --state cancelled, accepted ones with "
        "--state accepted --force (which never makes a second reward). What a worker has in hand is left alone. A KEY "
        "also has a pending event sent at once that waits for its next try; of each KEY that leads to nothing it is "
        "said why, and the exit code is 3."
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
        if options["keys"]:
            self._by_key(events, options)
            return
        if options["dry_run"]:
            for event in events.iterator():
                self._show(event)
            self.stdout.write(f"{events.count()} events would be sent again.")
            return
        total, sent = events.count(), 0
        for number, event in enumerate(events.iterator(), 1):
            sent += redeliver(event, force=options["force"])
            if self.stdout.isatty():
                self.stdout.write(f"\r{number} of {total}", ending="" if number < total else "\n")
        self.stdout.write(f"{sent} of {total} events will be sent again.")
        if sent < total:
            self.stdout.write(f"The others cannot be: {_FOR_GOOD}.")

    def _by_key(self, events: QuerySet[OutboundEvent], options: dict[str, Any]) -> None:
        """Each key is somebody's question, so each that leads to nothing is answered."""
        chosen, sent = list(events), 0
        missed = dict.fromkeys(options["keys"])
        for event in chosen:
            if options["dry_run"]:
                done = event.state != State.PENDING or may_redeliver(event)
            elif event.state == State.PENDING:
                done = hurry(event)
            else:
                done = redeliver(event, force=options["force"])
            if done:
                sent += 1
                missed.pop(event.server_event_id, None)
                if options["dry_run"]:
                    self._show(event)
        verb = "would" if options["dry_run"] else "will"
        self.stdout.write(f"{sent} of {sent + len(missed)} events {verb} be sent again.")
        for key in missed:
            self.stderr.write(f"{key!r}: {_why_not(key, {event.pk for event in chosen})}")
        if missed:
            raise CommandError("Not every key led to an event that can be sent again: see above.", returncode=MISSED)

    def _show(self, event: OutboundEvent) -> None:
        self.stdout.write(f"{event}: {event.last_error}" if event.last_error else str(event))

    def _chosen(self, options: dict[str, Any]) -> QuerySet[OutboundEvent]:
        states = options["state"] or [State.REJECTED.value, State.EXHAUSTED.value]
        if options["keys"] and not options["state"]:
            states.append(State.PENDING.value)  # between two tries, as with the admin's button
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


def _why_not(key: str, tried: set[int]) -> str:
    """Why no event with that key is sent again."""
    event = OutboundEvent.objects.filter(server_event_id=key).order_by("pk").last()
    if event is None:
        return "there is no such event"
    state = State(event.state)
    if state is State.ACCEPTED:
        return "it is accepted; to send it once more give --state accepted --force"
    if state in (State.PENDING, State.WAITING):
        told = advice.of_event(event, ServerHealth.objects.filter(server=event.server).first())
        return f"it is {state.value}. {told.cause} {told.cure}"
    if event.pk in tried:
        return f"it is {state.value} and cannot be sent any more: {_FOR_GOOD}."
    if state is State.CANCELLED:
        return "it is cancelled; to send it after all give --state cancelled"
    return f"it is {state.value}, and does not meet the other filters"


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
