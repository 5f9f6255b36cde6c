"""``manage.py mmolove_qualify``: report the milestone of accounts, for game servers that call a shell."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser
from django.db import router
from django.db.models import Field

from ...conf import ConfigError
from ...lifecycle import SeveralServersError
from ...milestones import BATCH, Qualified, key_field, mark_qualified_many, read, would_qualify
from ...options import UnknownServerError
from ..accounts import identifying, suggested
from ..base import ReferralCommand

WRONG = 2
"""Exit code for arguments that will be as wrong the next time."""
UNKNOWN = 3
"""Exit code if some of the accounts are not to be found; the others are done."""


class Command(ReferralCommand):
    help = (
        "Report the milestone of these accounts to MMOLove, as mark_qualified does: any number of times, one event. "
        "Accounts without a referral are counted and left alone. Exit code 0 if every account was found, 3 if some "
        "were not (each is named on standard error, the others are done), 1 if it failed, 2 for wrong arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "accounts",
            nargs="*",
            metavar="ACCOUNT",
            help="usernames, exactly; - reads them from standard input, one a line (empty lines and those that begin "
            "with '# ' are passed over)",
        )
        parser.add_argument(
            "--by",
            metavar="FIELD",
            help="what ACCOUNT is: username (if nothing is said, even if it looks like a key), pk, or another field of "
            "your user model",
        )
        parser.add_argument("--server", metavar="ALIAS", help="for accounts with referrals on several servers")
        parser.add_argument("--dry-run", action="store_true", help="write nothing, only say what would be done")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["accounts"]:
            raise _wrong("Name at least one account, or give - to read them from standard input, one a line.")
        self._missing = 0
        name, field = _field(options["by"])
        keys = self._keys(_given(options["accounts"]), name, field)
        qualify = would_qualify if options["dry_run"] else mark_qualified_many
        try:
            done = qualify(keys, server=options["server"])
        except UnknownServerError as error:
            raise _wrong(str(error)) from error
        except ConfigError as error:
            raise CommandError(str(error)) from error
        except SeveralServersError as error:
            again = "Say which with --server ALIAS, for all of them again: what is done already is not done twice."
            raise _wrong(f"{error} {again}") from error
        self._tell(done, "would be qualified" if options["dry_run"] else "qualified")

    def _tell(self, done: Qualified, verb: str) -> None:
        counts = {"before": done.before, "ended": done.ended, "not referred": done.unreferred, "unknown": self._missing}
        self.stdout.write(f"{verb} now: {done.now}, " + ", ".join(f"{what}: {count}" for what, count in counts.items()))
        if self._missing:
            raise CommandError(
                "Not every account was found: see above. They are taken for usernames unless --by says otherwise "
                "(--by pk for keys).",
                returncode=UNKNOWN,
            )

    def _keys(self, given: Iterator[str], name: str, field: Field[Any, Any]) -> Iterator[Any]:
        """The primary keys, by a query for each batch; who is not found is named."""
        model = get_user_model()
        accounts = model._default_manager.using(router.db_for_write(model))
        while batch := list(islice(given, BATCH)):
            wanted = {}
            for text in batch:
                try:
                    wanted[read(field, text)] = text
                except ValueError:
                    self._miss(text, "no account has such a value")
            found: dict[Any, list[Any]] = {}
            for value, pk in accounts.filter(**{f"{name}__in": list(wanted)}).values_list(name, "pk"):
                found.setdefault(value, []).append(pk)
            for value, text in wanted.items():
                # Compared here, too: databases that ignore case would give another one's account.
                pks = found.get(value, [])
                if len(pks) == 1:
                    yield pks[0]
                else:
                    self._miss(text, "several accounts have it" if pks else "there is no such account")

    def _miss(self, text: str, why: str) -> None:
        self._missing += 1
        self.stderr.write(f"{text!r}: {why}")


def _field(by: str | None) -> tuple[str, Field[Any, Any]]:
    """How the field is named in a query, and the field."""
    model = get_user_model()
    if by == "pk":
        return by, key_field()
    field = identifying(model.USERNAME_FIELD if by is None else by)
    if field is None:
        names = ", ".join(suggested())
        raise _wrong(f"--by takes username, pk, or another field of {model._meta.label}, such as {names}.")
    return field.name, field


def _wrong(text: str) -> CommandError:
    return CommandError(text, returncode=WRONG)


def _given(accounts: Iterable[str]) -> Iterator[str]:
    for account in accounts:
        if account == "-":
            yield from _lines()
        else:
            yield account


def _lines() -> Iterator[str]:
    for line in getattr(sys.stdin, "buffer", sys.stdin):
        text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
        text = text.removeprefix("\ufeff").strip()
        if text and text != "#" and not text.startswith("# "):
            yield text
