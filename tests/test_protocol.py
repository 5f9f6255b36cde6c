"""The wire: bytes, signatures and the meaning of answers."""

from __future__ import annotations

import copy
import html
import json
import pickle
import traceback
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_mmolove_referral import masking, protocol
from django_mmolove_referral.protocol import Credentials, Kind, Outcome, Secret, Verdict

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "signatures.json").read_text("utf-8"))
SECRET = Secret("topsecret")
BODY = b'{"event":"qualified"}'
NOW = 1_800_000_000.0

text = st.text(st.characters(exclude_categories=["Cs"]))
key_ids = st.from_regex(protocol.KEY_ID, fullmatch=True)


# -- vectors made with other tools


def test_there_are_vectors() -> None:
    assert len(VECTORS) == 10


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_signatures_are_those_of_other_tools(vector: dict[str, Any]) -> None:
    secret, body, t = Secret(vector["secret"]), vector["body"].encode(), vector["t"]
    assert protocol.sign(secret, body, t) == vector["header"]
    assert protocol.verify(secret, body, vector["header"], now=t)


def of_our_shape(vector: dict[str, Any]) -> bool:
    ours = ["event", "server_id", "ts", "token", "referee_identity", "server_event_id"]
    try:
        keys = list(json.loads(vector["body"]))
    except ValueError:
        return False
    return keys in (ours, [key for key in ours if key != "referee_identity"]) and "\n" not in vector["body"]


OF_OUR_SHAPE = [vector for vector in VECTORS if of_our_shape(vector)]


@pytest.mark.parametrize("vector", OF_OUR_SHAPE, ids=lambda vector: vector["name"])
def test_bodies_are_those_of_other_tools(vector: dict[str, Any]) -> None:
    fields = json.loads(vector["body"])
    assert protocol.encode(Kind(fields.pop("event")), **fields) == vector["body"].encode()


def test_enough_vectors_have_our_shape() -> None:
    assert len(OF_OUR_SHAPE) == 6


# -- signatures


@given(st.text(min_size=1), st.binary(), st.integers(0, 10**12 - 1), st.just("") | key_ids)
def test_what_is_signed_verifies(secret: str, body: bytes, t: int, key_id: str) -> None:
    header = protocol.sign(Secret(secret), body, t, key_id)
    assert header.endswith(f",kid={key_id}" if key_id else header[-64:])
    assert protocol.verify(Secret(secret), body, header, now=t)


@given(st.binary(min_size=1), st.data())
def test_another_body_does_not_verify(body: bytes, data: st.DataObject) -> None:
    where = data.draw(st.integers(0, len(body) - 1))
    other = bytearray(body)
    other[where] ^= data.draw(st.integers(1, 255))
    header = protocol.sign(SECRET, body, 1_800_000_000)
    assert not protocol.verify(SECRET, bytes(other), header, now=NOW)


@given(st.data())
def test_another_header_does_not_verify(data: st.DataObject) -> None:
    header = protocol.sign(SECRET, BODY, 1_800_000_000)
    where = data.draw(st.integers(0, len(header)))
    kept = data.draw(st.integers(0, 1))  # insert or replace
    other = header[:where] + data.draw(st.characters(exclude_categories=["Cs"])) + header[where + kept :]
    assert protocol.verify(SECRET, BODY, other, now=NOW) is (other == header)


@given(st.text(min_size=1))
def test_another_secret_does_not_verify(other: str) -> None:
    header = protocol.sign(SECRET, BODY, 1_800_000_000)
    assert protocol.verify(Secret(other), BODY, header, now=NOW) is (other == "topsecret")


@pytest.mark.parametrize("t", [1_700_000_000, 1_900_000_000])
def test_another_time_does_not_verify(t: int) -> None:
    header = protocol.sign(SECRET, BODY, 1_800_000_000).replace("1800000000", str(t))
    assert not protocol.verify(SECRET, BODY, header, now=t)


@pytest.mark.parametrize(
    ("ahead", "valid"), [(0, True), (300, True), (-300, True), (300.5, False), (-300.5, False), (1e12, False)]
)
def test_the_replay_window(ahead: float, valid: bool) -> None:
    header = protocol.sign(SECRET, BODY, int(NOW))
    assert protocol.verify(SECRET, BODY, header, now=NOW + ahead) is valid


@given(st.text())
def test_no_header_makes_verify_raise(header: str) -> None:
    assert not protocol.verify(SECRET, BODY, header, now=NOW)


@pytest.mark.parametrize("key_id", ["", "a b", "a,b", "é", "a\n", "x" * 129])
def test_what_is_no_key_id(key_id: str) -> None:
    assert not protocol.KEY_ID.fullmatch(key_id)
    header = f"{protocol.sign(SECRET, BODY, int(NOW))},kid={key_id}"
    assert not protocol.verify(SECRET, BODY, header, now=NOW)


# -- secrets

HIDDEN = "5ec2e7-t0psecret"


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(HIDDEN)
    credentials = Credentials("srv_1", secret)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", "%s" % secret, repr(credentials)]  # noqa: UP031
    shown += [repr([secret]), repr(vars(credentials)), str(dir(secret))]
    assert not any(HIDDEN in text for text in shown)
    assert repr(secret) == "Secret('********')"
    assert repr(Secret("")) == "Secret('')"


@pytest.mark.parametrize("carry", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_is_not_carried_away(carry: Any) -> None:
    with pytest.raises(TypeError) as caught:
        carry(Secret(HIDDEN))
    assert HIDDEN not in str(caught.value)


def test_a_traceback_with_local_variables_does_not_show_a_secret() -> None:
    secret = Secret(HIDDEN)
    try:
        protocol.sign(secret, None, 0)  # type: ignore[arg-type]
    except TypeError as error:
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "Secret('********')" in told
    assert HIDDEN not in told.replace(f"HIDDEN = {HIDDEN!r}", "")


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a")
    assert not Secret("")


# -- bodies


@given(st.sampled_from(Kind), text, text, text, st.integers(0, 2**40), text, st.booleans())
def test_a_body_says_what_it_was_given(
    kind: Kind, token: str, server_id: str, server_event_id: str, ts: int, identity: str, test: bool
) -> None:
    body = protocol.encode(
        kind,
        token=token,
        server_id=server_id,
        server_event_id=server_event_id,
        ts=ts,
        referee_identity=identity,
        test=test,
    )
    expected = {
        "event": kind.value,
        "server_id": server_id,
        "ts": ts,
        "token": token,
        "server_event_id": server_event_id,
        **({"referee_identity": identity} if kind is Kind.REGISTERED else {}),
        **({"test": True} if test else {}),
    }
    assert protocol.parse_object(body) == json.loads(body.decode()) == expected
    assert protocol.server_id_of(body) == server_id


@given(st.sampled_from(Kind), text, text, text, text, st.booleans())
def test_another_server_id_changes_nothing_else(
    kind: Kind, token: str, one: str, other: str, identity: str, test: bool
) -> None:
    def body(server_id: str) -> bytes:
        return protocol.encode(
            kind,
            token=token,
            server_id=server_id,
            server_event_id="e",
            ts=1,
            referee_identity=identity,
            test=test,
        )

    assert protocol.with_server_id(body(one), other) == body(other)


def test_what_utf_8_cannot_hold_is_no_event() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        protocol.encode(Kind.QUALIFIED, token="\ud800", server_id="s", server_event_id="e", ts=1)


# -- answers

HTML = b"<!doctype html><title>Just a moment</title>"
REFUSAL = b'{"error":"nope"}'
ACCEPTED, REFUSED, SUSPECT, FAULT = Verdict.ACCEPTED, Verdict.REFUSED, Verdict.SUSPECT, Verdict.FAULT


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (400, REFUSAL, REFUSED),
        (422, REFUSAL, REFUSED),
        (400, b"", REFUSED),
        (400, HTML, FAULT),
        (422, HTML, FAULT),
        *((status, REFUSAL, SUSPECT) for status in (401, 402, 403, 404, 405, 409, 410, 413, 418, 451, 499)),
        *((status, HTML, FAULT) for status in (401, 403, 404)),
        *((status, b"", SUSPECT) for status in (300, 301, 302, 303, 304, 307, 308)),
        *((status, HTML, SUSPECT) for status in (301, 302, 307, 308)),
        *((status, REFUSAL, FAULT) for status in (408, 425, 429)),
        *((status, REFUSAL, FAULT) for status in (500, 501, 502, 503, 504, 520, 599)),
        *((status, b'{"ok":true}', FAULT) for status in (100, 101, 103, 201, 202, 204, 206, 299, 500, 600, 999)),
        (200, b"", FAULT),
        (200, HTML, FAULT),
        (200, b"ok", FAULT),
        (200, b"[]", FAULT),
        (200, b"{}", FAULT),
        (200, b'{"ok":false}', FAULT),
        (200, b'{"ok":1}', FAULT),
        (200, b'{"ok":"true"}', FAULT),
        (200, b'{"ok":true,"test":true}', FAULT),
        (200, b'{"ok":true', FAULT),
        (200, b'{"ok":true}', ACCEPTED),
        (200, b'\xef\xbb\xbf{"ok":true}', ACCEPTED),
        (200, b' {"ok": true, "test": false, "unknown": [1]}\n', ACCEPTED),
    ],
)
@pytest.mark.parametrize("kind", Kind)
def test_verdicts(kind: Kind, status: int, body: bytes, verdict: Verdict) -> None:
    answer = protocol.classify(kind, status, body)
    assert answer.verdict is verdict
    assert bool(answer.error) is (verdict is not ACCEPTED)
    assert "\n" not in answer.error


@pytest.mark.parametrize(
    ("body", "outcome", "pays"),
    [
        (b'{"ok":true,"referral_id":"r","state":"qualified"}', Outcome.ADVANCED, True),
        (b'{"ok":true}', Outcome.ADVANCED, True),
        (b'{"ok":true,"state":null}', Outcome.ADVANCED, True),
        (b'{"ok":true,"duplicate":true}', Outcome.DUPLICATE, True),
        (b'{"ok":true,"duplicate":true,"state":"qualified"}', Outcome.DUPLICATE, True),
        (b'{"ok":true,"ignored":"first_touch_conflict"}', Outcome.IGNORED, False),
        (b'{"ok":true,"ignored":"x","duplicate":true,"state":"qualified"}', Outcome.IGNORED, False),
        (b'{"ok":true,"state":"registered"}', Outcome.OTHER_STATE, False),
        (b'{"ok":true,"duplicate":true,"state":"reversed"}', Outcome.OTHER_STATE, False),
        (b'{"ok":true,"state":["qualified"]}', Outcome.OTHER_STATE, False),
    ],
)
def test_outcomes_of_a_qualified(body: bytes, outcome: Outcome, pays: bool) -> None:
    answer = protocol.classify(Kind.QUALIFIED, 200, body)
    assert (answer.verdict, answer.outcome, answer.pays) == (ACCEPTED, outcome, pays)


@pytest.mark.parametrize("body", [b'{"ok":true,"test":true}', b'{"ok":true}'])
def test_an_accepted_dry_run(body: bytes) -> None:
    answer = protocol.classify(Kind.REGISTERED, 200, body, test=True)
    assert (answer.verdict, answer.outcome, answer.pays) == (ACCEPTED, Outcome.DRY_RUN, False)


def test_a_refusal_does_not_pay() -> None:
    answer = protocol.classify(Kind.QUALIFIED, 404, REFUSAL)
    assert (answer.outcome, answer.pays, answer.referral_id) == (None, False, "")


@pytest.mark.parametrize("content_type", ["text/html", "TEXT/HTML; charset=utf-8"])
def test_the_label_does_not_make_json_html(content_type: str) -> None:
    def verdict(status: int, body: bytes) -> Verdict:
        return protocol.classify(Kind.REGISTERED, status, body, content_type=content_type).verdict

    assert verdict(200, b'{"ok":true}') is ACCEPTED
    assert verdict(400, REFUSAL) is REFUSED
    assert verdict(401, REFUSAL) is SUSPECT
    assert verdict(400, b"Bad request") is FAULT


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b'{"error":"bad_signature"}', "HTTP 401: bad_signature"),
        (400, b'{"error":"a\\nb\\u0000c\\ud800"}', "HTTP 400: a b c?"),
        (400, b'{"error":{"code":1}}', 'HTTP 400: {"error":{"code":1}}'),
        (502, HTML, "HTTP 502 with an HTML page"),
        (503, b"", "HTTP 503"),
        (503, b" \n", "HTTP 503"),
        (503, b"over\nload \xff", "HTTP 503: over load \N{REPLACEMENT CHARACTER}"),
        (
            200,
            HTML,
            "HTTP 200, but an HTML page: a proxy or CDN seems to answer in MMOLove's place",
        ),
        (
            200,
            b"[]",
            "HTTP 200, but not MMOLove's JSON: a proxy or CDN seems to answer in MMOLove's place",
        ),
        (
            200,
            b"{}",
            "HTTP 200, but JSON without ok: true: a proxy or CDN seems to answer in MMOLove's place",
        ),
        (200, b'{"ok":true,"test":true}', "HTTP 200, but as a dry run: the event was not recorded"),
    ],
)
def test_errors(status: int, body: bytes, error: str) -> None:
    assert protocol.classify(Kind.REGISTERED, status, body).error == error


@pytest.mark.parametrize(
    ("status", "body", "kept"), [(503, b"", 7.0), (429, b"", 7.0), (200, b"", 7.0), (401, b"", None), (400, b"", None)]
)
def test_only_a_fault_is_to_be_left_alone(status: int, body: bytes, kept: float | None) -> None:
    assert protocol.classify(Kind.REGISTERED, status, body, retry_after=7.0).retry_after == kept


def test_the_fields_kept_are_few_short_and_storable() -> None:
    answer = protocol.classify(
        Kind.REGISTERED,
        200,
        json.dumps(
            {
                "ok": True,
                "referral_id": "r\x00" + "x" * 1000,
                "big": 10**30,
                "infinite": float("inf"),
                "list": [1],
                "object": {},
                "null": None,
                "float": 1.5,
                "k\x00": 1,
                **{f"n{number}": number for number in range(100)},
            }
        ).encode(),
    )
    assert answer.referral_id == "r " + "x" * 498
    assert answer.fields["null"] is None
    assert answer.fields["float"] == 1.5
    assert answer.fields["k "] == 1
    assert not {"big", "infinite", "list", "object"} & answer.fields.keys()
    assert len(answer.fields) <= 20


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=5
)
answer_bodies = st.binary() | st.dictionaries(
    st.sampled_from(["ok", "state", "ignored", "duplicate", "test", "error", "referral_id"]) | st.text(), json_values
).map(lambda value: json.dumps(value).encode())


@given(st.sampled_from(Kind), st.integers(100, 999), answer_bodies, st.text(), st.booleans())
def test_nothing_makes_classify_raise(kind: Kind, status: int, body: bytes, content_type: str, test: bool) -> None:
    answer = protocol.classify(kind, status, body, content_type=content_type, test=test)
    assert answer.error.isprintable()
    assert bool(answer.error) is (answer.verdict is not ACCEPTED)
    assert not (answer.pays and status != 200)
    json.dumps(answer.fields, allow_nan=False).encode()
    "".join(str(value) for value in answer.fields.values()).encode()
    assert isinstance(answer.referral_id, str)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"9" * 5000 + b"}"])
def test_json_made_to_hurt(body: bytes) -> None:
    assert protocol.classify(Kind.REGISTERED, 200, body).verdict is FAULT


# -- Retry-After and Date


def http_date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, timezone.utc), usegmt=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 1.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("9" * 400, 3600.0),
        ("0" * 20 + "5", 5.0),
        (http_date(NOW + 90), 90.0),
        (http_date(NOW + 1e6), 3600.0),
        (http_date(NOW - 90), 1.0),
        (http_date(NOW), 1.0),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert protocol.parse_retry_after(value, NOW) == seconds


@given(st.text() | st.datetimes(timezones=st.timezones()).map(str), st.floats(0, 1e12))
def test_nothing_makes_parse_retry_after_raise(value: str, now: float) -> None:
    seconds = protocol.parse_retry_after(value, now)
    assert seconds is None or 1.0 <= seconds <= 3600.0


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("Fri, 15 Jan 2027 08:00:00 GMT", 1_800_000_000.0),
        ("Friday, 15-Jan-27 08:00:00 GMT", 1_800_000_000.0),
        ("Fri Jan 15 08:00:00 2027", 1_800_000_000.0),
        ("Fri, 15 Jan 2027 09:00:00 +0100", 1_800_000_000.0),
        ("Fri, 15 Jan 2027 08:00:00 -0000", 1_800_000_000.0),
        ("Fri, 99 Jan 2027 08:00:00 GMT", None),
        ("Fri, 15 Jan 99999999999 08:00:00 GMT", None),
        ("Fri, 15 Jan 2027 08:00:00 +9999999999", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates(value: str, at: float | None) -> None:
    assert protocol.parse_date(value) == at


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,20} [A-Z][a-z]{2} \d{1,20} \d+:\d+:\d+ [+-]?[\dA-Z]{1,20}"))
def test_nothing_makes_parse_date_raise(value: str) -> None:
    protocol.parse_date(value)


@given(st.text(), st.integers(0, 600))
def test_printable(value: str, limit: int) -> None:
    shown = masking.printable(value, limit)
    assert shown.isprintable()
    assert len(shown) == min(len(value), limit)
    shown.encode()


# -- masking

tokens = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=60)


@given(tokens)
def test_a_token_is_masked_however_an_answer_spells_it(token: str) -> None:
    """A portal's own body is JSON; an answer may repeat the token as JSON of another make, in HTML, in an address."""
    spellings = [token, json.dumps(token), json.dumps(token).replace("/", r"\/"), html.escape(token), quote(token, "")]
    for spelling in spellings:
        said = f"no such token: {spelling}."
        assert spelling.strip('"') not in masking.masked(said, token)
        assert spelling.strip('"').encode() not in masking.Blot(token).body(said.encode())
        assert masking.Blot(token).text(said) == masking.masked(said, token)


@given(st.text(), st.binary())
def test_without_a_token_nothing_is_masked(said: str, sent: bytes) -> None:
    assert masking.masked(said, "") == said
    assert masking.Blot().body(sent) == sent
