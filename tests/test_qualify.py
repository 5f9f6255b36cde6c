"""``mmolove_qualify``: whom a game server names, and what it is told."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_mmolove_referral.models import OutboundEvent

from .databases import running_url
from .factories import ReferralFactory, UserFactory
from .pages import ROOT
from .test_milestones import EU, players, written
from .visitors import OWN_USER_MODEL

pytestmark = pytest.mark.django_db
only_auth_user = pytest.mark.skipif(OWN_USER_MODEL, reason="about auth.User")


def named(name: str, **fields: Any) -> Any:
    """A referred account called ``name``."""
    return ReferralFactory.create(user=UserFactory.create(name=name), **fields).user


class Said:
    """What the command printed, and its exit code."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        out, err = io.StringIO(), io.StringIO()
        self.code, self.error = 0, ""
        try:
            call_command("mmolove_qualify", *map(str, arguments), stdout=out, stderr=err, **options)
        except CommandError as error:
            self.code, self.error = error.returncode, str(error)
        self.out, self.err = out.getvalue(), err.getvalue()


def counts(
    now: int, *, before: int = 0, ended: int = 0, unreferred: int = 0, unknown: int = 0, dry: bool = False
) -> str:
    return (
        f"{'would be ' * dry}qualified now: {now}, before: {before}, ended: {ended}, not referred: {unreferred}, "
        f"unknown: {unknown}\n"
    )


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))

    return give


# -- who is meant


def test_by_username() -> None:
    bob, carol = named("bob"), named("carol")
    said = Said("bob")
    assert (said.out, said.err, said.code) == (counts(1), "", 0)
    assert written() == {bob.pk}
    assert Said("bob", "carol").out == counts(1, before=1)
    assert Said("bob", "carol").out == counts(0, before=2), "any number of times, one event"
    assert OutboundEvent.objects.count() == 2
    assert written() == {bob.pk, carol.pk}


def test_by_key() -> None:
    bob = named("bob")
    assert Said("--by", "pk", bob.pk).out == counts(1)
    assert Said(bob.pk, by="pk").out == counts(0, before=1)


def test_a_numeric_username_is_not_taken_for_a_key() -> None:
    """Nor the other way round: what is meant has to be said."""
    bob = named("bob")
    number = named(str(bob.pk))
    assert Said(bob.pk).out == counts(1)
    assert written() == {number.pk}
    assert Said("--by", "pk", bob.pk).out == counts(1)
    assert written() == {number.pk, bob.pk}


def test_a_key_without_by_is_unknown_and_told_how_to_be_said() -> None:
    bob = named("bob")
    said = Said(bob.pk)
    assert (said.code, written()) == (3, set())
    assert said.err == f"'{bob.pk}': there is no such account\n"
    assert "--by pk for keys" in said.error


@only_auth_user
def test_by_another_field_which_has_to_name_one_account() -> None:
    model = get_user_model()
    bob, carol, dave = named("bob"), named("carol"), named("dave")
    for user, discord in ((bob, "b#1"), (carol, "twin"), (dave, "twin")):
        model._default_manager.filter(pk=user.pk).update(first_name=discord)
    said = Said("--by", "first_name", "b#1", "twin", "nobody")
    assert (said.out, said.code) == (counts(1, unknown=2), 3)
    assert said.err == "'twin': several accounts have it\n'nobody': there is no such account\n"
    assert written() == {bob.pk}


@only_auth_user
@pytest.mark.parametrize("by", ["discord_id", "groups", "mmolove_referrals", "username__contains", "", "pk__in"])
def test_a_field_that_there_is_not_is_refused_with_those_that_there_are(by: str) -> None:
    said = Said("--by", by, "bob")
    assert said.code == 2
    label = get_user_model()._meta.label
    assert said.error == f"--by takes username, pk, or another field of {label}, such as id, username, email."


def test_nobody_is_named_by_their_password() -> None:
    bob = named("bob")
    said = Said("--by", "password", bob.password)
    assert (said.code, written()) == (2, set())


def test_names_are_compared_exactly_whatever_the_database_does() -> None:
    named("bob")
    named("zoë")
    said = Said("Bob", "bob ", "zoe", "BOB")
    assert (said.out, said.code) == (counts(0, unknown=4), 3)
    assert written() == set()


@pytest.mark.parametrize(
    "garbage", ["a\0b", "\0", "\udcff", "x" * 100_000, "'; DROP TABLE", "\x1b[31m", "1e3", "1_0", "٣", "-1", "9" * 40]
)
@pytest.mark.parametrize("by", ["username", "pk"])
def test_garbage_is_unknown_and_named_in_a_line(garbage: str, by: str) -> None:
    bob = named("bob")
    said = Said("--by", by, "--", garbage, bob.pk if by == "pk" else "bob")
    assert (said.out, said.code) == (counts(1, unknown=1), 3)
    assert said.err.startswith(f"{garbage!r}: ")
    assert said.err.count("\n") == 1
    assert said.err.removesuffix("\n").isprintable()


def test_every_sort_of_account_is_counted() -> None:
    named("now")
    ReferralFactory.create(user=UserFactory.create(name="ended"), state="conflict")
    UserFactory.create(name="unreferred")
    named("before")
    Said("before")
    everybody = ("now", "before", "ended", "unreferred", "nobody")
    expected: dict[str, Any] = {"before": 1, "ended": 1, "unreferred": 1, "unknown": 1}
    dry = Said(*everybody, "--dry-run")
    assert (dry.out, dry.code) == (counts(1, dry=True, **expected), 3)
    assert OutboundEvent.objects.count() == 1
    said = Said(*everybody)
    assert (said.out, said.code, said.err) == (counts(1, **expected), 3, "'nobody': there is no such account\n")
    assert OutboundEvent.objects.count() == 2
    assert Said("now", "before", "ended", "unreferred").code == 0


# -- standard input


def test_from_standard_input(standard_input: Callable[[bytes], None]) -> None:
    for name in ("bob", "carol", "zoë", "#tag"):
        named(name)
    standard_input(b"\xef\xbb\xbfbob\r\n\r\n# level 10 yesterday\n  carol\t\n#\nzo\xc3\xab\n   \n#tag\nbob")
    said = Said("-")
    assert (said.out, said.err, said.code) == (counts(4), "", 0)


def test_from_both(standard_input: Callable[[bytes], None]) -> None:
    for name in ("bob", "carol", "dave"):
        named(name)
    standard_input(b"carol\n")
    assert Said("bob", "-", "dave").out == counts(3)


def test_nobody(standard_input: Callable[[bytes], None]) -> None:
    said = Said()
    assert (said.code, said.error) == (
        2,
        "Name at least one account, or give - to read them from standard input, one a line.",
    )
    standard_input(b"\n\n")
    assert (Said("-").out, Said("-").code) == (counts(0), 0)


def test_bytes_that_are_no_text_are_unknown(standard_input: Callable[[bytes], None]) -> None:
    named("bob")
    standard_input(b"\xff\xfe\nb\0o\0b\0\nbob\n")
    said = Said("-")
    assert (said.out, said.code) == (counts(1, unknown=2), 3)


def test_a_text_stream_in_place_of_standard_input_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    named("bob")
    monkeypatch.setattr(sys, "stdin", io.StringIO("bob\n"))
    assert Said("-").out == counts(1)


@only_auth_user
def test_a_hundred_thousand_lines_are_read_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    players(2_000)
    taken: list[int] = []
    names = list(get_user_model()._default_manager.order_by("pk").values_list("username", flat=True))

    class Pipe(io.StringIO):
        def __iter__(self) -> Any:
            for number in range(100_000):
                taken.append(len(written()) if number % 1_000 == 0 else -1)
                yield f"{names[number // 50]}\n"

    monkeypatch.setattr(sys, "stdin", Pipe())
    with CaptureQueriesContext(connection) as queries:
        said = Said("-")
    assert (said.err, said.code) == ("", 0)
    assert said.out.startswith("qualified now: 2000, ")
    assert taken[50_000] > 0, "the first were written before the last were read"
    assert len(queries) < 100 * 30
    assert len(written()) == 2_000


# -- several servers


def test_an_account_on_several_servers(configure: Callable[..., None]) -> None:
    configure(SERVERS={"eu": EU})
    bob = named("bob")
    ReferralFactory.create(user=bob, server="eu")
    said = Said("bob")
    assert (said.code, written()) == (2, set())
    assert said.error == (
        f"The account {bob.pk} has referrals on several servers; say which with server=…: 'default', 'eu'. "
        "Say which with --server ALIAS, for all of them again: what is done already is not done twice."
    )
    assert Said("bob", "--server", "eu").out == counts(1)
    assert OutboundEvent.objects.get().server == "eu"
    said = Said("bob", "--server", "atlantis")
    assert (said.code, said.error) == (
        2,
        "There is no server 'atlantis' in MMOLOVE_REFERRAL['SERVERS']; there is 'default', 'eu'.",
    )


# -- as a game server sees it


@pytest.mark.django_db(transaction=True)
def test_in_a_shell() -> None:
    """Its exit codes, in a process of its own."""
    named("bob")
    environment = {**os.environ, "DATABASE_URL": running_url(), "DJANGO_SETTINGS_MODULE": "tests.settings"}

    def shell(*arguments: str, given: str = "") -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "django", "mmolove_qualify", *arguments],
            input=given.encode(),
            capture_output=True,
            cwd=Path(ROOT),
            env=environment,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    assert shell("-", given="bob\n") == (0, counts(1), "")
    code, out, err = shell("bob", "nobody")
    assert (code, out) == (3, counts(0, before=1, unknown=1))
    assert err.startswith("'nobody': there is no such account\nCommandError: Not every account was found")
    assert shell()[0] == 2
    assert shell("--by", "nope", "bob")[0] == 2
    assert shell("--server", "atlantis", "bob")[0] == 2
    assert shell("--nonsense")[0] == 2


def test_settings_that_cannot_be_read_are_no_wrong_argument(settings: Any) -> None:
    """Somebody mends them, and the same call does it."""
    named("bob")
    settings.MMOLOVE_REFERRAL = {"SERVERS": 5}
    assert Said("--server", "eu", "bob").code == 1
