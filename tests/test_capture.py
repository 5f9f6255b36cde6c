"""What can be a token or a code, and how a visit's record in the session behaves."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_mmolove_referral.capture import SESSION_KEY, Visit
from django_mmolove_referral.record import CODE_LIFETIME, Captured, Record, usable_code, usable_token

examples = hypothesis_settings(deadline=None)

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
NOW = 1_800_000_000

tokens = st.text(VISIBLE, min_size=1, max_size=40) | st.just("a" * 1024)
codes = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).filter(lambda text: usable_code(text) == text)
moments = st.integers(0, 2**40 - 1)
records = st.builds(
    Record,
    token=st.just("") | tokens,
    server=st.text(string.ascii_letters),
    at=moments,
    code=st.just("") | codes,
    noted=st.dictionaries(st.text(string.ascii_letters), st.tuples(codes, moments), max_size=3),
    used=st.lists(st.text(string.hexdigits, min_size=1), max_size=20),
    owed_to=st.text(string.ascii_letters + string.digits),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*Record.__dataclass_fields__, "other"]), inner, max_size=5)
    ),
    max_leaves=8,
)


# -- tokens and codes


@pytest.mark.parametrize("token", ["x", VISIBLE, "a" * 1024, "eyJ0.e_-~+/=", "%", "%zz", "%0d"])
def test_visible_ascii_up_to_1024_characters_can_be_a_token(token: str) -> None:
    assert usable_token(token) == token


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "a" * 1025,
        "a" * 1_000_000,
        " ",
        "a b",
        "a\tb",
        "a\n",
        "\na",
        "a\r\nb",
        "a\x00",
        "a\x7f",
        "ä",
        "a\u2028",
        "a\ud800",
        "\uff41",
        None,
        5,
        True,
        b"bytes",
        ["a"],
        {"a": 1},
    ],
)
def test_nothing_else_can_be_a_token(raw: object) -> None:
    assert usable_token(raw) is None


@pytest.mark.parametrize(
    "code", ["7", "alice", "älice", "アリス", "😀", "a" * 255, "a+b", "a&b=c", "50%", "a?b#c", "..."]
)
def test_printable_text_up_to_255_characters_can_be_a_code(code: str) -> None:
    assert usable_code(code) == code


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "a" * 256,
        "a b",
        " a",
        "a/b",
        "a\\b",
        "a\x00",
        "a\tb",
        "a\r\nb",
        "a\u00a0b",
        "a\u200bb",
        "a\ud800",
        ".",
        "..",
        None,
        5,
        b"a",
        ["a"],
    ],
)
def test_nothing_else_can_be_a_code(raw: object) -> None:
    assert usable_code(raw) is None


# -- the record


@examples
@given(records)
def test_a_record_survives_the_session(record: Record) -> None:
    assert Record.load(json.loads(json.dumps(vars(record)))) == record
    without_blanks = {key: value for key, value in vars(record).items() if value}
    assert Record.load(json.loads(json.dumps(without_blanks))) == record


@examples
@given(json_values, tokens)
def test_any_json_in_the_session_reads_as_a_record_that_works(raw: object, token: str) -> None:
    record = Record.load(raw)
    assert record.token == "" or usable_token(record.token)
    assert record.code == "" or usable_code(record.code)
    assert all(usable_code(code) for code, _at in record.noted.values())
    moments = [record.at, *(at for _code, at in record.noted.values())]
    assert all(type(moment) is int and moment >= 0 for moment in moments)
    record.take(token, "default", NOW)
    record.use_up(token)
    assert record.take(token, "default", NOW) is False
    assert Record.load(json.loads(json.dumps(vars(record)))) == record


@pytest.mark.parametrize(
    "raw", [None, True, 5, 1.5, "text", [], ["token"], {}, {"token": 5}, {"token": "a b"}, {"at": "now"}]
)
def test_rubbish_in_the_session_reads_as_a_blank_record(raw: object) -> None:
    assert Record.load(raw) == Record()


@pytest.mark.parametrize("value", [-1, 2**40, 10**30, "5", 1.5, None, True])
def test_a_moment_that_is_none_reads_as_long_ago(value: object) -> None:
    assert Record.load({"at": value, "noted": value}) == Record()


def test_a_record_remembers_the_last_twenty_used_tokens() -> None:
    record = Record()
    for n in range(21):
        record.use_up(f"tok-{n}")
    assert record.take("tok-0", "default", NOW) is True
    assert [record.take(f"tok-{n}", "default", NOW) for n in range(1, 21)] == [False] * 20


def test_using_a_token_up_again_forgets_no_other() -> None:
    record = Record()
    for n in range(20):
        record.use_up(f"tok-{n}")
    record.use_up("tok-19")
    assert record.take("tok-0", "default", NOW) is False


def test_using_up_an_older_token_keeps_the_one_that_came_since() -> None:
    record = Record()
    record.take("tok-2", "default", NOW)
    record.use_up("tok-1")
    assert record.token == "tok-2"


def test_of_a_used_token_the_session_keeps_a_fingerprint_only() -> None:
    record = Record(noted={"default": ("alice", NOW)})
    record.take("tok-1", "default", NOW)
    record.owed_to = "7"
    record.use_up("tok-1")
    assert record == Record(server="default", used=record.used)
    assert "tok-1" not in json.dumps(vars(record))


def test_the_same_token_again_changes_nothing() -> None:
    record = Record()
    assert record.take("tok-1", "default", NOW) is True
    assert record.take("tok-1", "default", NOW + 50) is False
    assert record.at == NOW


def test_the_same_token_for_another_server_is_taken() -> None:
    record = Record()
    record.take("tok-1", "eu", NOW)
    assert record.take("tok-1", "us", NOW) is True
    assert record.server == "us"


@pytest.mark.parametrize(("after", "code"), [(0, "alice"), (CODE_LIFETIME, "alice"), (CODE_LIFETIME + 1, "")])
def test_a_token_takes_the_code_noted_shortly_before_it(after: int, code: str) -> None:
    record = Record(noted={"default": ("alice", NOW)})
    record.take("tok-1", "default", NOW + after)
    assert record.code == code


def test_a_code_belongs_to_one_token_only() -> None:
    record = Record(noted={"default": ("alice", NOW)})
    record.take("tok-1", "default", NOW)
    record.take("tok-2", "default", NOW)
    assert (record.token, record.code) == ("tok-2", "")


def test_a_token_that_came_without_a_code_takes_one_when_it_comes_again_with_one() -> None:
    record = Record()
    record.take("tok-1", "default", NOW)
    record.noted["default"] = "alice", NOW + 5
    assert record.take("tok-1", "default", NOW + 9) is True
    assert record.code == "alice"


def test_a_token_keeps_the_code_that_it_came_with() -> None:
    record = Record(noted={"default": ("alice", NOW)})
    record.take("tok-1", "default", NOW)
    record.noted["default"] = "carol", NOW
    assert record.take("tok-1", "default", NOW) is False
    assert (record.code, record.noted) == ("alice", {"default": ("carol", NOW)})


# -- the visit


def visitor(session: dict[str, Any] | None = None, **attributes: Any) -> tuple[Visit, dict[str, Any]]:
    request, session = RequestFactory().get("/"), {} if session is None else session
    request.session = session  # type: ignore[assignment]  # all that a visit asks of a session
    for name, value in attributes.items():
        setattr(request, name, value)
    return Visit(request), session


def test_a_visit_keeps_to_the_session_that_the_request_came_with() -> None:
    request = RequestFactory().get("/")
    request.session = first = {}  # type: ignore[assignment,var-annotated]
    visit = Visit(request)
    request.session = {}  # type: ignore[assignment]  # what some libraries do during a sign-up
    visit.capture("tok-1")
    assert first[SESSION_KEY]["token"] == "tok-1"
    assert visit.brings() == Captured("tok-1", "default", at=first[SESSION_KEY]["at"])


def test_a_visit_that_is_over_captures_brings_and_owes_nothing() -> None:
    visit, session = visitor()
    visit.capture("tok-1")
    kept = dict(session)
    visit.request = None
    assert visit.capture("tok-2") is False
    assert visit.brings() is None
    assert visit.owes(AnonymousUser()) is None
    assert session == kept


def test_a_visit_works_without_authentication() -> None:
    visit, _ = visitor()
    visit.capture("tok-1")
    assert visit.brings() is not None


def test_an_anonymous_visitor_brings_the_token_and_a_member_does_not() -> None:
    class Member:
        is_authenticated = True

    session: dict[str, Any] = {}
    anonymous, _ = visitor(session, user=AnonymousUser())
    anonymous.capture("tok-1")
    assert anonymous.brings() is not None
    assert visitor(session, user=Member())[0].brings() is None


def test_the_user_is_not_looked_at_without_a_token() -> None:
    class Unread:
        @property
        def is_authenticated(self) -> bool:
            raise AssertionError

    assert visitor(user=Unread())[0].brings() is None


def test_tokens_show_in_no_repr() -> None:
    assert "tok-1" not in repr(Captured("tok-1"))
    assert "tok-1" not in repr(Record(token="tok-1"))


@pytest.mark.parametrize("alias", ["eu", "us"])
def test_resolve_server_says_which_server_a_visit_belongs_to(alias: str, configure: Callable[..., None]) -> None:
    server = {"SERVER_ID": "x", "SECRET": "y"}
    configure(SERVERS={"eu": server, "us": server}, RESOLVE_SERVER=lambda request: alias)
    visit, session = visitor()
    visit.capture("tok-1")
    assert session[SESSION_KEY]["server"] == alias


@pytest.mark.parametrize("answer", [None, ""])
def test_without_an_answer_of_resolve_server_the_first_server_is_it(answer: object, settings: Any) -> None:
    server = {"SERVER_ID": "x", "SECRET": "y"}
    settings.MMOLOVE_REFERRAL = {"SERVERS": {"eu": server, "us": server}, "RESOLVE_SERVER": lambda request: answer}
    visit, session = visitor()
    visit.capture("tok-1")
    assert session[SESSION_KEY]["server"] == "eu"
