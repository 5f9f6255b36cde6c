"""What holds for any bytes and for any sequence of events."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from .portal import NOW, SECRET, Clock, Portal, event, sign

REFUSALS = {400, 401, 404, 405, 413, 422}
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(body=st.binary(), header=st.text(), content_type=st.text(), method=st.text())
def test_no_bytes_crash_it(body: bytes, header: str, content_type: str, method: str) -> None:
    portal = Portal()
    assert portal.sandbox.ingest(body, header, content_type=content_type, method=method).status in REFUSALS
    assert portal.sandbox.ingest(body, header).status in REFUSALS
    assert portal.sandbox.ingest(body, sign(SECRET, body, int(NOW))).status in REFUSALS
    assert portal.sandbox.referrals == []


@settings(deadline=None)
@given(
    kind=st.sampled_from(["registered", "qualified", "reversed"]),
    spoiled=st.dictionaries(
        st.sampled_from(["event", "token", "server_id", "server_event_id", "referee_identity", "ts", "test", "more"]),
        junk,
        max_size=3,
    ),
)
def test_no_fields_crash_it_and_a_refusal_leaves_no_trace(kind: str, spoiled: dict[str, Any]) -> None:
    portal = Portal()
    token = portal.mint()
    fields = {**event(kind, token), **spoiled}
    answer = portal.post(fields)
    assert answer.status in {200, *REFUSALS}
    if answer.status != 200:
        assert portal.sandbox.referrals == []
        portal.send("registered", token, server_event_id="first")
        again = portal.send(kind, token)
        assert (again.status, "duplicate" in again.json()) == (200, False)


steps = st.lists(
    st.tuples(
        st.sampled_from(["registered", "qualified", "reversed", "REVERSE", "DAYS"]),
        st.integers(0, 4),  # which token
        st.sampled_from(["1", "2"]),  # which referee
        st.sampled_from(["a", "b"]),  # which event id
        st.booleans(),  # a dry run
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps)
def test_invariants_of_any_sequence(sequence: list[tuple[str, int, str, str, bool]]) -> None:
    portal = Portal()
    minted = [portal.mint(referrer) for referrer in ("alice", "alice", "bob", "bob", "carol")]
    accepted: set[tuple[int, str, str]] = set()
    for kind, which, referee, event_id, test in sequence:
        before = {referral.id: referral for referral in portal.sandbox.referrals}
        if kind == "REVERSE":
            for referral_id in list(before)[which : which + 1]:
                portal.sandbox.reverse(referral_id)
            continue
        if kind == "DAYS":
            portal.clock.now += which * 86400
            continue
        answer = portal.send(kind, minted[which], referee_identity=referee, server_event_id=event_id, test=test or None)
        after = {referral.id: referral for referral in portal.sandbox.referrals}
        key = (which, kind, event_id)
        if test:
            assert answer.json() == {"ok": True, "test": True}
        if answer.status != 200 or test:
            assert after == before
        elif key in accepted:
            assert answer.json() == {"ok": True, "duplicate": True}
            assert after == before
        else:
            assert "duplicate" not in answer.json()
            accepted.add(key)
        holders = [(referral.server_id, referral.referee) for referral in after.values()]
        assert len(holders) == len(set(holders)), "one referral per referee"
        for referral_id, referral in before.items():
            now = after[referral_id]
            assert (now.referrer, now.referee) == (referral.referrer, referral.referee), "first touch is for good"
            if referral.terminal or referral.state == "qualified":
                assert now.state == referral.state, "no way back, by events"


class CrowdedClock(Clock):
    """Notes how many threads read it at the same time."""

    inside = peak = 0

    def __call__(self) -> float:
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        Event().wait(0.001)
        self.inside -= 1
        return self.now


def test_many_at_once() -> None:
    """One event from many threads advances once."""
    clock = CrowdedClock()
    portal = Portal(clock)
    body = json.dumps(event("registered", portal.mint())).encode()
    header = sign(SECRET, body, int(NOW))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: portal.sandbox.ingest(body, header).json(), range(200)))
    assert sum("state" in answer for answer in answers) == 1
    assert sum("duplicate" in answer for answer in answers) == 199
    assert len(portal.sandbox.events(accepted=True)) == 200
    assert clock.peak == 1
