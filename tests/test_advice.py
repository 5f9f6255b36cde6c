"""What an owner reads: cause and cure for every answer and every state, with this portal's own values."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone as django_timezone

from django_mmolove_referral import advice
from django_mmolove_referral.client import Attempt
from django_mmolove_referral.conf import conf
from django_mmolove_referral.delivery.dry_run import DryRun
from django_mmolove_referral.delivery.failing import Failing
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.protocol import Answer, Verdict

NOTHING = "Nothing is to be done."
BLANKED = "Nothing is to be done: its token and body have been blanked, and nothing can be sent any more."
BY_ITSELF = "Nothing is to be done: it is tried again by itself."
SANDBOX = (
    "It is on this machine: is python manage.py mmolove_sandbox running, on that port? It is tried again by itself."
)
ANSWERS: list[tuple[int, str, str, str]] = [
    (200, "", "MMOLove accepted it.", NOTHING),
    (
        0,
        "no answer from mmolove.com within 15 s",
        "No complete answer came from MMOLove: no answer from mmolove.com within 15 s.",
        SANDBOX,
    ),
    (
        0,
        "could not resolve the name mmolove.com: name or service not known",
        "No complete answer came from MMOLove: could not resolve the name mmolove.com: name or service not known.",
        SANDBOX,
    ),
    (
        0,
        "TLS certificate of mmolove.com not accepted: certificate has expired",
        "No complete answer came from MMOLove: TLS certificate of mmolove.com not accepted: certificate has expired.",
        (
            "Check this machine's clock and its CA certificates (a CA of your own: MMOLOVE_REFERRAL['VERIFY']), and that "
            "nothing between here and 127.0.0.1 opens the encryption. It is tried again by itself."
        ),
    ),
    (
        0,
        "no TLS with mmolove.com: wrong version number",
        "No complete answer came from MMOLove: no TLS with mmolove.com: wrong version number.",
        (
            "Check that MMOLOVE_REFERRAL['ENDPOINT'] is an address that speaks https, and that no firewall or proxy "
            "breaks the connection to 127.0.0.1 off. It is tried again by itself."
        ),
    ),
    (
        0,
        "no CA certificates could be read from /etc/ca.pem: no such file or directory",
        (
            "No complete answer came from MMOLove: no CA certificates could be read from /etc/ca.pem: no such file or "
            "directory."
        ),
        "Set MMOLOVE_REFERRAL['VERIFY'] to True, or to a file of CA certificates that is there.",
    ),
    (
        400,
        "HTTP 400: token missing",
        "MMOLove calls the request malformed: HTTP 400: token missing.",
        "Check MMOLOVE_REFERRAL['REFEREE_IDENTITY'] and MMOLOVE_REFERRAL['SERVER_ID'] = 'srv_test'.",
    ),
    (
        401,
        "HTTP 401: bad_signature",
        (
            "MMOLove refuses the signature: HTTP 401: bad_signature. The secret here is not the one it has for this "
            "server."
        ),
        (
            "Copy the current secret of server 'srv_test' from the MMOLove dashboard (rotating it ended the old one) into "
            "MMOLOVE_REFERRAL['SECRET'] or the environment variable MMOLOVE_REFERRAL_SECRET, restart the portal, and send "
            "a test event."
        ),
    ),
    (
        401,
        "HTTP 401: stale timestamp",
        (
            "MMOLove finds the signature too old or too new, so this host's clock and its own differ: HTTP 401: stale "
            "timestamp."
        ),
        "Have the clock of every host that delivers set by NTP, and send a test event.",
    ),
    (
        404,
        "HTTP 404: unknown server",
        "MMOLove knows no such thing: HTTP 404: unknown server.",
        (
            "Check in the MMOLove dashboard that MMOLOVE_REFERRAL['SERVER_ID'] = 'srv_test' is your server's id, that "
            "referrals are enabled and that a secret has been generated. If a test event passes, this referral's token is "
            "unknown or has expired, and nothing can be done for it."
        ),
    ),
    (
        422,
        "HTTP 422: illegal transition",
        "MMOLove does not allow this step in the referral's state: HTTP 422: illegal transition.",
        "Look the referral up in the MMOLove dashboard: it may be reversed, expired or rejected there.",
    ),
    (
        302,
        "HTTP 302 redirects to https://example.com/x: set ENDPOINT to the final address",
        (
            "The endpoint redirects, and a redirect is never followed: HTTP 302 redirects to https://example.com/x: set "
            "ENDPOINT to the final address."
        ),
        (
            "Set MMOLOVE_REFERRAL['ENDPOINT'] to the final address; MMOLove's own is "
            "https://mmolove.com/api/referral/events."
        ),
    ),
    (408, "HTTP 408", "MMOLove asks to wait: HTTP 408.", BY_ITSELF),
    (425, "HTTP 425", "MMOLove asks to wait: HTTP 425.", BY_ITSELF),
    (500, "HTTP 500: oops", "MMOLove, or a proxy before it, has a fault: HTTP 500: oops.", BY_ITSELF),
    (429, "HTTP 429: slow down", "MMOLove asks to wait: HTTP 429: slow down.", BY_ITSELF),
    (503, "HTTP 503", "MMOLove, or a proxy before it, has a fault: HTTP 503.", BY_ITSELF),
    (
        200,
        "HTTP 200, but an HTML page: a proxy or CDN seems to answer in MMOLove's place",
        (
            "Something answered in MMOLove's place: HTTP 200, but an HTML page: a proxy or CDN seems to answer in "
            "MMOLove's place."
        ),
        (
            "Check that MMOLOVE_REFERRAL['ENDPOINT'] = 'http://127.0.0.1:9/api/referral/events' is MMOLove's, and what "
            "stands between (a proxy, a captive portal)."
        ),
    ),
    (
        200,
        "HTTP 200, but as a dry run: the event was not recorded",
        "Something answered in MMOLove's place: HTTP 200, but as a dry run: the event was not recorded.",
        (
            "Check that MMOLOVE_REFERRAL['ENDPOINT'] = 'http://127.0.0.1:9/api/referral/events' is MMOLove's, and what "
            "stands between (a proxy, a captive portal)."
        ),
    ),
    (
        204,
        "HTTP 204",
        "Something answered in MMOLove's place: HTTP 204.",
        (
            "Check that MMOLOVE_REFERRAL['ENDPOINT'] = 'http://127.0.0.1:9/api/referral/events' is MMOLove's, and what "
            "stands between (a proxy, a captive portal)."
        ),
    ),
    (
        403,
        "HTTP 403: no",
        "The request was refused: HTTP 403: no.",
        (
            "Check MMOLOVE_REFERRAL['ENDPOINT'] = 'http://127.0.0.1:9/api/referral/events', and whether a firewall or "
            "proxy refuses this machine."
        ),
    ),
]


@pytest.mark.parametrize(("status", "error", "cause", "cure"), ANSWERS)
def test_every_answer_names_cause_and_cure(status: int, error: str, cause: str, cure: str) -> None:
    assert advice.of_answer("default", status, error, None) == advice.Advice(cause, cure)


@pytest.mark.parametrize(("skew", "words"), [(412.0, "412 s behind"), (-86400.0, "86400 s ahead of")])
def test_a_clock_that_is_off_is_named_with_its_host(skew: float, words: str) -> None:
    health = ServerHealth(server="default", clock_skew=skew, clock_host="web-1")
    told = advice.of_answer("default", 401, "HTTP 401: stale timestamp", health)
    assert told == advice.Advice(
        f"The clock of web-1 is {words} MMOLove's, so its signatures are refused: HTTP 401: stale timestamp.",
        "Have that host's clock set by NTP.",
    )


def test_a_clock_is_off_or_not() -> None:
    assert advice.of_clock(60.0, "web-1") is None
    assert advice.of_clock(-61.0, "web-1") == advice.Advice(
        "The clock of web-1 is 61 s ahead of MMOLove's.", "Have that host's clock set by NTP."
    )


def dry_run_with(status: int, error: str = "", skew: float | None = 0.0, **found: bool) -> DryRun:
    answer = Answer(Verdict.ACCEPTED if found.get("passed") else Verdict.SUSPECT, error=error)
    attempt = Attempt(0.0, 0.1, 0, status, answer, b"", "", skew)
    return DryRun("default", "", "", "", attempt, "", **{"passed": False, "undecided": False, **found})


@pytest.mark.parametrize(
    ("result", "cause", "cure"),
    [
        (
            dry_run_with(200, passed=True),
            "MMOLove accepted the test event: address, server id, secret and clock are right.",
            "Nothing is to be done. What waited for this server leaves now.",
        ),
        (
            dry_run_with(200, skew=412.0, passed=True),
            (
                "MMOLove accepted the test event: address, server id and secret are right. The clock of "
                f"{socket.gethostname()} is 412 s behind MMOLove's."
            ),
            "Have that host's clock set by NTP.",
        ),
        (
            dry_run_with(404, undecided=True),
            "MMOLove answered 404 to a token that it has never accepted, which decides nothing.",
            "Check the server id 'srv_test' in the MMOLove dashboard; then follow a real share link and sign up once.",
        ),
        (
            dry_run_with(401, "HTTP 401: stale", skew=-700.0),
            f"The clock of {socket.gethostname()} is 700 s ahead of MMOLove's, so its signatures are refused: HTTP 401: stale.",
            "Have that host's clock set by NTP.",
        ),
        (
            dry_run_with(503, "HTTP 503", skew=None),
            "MMOLove, or a proxy before it, has a fault: HTTP 503.",
            BY_ITSELF,
        ),
    ],
)
def test_a_test_event(result: DryRun, cause: str, cure: str) -> None:
    assert advice.of_dry_run(result, None) == advice.Advice(cause, cure)


def test_a_server_that_is_not_configured_any_more_is_named_by_its_place() -> None:
    assert "MMOLOVE_REFERRAL['SERVERS']['gone']['ENDPOINT']" in advice.of_answer("gone", 403, "HTTP 403", None).cure


def event(state: str, **values: Any) -> OutboundEvent:
    referral = Referral(server="default", token="t" * 20)
    values = {"kind": "qualified", "body": b"{}", "due_at": django_timezone.now(), **values}
    return OutboundEvent(referral=referral, server="default", state=state, **values)


STATES: list[tuple[OutboundEvent, str, str]] = [
    (event("accepted", outcome="advanced"), "MMOLove accepted it.", NOTHING),
    (
        event("accepted", outcome="duplicate"),
        "MMOLove had it already: an earlier answer was lost. It counts the same.",
        NOTHING,
    ),
    (
        event("accepted", outcome="ignored"),
        "Another referrer already holds this account at MMOLove (first touch). There is no reward.",
        NOTHING,
    ),
    (
        event("accepted", outcome="other_state", response={"state": "reversed"}),
        "MMOLove accepted it, but the referral is in the state “reversed” there. There is no reward.",
        NOTHING,
    ),
    (
        event("cancelled", reason="operator"),
        "A member of staff cancelled it.",
        "Redeliver it to send it after all.",
    ),
    (
        event("cancelled", reason="expired"),
        "It was cancelled: the token expired.",
        "Nothing is to be done; it cannot be sent any more.",
    ),
    (
        event("rejected", last_status=422, last_error="HTTP 422: no"),
        "MMOLove does not allow this step in the referral's state: HTTP 422: no.",
        (
            "Look the referral up in the MMOLove dashboard: it may be reversed, expired or rejected there. Then redeliver "
            "this event."
        ),
    ),
    (
        event("exhausted", last_status=503, last_error="HTTP 503"),
        (
            "It was tried for the whole retry schedule, in vain. The last time: MMOLove, or a proxy before it, has a "
            "fault: HTTP 503."
        ),
        "Redeliver this event once a test event passes.",
    ),
    (
        event("exhausted", last_status=0, last_error="no answer from mmolove.com within 15 s"),
        (
            "It was tried for the whole retry schedule, in vain. The last time: No complete answer came from MMOLove: no "
            "answer from mmolove.com within 15 s."
        ),
        "It is on this machine: is python manage.py mmolove_sandbox running, on that port? Then redeliver this event.",
    ),
    (
        event("pending"),
        "It is due and leaves with the next delivery run.",
        "If it stays so, nothing delivers: see MMOLOVE_REFERRAL['DISPATCH'] = 'manual'.",
    ),
]


@pytest.mark.parametrize(("row", "cause", "cure"), STATES, ids=str)
def test_every_state_names_cause_and_cure(row: OutboundEvent, cause: str, cure: str) -> None:
    assert advice.of_event(row, None) == advice.Advice(cause, cure)


def test_an_event_in_a_workers_hands_says_so() -> None:
    row = event("pending", claim=uuid4())
    row.due_at = django_timezone.now() + timedelta(minutes=1)
    assert advice.of_event(row, None).cause == "A worker is sending it now."


def test_an_event_that_failed_says_when_it_is_tried_again() -> None:
    row = event("pending", attempts=2, last_status=503, last_error="HTTP 503")
    row.due_at = datetime(2030, 1, 31, 18, 30, tzinfo=timezone.utc)
    assert advice.of_event(row, None).cure.endswith("tried again by itself. (Next try: 2030-01-31 18:30:00 UTC)")


def test_an_event_of_a_paused_server_says_what_the_server_waits_for() -> None:
    since = datetime(2030, 1, 31, 18, 30, tzinfo=timezone.utc)
    health = ServerHealth(
        server="default",
        state="paused",
        reason="HTTP 503: maintenance",
        since=since,
        probe_at=since + timedelta(minutes=5),
    )
    told = advice.of_event(event("pending"), health)
    assert told == advice.Advice(
        "Delivery has been paused (since 2030-01-31 18:30:00 UTC). MMOLove, or a proxy before it, has a fault: HTTP 503: "
        "maintenance.",
        f"{BY_ITSELF} Events wait meanwhile, and none is lost. The next dry run (2030-01-31 "
        "18:35:00 UTC) finds out whether it works again; sending a test event does so now.",
    )
    assert advice.of_server(conf.server("default"), health) == told


def test_a_server_to_which_nothing_was_ever_delivered_is_not_said_to_work() -> None:
    server = conf.server("default")
    told = advice.Advice(
        "Nothing has been delivered to it yet.", "Sending a test event finds out whether delivery works."
    )
    assert advice.of_server(server, None) == told
    assert advice.of_server(server, ServerHealth(server="default")) == told
    worked = ServerHealth(server="default", last_success_at=django_timezone.now())
    assert advice.of_server(server, worked).cause == "Delivery works as far as is known."


def test_an_open_server_at_which_tries_fail_says_what_failed_and_when_it_is_tried_again() -> None:
    server, again = conf.server("default"), datetime(2130, 1, 31, 18, 30, 7, tzinfo=timezone.utc)
    assert advice.of_server(server, None, Failing(1, 503, "HTTP 503", again)) == advice.Advice(
        "The last try of 1 event failed. MMOLove, or a proxy before it, has a fault: HTTP 503.",
        f"{BY_ITSELF} The next try (2130-01-31 18:30:07 UTC) finds out whether it works again; sending a test event "
        "does so now.",
    )
    for over in (None, datetime(2000, 1, 1, tzinfo=timezone.utc)):
        told = advice.of_server(server, None, Failing(2, 503, "HTTP 503", over))
        assert told.cause.startswith("The last tries of 2 events failed. ")
        assert "The next delivery run finds out whether it works again;" in told.cure


def test_an_event_without_credentials_names_the_key(configure: Callable[..., None]) -> None:
    configure(SECRET="")
    told = advice.of_event(event("pending"), None)
    assert told.cause == "It is not sent."
    assert told.cure.startswith("MMOLOVE_REFERRAL['SECRET'] is missing. ")
    assert advice.of_server(conf.server("default"), None).cause == "Nothing is delivered."


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("registered", "kind", "cause", "cure"),
    [
        (
            None,
            "qualified",
            "It waits for “registered”, which has not been written.",
            "Call mark_registered(user): MMOLOVE_REFERRAL['AUTO_REGISTER'] is off.",
        ),
        ("pending", "qualified", "It waits until “registered” has been accepted.", NOTHING),
        (
            "rejected",
            "qualified",
            "It waits for “registered”, which is rejected.",
            "Open “registered” (reg-1), do what its page says, and redeliver it.",
        ),
        ("accepted", "reversed", "It waits until “qualified” is settled.", NOTHING),
    ],
)
def test_a_waiting_event_says_for_what(registered: str | None, kind: str, cause: str, cure: str) -> None:
    now = django_timezone.now()
    referral = Referral.objects.create(server="default", registered_at=now if registered == "accepted" else None)
    if registered:
        OutboundEvent.objects.create(
            referral=referral,
            server="default",
            kind="registered",
            state=registered,
            due_at=now,
            server_event_id="reg-1",
        )
    row = OutboundEvent(referral=referral, server="default", kind=kind, state="waiting")
    assert advice.of_event(row, None) == advice.Advice(cause, cure)


@pytest.mark.parametrize(
    ("values", "cause", "cure"),
    [
        (
            {"state": "granted", "granted_at": datetime(2030, 1, 31, 18, 30, tzinfo=timezone.utc)},
            "It has been granted (2030-01-31 18:30:00 UTC).",
            NOTHING,
        ),
        ({"state": "cancelled"}, "The referral ended without a reward before it was granted.", NOTHING),
        (
            {
                "state": "due",
                "last_error": "RuntimeError: the bank is closed",
                "due_at": datetime(2130, 1, 31, 18, 30, tzinfo=timezone.utc),
            },
            "It could not be granted: RuntimeError: the bank is closed.",
            (
                "Mend the receiver of referral_qualified. It is tried again by itself (2130-01-31 18:30:00 UTC), or "
                "at once with “Retry now”."
            ),
        ),
        (
            {"state": "due"},
            "It is due and will be granted by the next delivery run.",
            "If it stays so, nothing delivers: see MMOLOVE_REFERRAL['DISPATCH'] = 'manual'.",
        ),
    ],
)
def test_every_reward_names_cause_and_cure(values: dict[str, Any], cause: str, cure: str) -> None:
    assert advice.of_reward(Reward(**values)) == advice.Advice(cause, cure)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"status": 200, "answer": '{"ok": true, "state": "registered"}'}, "MMOLove accepted it."),
        (
            {"status": 200, "answer": '{"ok": true, "duplicate": true}'},
            "MMOLove had it already: an earlier answer was lost. It counts the same.",
        ),
        (
            {"status": 200, "answer": '{"ok": true, "ignored": "first_touch_conflict"}'},
            "Another referrer already holds this account at MMOLove (first touch). There is no reward.",
        ),
        ({"status": 200, "answer": "{cut off"}, "MMOLove accepted it."),
        ({"status": 503, "error": "HTTP 503"}, "MMOLove, or a proxy before it, has a fault: HTTP 503."),
        (
            {"status": 401, "error": "HTTP 401: bad_signature"},
            (
                "MMOLove refuses the signature: HTTP 401: bad_signature. The secret here is not the one it has for this "
                "server."
            ),
        ),
    ],
)
def test_every_attempt_says_what_it_came_to(values: dict[str, Any], words: str) -> None:
    assert advice.of_attempt(event("pending"), DeliveryAttempt(**values)) == words


@pytest.mark.parametrize(
    ("state", "cause", "cure"),
    [
        (
            "captured",
            "The account came with a token; MMOLove has not accepted its “registered” yet.",
            "See the event “registered” below for why. There is none while AUTO_REGISTER is off.",
        ),
        (
            "registered",
            "MMOLove knows the account. It has not been credited with the portal's milestone yet.",
            "The portal calls mark_qualified(user) at the milestone; then see the event “qualified” below.",
        ),
        (
            "qualified",
            "MMOLove has credited the referrer. The reward's own page says whether it was granted.",
            NOTHING,
        ),
        (
            "conflict",
            "Another referrer already holds this account at MMOLove (first touch). There is no reward.",
            NOTHING,
        ),
        ("reversed", "The portal took the referral back (mark_reversed).", NOTHING),
        ("expired", "The token grew too old before MMOLove accepted anything (90 days).", NOTHING),
    ],
)
def test_every_referral_names_cause_and_cure(state: str, cause: str, cure: str) -> None:
    assert advice.of_referral(Referral(state=state, token="token")) == advice.Advice(cause, cure)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("captured", "MMOLove never accepted its “registered”, and its token has been blanked."),
        ("registered", "MMOLove knows the account. It had not reached the milestone when its token was blanked."),
    ],
)
def test_a_blanked_referral_is_not_said_to_wait_for_anything(state: str, cause: str) -> None:
    assert advice.of_referral(Referral(state=state)) == advice.Advice(cause, BLANKED)


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"state": "cancelled", "reason": "operator"}, "A member of staff cancelled it."),
        ({"state": "cancelled", "reason": "blanked"}, "It was cancelled: the token had been blanked."),
        (
            {"state": "rejected", "last_status": 400, "last_error": "HTTP 400"},
            "MMOLove calls the request malformed: HTTP 400.",
        ),
        (
            {"state": "exhausted", "last_status": 503, "last_error": "HTTP 503"},
            (
                "It was tried for the whole retry schedule, in vain. The last time: MMOLove, or a proxy before it, has "
                "a fault: HTTP 503."
            ),
        ),
    ],
)
def test_nobody_is_sent_to_redeliver_a_blank_body(row: dict[str, Any], cause: str) -> None:
    told = advice.of_event(event(row.pop("state"), **row, body=b""), None)
    over = "Nothing is to be done; it cannot be sent any more." if "It was cancelled" in cause else BLANKED
    assert told == advice.Advice(cause, over)


def test_every_state_has_words_of_its_own() -> None:
    told = {row.state for row, _cause, _cure in STATES}
    assert told == {state.value for state in OutboundEvent.State} - {"waiting"}  # which has a test of its own


@pytest.mark.parametrize("reason", OutboundEvent.Reason)
def test_every_reason_for_a_cancellation_is_named(reason: OutboundEvent.Reason) -> None:
    cause = advice.of_event(event("cancelled", reason=reason.value), None).cause
    assert cause == "A member of staff cancelled it." or cause == f"It was cancelled: {reason.label}."


def test_what_does_not_answer_elsewhere_is_reached_or_not(configure: Callable[..., None]) -> None:
    configure(ENDPOINT="https://mmolove.com/api/referral/events")
    told = advice.of_answer("default", 0, "could not connect to mmolove.com:443: connection refused", None)
    assert told.cure == (
        "Check that this machine reaches mmolove.com (firewall, proxy, DNS). It is tried again by itself."
    )
