"""``manage.py mmolove_export``: all that is stored about one account, for whoever asks for their data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import indent
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import DataError, router

from ... import privacy
from ...models import Referral
from ..accounts import identifying, suggested
from ..base import ReferralCommand

SHOWN = 5
"""Accounts of which the keys are told, if several are meant."""


class Command(ReferralCommand):
    help = (
        "Write all that is stored about one account as JSON: how it was referred, with its token, what was sent to "
        "MMOLove and what came back; and its part in the referrals of those whom it invited, with nothing of theirs. "
        "For the person whose account it is: who has the file, has the token. The same as privacy.export(user)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", metavar="USER", help="the account's primary key, or its --by")
        parser.add_argument(
            "--by", default="pk", metavar="FIELD", help="the field that USER is a value of: username, email … (pk)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = _account(options["by"], options["user"])
        self.stdout.write(json.dumps(privacy.about(user), indent=2).removesuffix("\n}"), ending="")
        # One by one, as the invited may be a hundred thousand.
        self._list("referrals", privacy.referrals(user))
        self._list("invited", privacy.invited(user))
        self.stdout.write("\n}")

    def _list(self, name: str, entries: Iterator[dict[str, Any]]) -> None:
        self.stdout.write(f',\n  "{name}": [', ending="")
        before = "\n"
        for entry in entries:
            self.stdout.write(before + indent(json.dumps(entry, indent=2), "    "), ending="")
            before = ",\n"
            del entry  # with the token in it, which an error's report would show
        self.stdout.write("]" if before == "\n" else "\n  ]", ending="")


def _account(by: str, value: str) -> Any:
    model = get_user_model()
    # All accounts, also those that the portal's own manager hides.
    rows = model._base_manager.using(router.db_for_write(Referral))
    try:
        found = list(rows.filter(**{_field(model, by): value}).order_by("pk")[: SHOWN + 1])
    except (ValueError, ValidationError, OverflowError, DataError) as error:
        raise CommandError(f"{value!r} can be no {by}. {_HINT}") from error
    if not found:
        raise CommandError(
            f"There is no account with {by} = {value!r}. {_HINT} Of an account that has been deleted nothing is left "
            "to be written."
        )
    if len(found) > 1:
        keys = ", ".join([str(user.pk) for user in found[:SHOWN]] + ["…"] * (len(found) > SHOWN))
        raise CommandError(f"Several accounts have {by} = {value!r}. Name one by its primary key: {keys}.")
    return found[0]


_HINT = "Give the account's primary key, or another field with --by: --by username is what it logs in with."


def _field(model: Any, by: str) -> str:
    if by == "pk":
        return by
    field = identifying(by)
    if field is None:
        names = ", ".join(suggested())
        raise CommandError(f"--by {by}: the accounts ({model._meta.label}) have no such field; they have pk, {names}.")
    return field.name
