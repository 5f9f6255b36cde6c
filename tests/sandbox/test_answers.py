"""Every answer of the contract, row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_mmolove_referral.sandbox import Sandbox, Server

from .portal import NOW, OTHER_SECRET, OTHER_SERVER, SECRET, SERVER, Portal, event, outcome, sign

OK_REGISTERED = (200, {"ok": True, "state": "registered"})
OK_QUALIFIED = (200, {"ok": True, "state": "qualified"})
DUPLICATE = (200, {"ok": True, "duplicate": True})
IGNORED = (200, {"ok": True, "ignored": "first_touch_conflict"})
DRY_RUN = (200, {"ok": True, "test": True})
MISSING = object()
MALFORMED: dict[str, list[Any]] = {
    "event": [MISSING, None, 1, [], {}, "", "Registered", "clicked"],
    "token": [MISSING, None, 1, True, [], "", " \t\n", "\ud800"],
    "server_id": [MISSING, None, 1, "", " "],
    "server_event_id": [MISSING, None, 1, {}, "", " ", "\udfff"],
    "referee_identity": [MISSING, None, 7842, [], "", " "],
    "ts": [None, "1733500000", True, False, [], float("inf")],
    "test": [None, "true", 0, 1, []],
}


def test_the_journey(portal: Portal) -> None:
    token = portal.mint("alice")
    assert outcome(portal.send("registered", token)) == OK_REGISTERED
    assert outcome(portal.send("qualified", token)) == OK_QUALIFIED
    (referral,) = portal.sandbox.referrals
    assert (referral.server_id, referral.referee, referral.referrer) == (SERVER, "7842", "alice")
    assert (referral.state, referral.registered_at, referral.qualified_at) == ("qualified", NOW, NOW)


def test_the_referral_id_stays(portal: Portal) -> None:
    token = portal.mint()
    ids = {portal.send(kind, token).json()["referral_id"] for kind in ("registered", "qualified")}
    assert ids == {portal.sandbox.referrals[0].id}


def test_already_in_that_state(portal: Portal) -> None:
    token = portal.mint()
    portal.send("registered", token)
    assert outcome(portal.send("registered", token, server_event_id="again")) == OK_REGISTERED
    portal.send("qualified", token)
    portal.clock.now += 60
    assert outcome(portal.send("qualified", token, server_event_id="again")) == OK_QUALIFIED
    assert portal.sandbox.referrals[0].qualified_at == NOW


def test_registered_after_qualified_changes_nothing(portal: Portal) -> None:
    token = portal.mint()
    portal.send("registered", token)
    portal.send("qualified", token)
    assert outcome(portal.send("registered", token, server_event_id="late")) == OK_QUALIFIED


@pytest.mark.parametrize("kind", ["registered", "qualified", "reversed"])
def test_duplicate(portal: Portal, kind: str) -> None:
    token = portal.mint()
    portal.send("registered", token, server_event_id="first")
    assert portal.send(kind, token).json()["state"]
    assert outcome(portal.send(kind, token)) == DUPLICATE


@pytest.mark.parametrize("other", [{"server_event_id": "reg-1"}, {"event": "qualified"}, {"token": "other"}])
def test_dedup_is_on_token_event_and_id_together(portal: Portal, other: dict[str, str]) -> None:
    fields = event("registered", portal.mint())
    portal.post(fields)
    if "token" in other:
        other = {"token": portal.mint()}
    assert "duplicate" not in portal.post({**fields, **other}).json()


def test_the_token_is_trimmed_for_dedup_too(portal: Portal) -> None:
    token = portal.mint()
    portal.send("registered", f"  {token}\n")
    assert outcome(portal.send("registered", token)) == DUPLICATE


def test_first_touch(portal: Portal) -> None:
    first, second = portal.mint("alice"), portal.mint("bob")
    portal.send("registered", first)
    assert outcome(portal.send("registered", second)) == IGNORED
    assert outcome(portal.send("registered", second)) == DUPLICATE
    assert portal.send("qualified", second).status == 422
    assert outcome(portal.send("qualified", first)) == OK_QUALIFIED
    assert [referral.referrer for referral in portal.sandbox.referrals] == ["alice"]


def test_the_same_referrer_is_no_conflict_with_himself(portal: Portal) -> None:
    first, second = portal.mint("alice"), portal.mint("alice")
    portal.send("registered", first)
    assert outcome(portal.send("registered", second)) == OK_REGISTERED
    assert outcome(portal.send("qualified", second)) == OK_QUALIFIED
    assert len(portal.sandbox.referrals) == 1


def test_identities_are_taken_as_they_are(portal: Portal) -> None:
    for identity in ("Bob", "bob", " bob", "BOB\n"):
        portal.send("registered", portal.mint(), referee_identity=identity)
    assert [referral.referee for referral in portal.sandbox.referrals] == ["Bob", "bob", " bob", "BOB\n"]


def test_first_touch_is_per_server(portal: Portal) -> None:
    portal.send("registered", portal.mint("alice"))
    there = portal.mint("bob", OTHER_SERVER)
    answer = portal.send("registered", there, server_id=OTHER_SERVER, secret=OTHER_SECRET)
    assert outcome(answer) == OK_REGISTERED


def test_two_friends_one_link(portal: Portal) -> None:
    token = portal.mint()
    for friend in ("1", "2"):
        answer = portal.send("registered", token, referee_identity=friend, server_event_id=f"reg-{friend}")
        assert outcome(answer) == OK_REGISTERED
    ids = {portal.send("qualified", token, server_event_id=f"qual-{n}").json()["referral_id"] for n in "12"}
    assert ids == {referral.id for referral in portal.sandbox.referrals if referral.state == "qualified"}
    assert len(ids) == 2


def test_reversed_is_accepted_but_changes_nothing(portal: Portal) -> None:
    token = portal.mint()
    portal.send("registered", token)
    assert outcome(portal.send("reversed", token)) == OK_REGISTERED
    assert outcome(portal.send("qualified", token)) == OK_QUALIFIED


@pytest.mark.parametrize("kind", ["qualified", "reversed"])
def test_nothing_comes_before_registered(portal: Portal, kind: str) -> None:
    token = portal.mint()
    refusal = portal.send(kind, token)
    assert (refusal.status, refusal.json()) == (422, {"error": f"illegal_transition: {kind} before registered"})
    portal.send("registered", token)
    assert portal.send(kind, token).json()["ok"] is True, "a refused event leaves no trace in dedup"


@pytest.mark.parametrize("state", ["reversed", "expired", "rejected"])
@pytest.mark.parametrize("kind", ["registered", "qualified", "reversed"])
def test_terminal_states_are_final(portal: Portal, kind: str, state: Any) -> None:
    token = portal.mint()
    portal.send("registered", token, server_event_id="first")
    assert portal.sandbox.reverse(portal.sandbox.referrals[0].id, state).terminal
    answer = portal.send(kind, token)
    if kind == state:
        assert outcome(answer) == (200, {"ok": True, "state": "reversed"})
    else:
        assert (answer.status, answer.json()) == (422, {"error": f"illegal_transition: {kind} after {state}"})
    assert portal.sandbox.referrals[0].state == state


def test_a_reversed_referral_keeps_its_referee(portal: Portal) -> None:
    portal.send("registered", portal.mint("alice"))
    portal.sandbox.reverse(portal.sandbox.referrals[0].id)
    assert outcome(portal.send("registered", portal.mint("bob"))) == IGNORED


@pytest.mark.parametrize("kind", ["registered", "qualified", "reversed"])
def test_dry_run_writes_nothing(portal: Portal, kind: str) -> None:
    token = portal.mint()
    assert outcome(portal.send(kind, token, test=True)) == DRY_RUN
    assert outcome(portal.send(kind, token, test=True)) == DRY_RUN
    assert portal.sandbox.referrals == []
    assert outcome(portal.send("registered", token)) == OK_REGISTERED


def test_test_false_is_a_real_event(portal: Portal) -> None:
    assert outcome(portal.send("registered", portal.mint(), test=False)) == OK_REGISTERED


def test_dry_run_and_the_token() -> None:
    assert outcome(Portal().send("registered", "probe", test=True)) == DRY_RUN
    strict = Portal(options={"dry_run_checks_token": True})
    assert strict.send("registered", "probe", test=True).status == 404
    assert outcome(strict.send("registered", strict.mint(), test=True)) == DRY_RUN


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *[("registered", name, value) for name, values in MALFORMED.items() for value in values],
        *[("qualified", name, MISSING) for name in ("token", "server_id", "server_event_id")],
    ],
)
@pytest.mark.parametrize("test", [False, True])
def test_malformed_fields(portal: Portal, kind: str, name: str, value: Any, test: bool) -> None:
    fields = {**event(kind, portal.mint(), test=True if test else None), name: value}
    if value is MISSING:
        del fields[name]
    refusal = portal.post(fields)
    assert refusal.status == 400
    assert list(refusal.json()) == ["error"]
    assert portal.sandbox.referrals == []


@pytest.mark.parametrize("ts", [0, -1, 1733500000.25, 10**300])
def test_any_number_will_do_as_ts(portal: Portal, ts: float) -> None:
    assert portal.send("registered", portal.mint(), ts=ts).status == 200


def test_ts_is_recommended_only_and_far_from_the_replay_window(portal: Portal) -> None:
    token = portal.mint()
    assert portal.send("registered", token, ts=None).status == 200
    assert portal.send("qualified", token, ts=NOW - 86400 * 30).status == 200


def test_unknown_fields_are_ignored_and_so_is_a_later_identity(portal: Portal) -> None:
    token = portal.mint()
    assert portal.send("registered", token, extra={"deep": [1]}, level="10").status == 200
    assert portal.send("qualified", token, referee_identity=["not", "text"]).status == 200
    assert portal.sandbox.referrals[0].referee == "7842"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"registered"',
        b"\xff\xfe",
        json.dumps(event("registered", "t", level=float("nan"))).encode(),
        json.dumps(event("registered", "t")).encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"[" * 50_000,
        json.dumps(event("registered", "t", ts=0)).replace(": 0", ": 1e999").encode(),
        b'{"ts": ' + b"9" * 5_000 + b"}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_malformed_bodies(portal: Portal, body: bytes) -> None:
    assert portal.sandbox.ingest(body, sign(SECRET, body, int(NOW))).status == 400


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("", 400),
        ("text/plain", 400),
        ("application/x-www-form-urlencoded", 400),
    ],
)
def test_content_type(portal: Portal, content_type: str, status: int) -> None:
    body = json.dumps(event("registered", portal.mint())).encode()
    answer = portal.sandbox.ingest(body, sign(SECRET, body, int(NOW)), content_type=content_type)
    assert answer.status == status


def test_method_and_size(portal: Portal) -> None:
    refusal = portal.sandbox.ingest(b"", method="GET")
    assert (refusal.status, refusal.headers["Allow"]) == (405, "POST")
    assert portal.send("registered", portal.mint(), padding="x" * 70_000).status == 413


def test_404_for_the_server(portal: Portal) -> None:
    token = portal.mint()
    unknown = portal.send("registered", token, server_id="nobody")
    assert (unknown.status, unknown.json()) == (404, {"error": "unknown_server"})
    portal.sandbox.referrals_off(SERVER)
    off = portal.send("registered", token)
    assert (off.status, off.json()) == (404, {"error": "referrals_off"})
    assert portal.send("registered", "probe", test=True).status == 404
    portal.sandbox.referrals_on(SERVER)
    assert portal.send("registered", token).status == 200


def test_404_without_a_secret() -> None:
    sandbox = Sandbox({SERVER: Server(secret="")}, clock=lambda: NOW)
    body = json.dumps(event("registered", "t")).encode()
    answer = sandbox.ingest(body, sign("", body, int(NOW)))
    assert (answer.status, answer.json()) == (404, {"error": "no_secret"})


def test_404_for_the_token(portal: Portal) -> None:
    token = portal.mint()
    payload, _, mac = token.partition(".")
    others = [
        portal.mint(server_id=OTHER_SERVER),
        Portal().mint(),
        payload,
        f"{payload}.",
        f"{payload}x.{mac}",
        f"{token}x",
        "abc.def.ghi",
        "玩家.🐉",
        "\x00",
    ]
    for other in others:
        answer = portal.send("registered", other)
        assert (answer.status, answer.json()) == (404, {"error": "unknown_token"})
    assert portal.sandbox.referrals == []


def test_a_token_lasts_ninety_days(portal: Portal) -> None:
    token = portal.mint()
    portal.clock.now += 90 * 86400
    assert portal.send("registered", token).status == 200
    portal.clock.now += 1
    for kind in ("registered", "qualified"):
        answer = portal.send(kind, token)
        assert (answer.status, answer.json()) == (404, {"error": "expired_token"})
    assert outcome(portal.send("registered", portal.mint("bob"))) == IGNORED, "the anchor stays"


def test_the_order_of_the_checks(portal: Portal) -> None:
    """Shape, server, signature, replay window, (dry run,) token, dedup, transition: each hides what follows."""
    wrong = event("qualified", "unknown", server_event_id="", server_id="nobody")
    assert portal.post(wrong, secret="wrong", off=-999).status == 400
    wrong["server_event_id"] = "q"
    assert portal.post(wrong, secret="wrong", off=-999).status == 404
    wrong["server_id"] = SERVER
    assert portal.post(wrong, secret="wrong", off=-999).json() == {"error": "bad_signature"}
    assert portal.post(wrong, off=-999).json() == {"error": "stale_timestamp"}
    assert portal.post({**wrong, "test": True}).status == 200
    assert portal.post(wrong).json() == {"error": "unknown_token"}
    wrong["token"] = portal.mint()
    assert portal.post(wrong).status == 422
    portal.send("registered", wrong["token"])
    assert outcome(portal.post(wrong)) == OK_QUALIFIED
    portal.sandbox.reverse(portal.sandbox.referrals[0].id)
    assert outcome(portal.post(wrong)) == DUPLICATE, "dedup comes before the transition"


@pytest.mark.parametrize(
    "refuse",
    [
        lambda portal, fields: portal.post(fields, secret="wrong"),
        lambda portal, fields: portal.post(fields, off=-301),
        lambda portal, fields: portal.post({**fields, "ts": "soon"}),
        lambda portal, fields: portal.post({**fields, "server_id": "nobody"}),
    ],
)
def test_a_refused_event_may_come_again(portal: Portal, refuse: Any) -> None:
    fields = event("registered", portal.mint())
    assert refuse(portal, fields).status in (400, 401, 404)
    assert outcome(portal.post(fields)) == OK_REGISTERED
