"""Scripted faults, as the pure class answers them."""

from __future__ import annotations

import pytest

from django_mmolove_referral.sandbox import Fault, only_dry_runs, only_real

from .portal import Portal, outcome


def statuses(portal: Portal, count: int, test: bool | None = None) -> list[int]:
    return [portal.send("registered", "probe", test=test).status for _ in range(count)]


def test_an_unprocessed_fault_leaves_no_trace(portal: Portal) -> None:
    token = portal.mint()
    portal.sandbox.script(Fault(500))
    fault = portal.send("registered", token)
    assert (fault.status, fault.body) == (500, b"")
    assert fault.headers["Content-Type"].startswith("text/html")
    entry = portal.sandbox.log[-1]
    assert (entry.status, entry.answer, entry.fault, entry.accepted) == (500, {}, "HTTP 500", False)
    assert portal.sandbox.referrals == []
    assert outcome(portal.send("registered", token)) == (200, {"ok": True, "state": "registered"})


def test_a_lost_answer_makes_a_duplicate(portal: Portal) -> None:
    token = portal.mint()
    portal.sandbox.script(Fault(502, b"<html>Bad gateway</html>", processed=True))
    lost = portal.send("registered", token)
    assert (lost.status, lost.body) == (502, b"<html>Bad gateway</html>")
    entry = portal.sandbox.log[-1]
    assert (entry.status, entry.accepted, entry.fault) == (200, True, "answer lost, HTTP 502")
    assert outcome(portal.send("registered", token)) == (200, {"ok": True, "duplicate": True})


def test_json_bodies_and_headers(portal: Portal) -> None:
    portal.sandbox.script(Fault(429, {"error": "slow down"}, {"retry-after": "120"}))
    answer = portal.send("registered", "probe")
    assert (answer.status, answer.json()) == (429, {"error": "slow down"})
    assert answer.headers == {"Content-Type": "application/json", "Retry-After": "120"}


def test_headers_alone_go_with_the_genuine_answer(portal: Portal) -> None:
    portal.sandbox.script(Fault(headers={"Date": "Mon, 01 Jan 2001 00:00:00 GMT", "content-type": "text/plain"}))
    answer = portal.send("registered", portal.mint())
    assert outcome(answer) == (200, {"ok": True, "state": "registered"})
    assert answer.headers == {"Content-Type": "text/plain", "Date": "Mon, 01 Jan 2001 00:00:00 GMT"}


@pytest.mark.parametrize("processed", [False, True])
def test_a_dropped_connection(portal: Portal, processed: bool) -> None:
    portal.sandbox.script(Fault(drop=True, processed=processed))
    answer = portal.send("registered", portal.mint())
    assert answer.fault is not None
    assert answer.fault.drop
    assert portal.sandbox.log[-1].accepted is processed
    assert len(portal.sandbox.referrals) == processed


def test_order_and_counts(portal: Portal) -> None:
    portal.sandbox.outage()
    portal.sandbox.script(Fault(500), times=2)
    portal.sandbox.script(Fault(501))
    portal.sandbox.script(Fault(599), times=0)
    assert statuses(portal, 5) == [500, 500, 501, 503, 503]
    portal.sandbox.outage(504)
    assert statuses(portal, 2) == [504, 504], "of the standing ones the newest"
    portal.sandbox.script(Fault(500), times=9)
    portal.sandbox.clear_faults()
    assert statuses(portal, 1) == [404]


def test_who_is_hit(portal: Portal) -> None:
    portal.sandbox.script(Fault(401, when=only_real), times=None)
    assert statuses(portal, 2) == [401, 401]
    assert statuses(portal, 2, test=True) == [200, 200]
    portal.sandbox.script(Fault(500, when=only_dry_runs))
    portal.sandbox.script(Fault(418, when=lambda event: event.get("referee_identity") == "9"), times=2)
    assert statuses(portal, 1) == [401], "a counted fault waits for the one it means"
    assert statuses(portal, 1, test=True) == [500]
    assert portal.send("registered", "probe", referee_identity="9").status == 418
    assert portal.sandbox.ingest(b"no json").status == 401


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(drop=True), "connection dropped"),
        (Fault(drop=True, processed=True), "answer lost, connection dropped"),
        (Fault(truncate=True, delay=1.5, drip=0.1), "body cut, after 1.5 s, byte by byte"),
        (Fault(headers={"Date": "x", "Retry-After": "1"}), "Date, Retry-After"),
        (Fault(), ""),
    ],
)
def test_faults_in_words(fault: Fault, words: str) -> None:
    assert str(fault) == words
