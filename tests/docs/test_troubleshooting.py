"""Whoever searches the page for what the admin or the doctor says finds it."""

from __future__ import annotations

import re

import pytest

from django_mmolove_referral import advice
from django_mmolove_referral.delivery.rewards import NO_RECEIVER
from django_mmolove_referral.doctor.endpoint import STAGES
from django_mmolove_referral.models import OutboundEvent, ServerHealth
from django_mmolove_referral.sockets import Stage
from tests.docs.site import rows, section
from tests.factories import EventFactory, RewardFactory
from tests.pages import read

STATUSES = {
    200: "200: somebody else answered",
    204: "200: somebody else answered",
    302: "3xx: redirect",
    308: "3xx: redirect",
    400: "400: malformed",
    401: "401: bad signature, or stale timestamp",
    403: "Any other 4xx",
    404: "404: unknown",
    408: "408, 425, 429: later",
    413: "Any other 4xx",
    422: "422: not in this state",
    425: "408, 425, 429: later",
    429: "408, 425, 429: later",
    500: "5xx: a fault",
    503: "5xx: a fault",
    0: "0: no answer",
}


def plain(text: str) -> str:
    """Without line breaks and marks, and with ``…`` for what differs."""
    return re.sub(r"[*`]|\\", "", " ".join(text.split()))


def says(text: str, said: str) -> bool:
    """Whether ``text`` has all that is ``said``, piece by piece around what differs."""
    return all(piece.strip(" .") in text for piece in said.split("…"))


@pytest.mark.parametrize(("status", "heading"), STATUSES.items())
def test_each_status_is_explained_in_the_admin_s_words(status: int, heading: str) -> None:
    told = advice.of_answer("default", status, "…", None)
    text = plain(section("troubleshooting.md", heading))
    assert says(text, told.cause), f"{heading} lacks: {told.cause}"
    for sentence in re.split(r"(?<=[.:]) ", told.cure.replace(" (firewall", ". (firewall")):
        if "'" not in sentence and "(firewall" not in sentence:  # the rest names this portal's own values
            assert says(text, sentence) or status == 0, f"{heading} lacks: {sentence}"


@pytest.mark.parametrize(
    ("error", "health"),
    [("stale timestamp", None), ("…", ServerHealth(clock_skew=412, clock_host="…"))],
)
def test_a_clock_that_is_off(error: str, health: ServerHealth | None) -> None:
    told = advice.of_answer("default", 401, error, health)
    cause = told.cause.replace(error, "…").replace("412", "…")
    assert says(plain(section("troubleshooting.md", STATUSES[401])), cause)


@pytest.mark.parametrize("stage", Stage)
def test_each_stage_at_which_a_connection_ends(stage: Stage) -> None:
    table = {plain(row[0]): plain(row[1]) for row in rows(section("troubleshooting.md", "0: no answer"))}
    found = [name for words, name in table.items() if words.startswith(stage.value.strip())]
    assert found == [STAGES[stage]]


@pytest.mark.parametrize("outcome", ["duplicate", "ignored", "other_state"])
def test_each_kind_of_acceptance(outcome: str) -> None:
    event = OutboundEvent(state="accepted", outcome=outcome, response={"state": "…"})
    assert says(plain(section("troubleshooting.md", "200: accepted")), advice.of_event(event, None).cause)


@pytest.mark.django_db
def test_why_an_event_or_a_reward_stays_where_it_is() -> None:
    pending = EventFactory.create()
    text = plain(section("troubleshooting.md", "“registered” stays pending"))
    assert says(text, advice.of_event(pending, None).cure.partition(" = ")[0])
    assert says(text, advice.of_event(pending, ServerHealth(server="default", state="paused", reason="…")).cause[:23])
    waiting = EventFactory.create(kind="qualified", state="waiting", referral=pending.referral)
    assert says(plain(read("troubleshooting.md")), advice.of_event(waiting, None).cause)
    rewards = plain(section("troubleshooting.md", "A reward is due but not granted"))
    due = RewardFactory.create()
    assert says(rewards, advice.of_reward(due).cause)
    assert says(rewards, advice.of_reward(RewardFactory.create(last_error="…")).cause)
    assert says(rewards, str(NO_RECEIVER))
