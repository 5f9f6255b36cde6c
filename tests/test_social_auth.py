"""The pipeline's steps by themselves; with social-auth-app-django around them in tests/integrations."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from django_mmolove_referral.capture import SESSION_KEY, Visit, current_visit, enter_visit
from django_mmolove_referral.record import Captured
from django_mmolove_referral.social_auth import keep_referral, restore_referral


class Unreadable(dict[str, Any]):
    def get(self, *args: Any) -> Any:
        raise ConnectionError


@contextmanager
def visit(session: dict[str, Any] | None = None, user: object = None) -> Iterator[Visit]:
    """Within a request of that session's browser."""
    request = RequestFactory().get("/")
    request.session = {} if session is None else session  # type: ignore[assignment]  # all that a visit asks of one
    request.user = user or AnonymousUser()  # type: ignore[assignment]  # any object
    outer = current_visit()
    enter_visit(Visit(request))
    try:
        here = current_visit()
        assert here is not None
        yield here
    finally:
        enter_visit(outer)


def kept(token: str = "tok-1") -> dict[str, Any]:
    """What one browser's pipeline notes, as it comes back from the table of pipelines."""
    with visit() as first:
        first.note_code("carol", "default")
        first.capture(token)
        notes = keep_referral(strategy=None, details={})
    assert notes is not None
    notes = json.loads(json.dumps(notes))
    assert isinstance(notes, dict)
    return notes


def test_what_one_browser_brought_is_restored_in_another() -> None:
    notes = kept()
    with visit() as other:
        restore_referral(strategy=None, **notes)
        assert other.brings() == Captured("tok-1", "default", "carol", notes["mmolove_referral"]["at"])
        assert other.changed


def test_a_token_of_the_other_browsers_own_goes_first() -> None:
    with visit() as other:
        other.capture("tok-2")
        restore_referral(**kept())
        assert other.token == "tok-2"


def test_a_token_past_its_age_in_the_other_browser_gives_way() -> None:
    with visit({SESSION_KEY: {"token": "tok-2", "at": 1}}) as other:
        restore_referral(**kept())
        assert other.token == "tok-1"


def test_a_browser_that_used_the_token_does_not_get_it_again() -> None:
    with visit() as other:
        other.use_up("tok-1")
        restore_referral(**kept())
        assert other.brings() is None


def test_age_counts_from_the_first_browser(configure: Any) -> None:
    notes = kept()
    notes["mmolove_referral"]["at"] = int(time.time()) - 100
    configure(TOKEN_MAX_AGE=60)
    with visit() as other:
        restore_referral(**notes)
        captured = other.brings()
    assert captured is not None
    assert captured.expired


def test_nothing_is_kept_without_a_token_and_nothing_restored_without_a_note() -> None:
    session: dict[str, Any] = {}
    with visit(session):
        assert keep_referral() is None
        restore_referral()
    assert session == {}


def test_a_member_who_connects_an_account_keeps_nothing() -> None:
    class Member:
        is_authenticated = True

    with visit() as here:
        here.capture("tok-1")
    with visit({SESSION_KEY: {"token": "tok-1", "at": int(time.time())}}, Member()):
        assert keep_referral() is None


def test_outside_a_visit_the_steps_do_nothing() -> None:
    notes = kept()
    assert current_visit() is None
    assert keep_referral() is None
    restore_referral(**notes)


def test_after_the_response_nothing_is_restored() -> None:
    session: dict[str, Any] = {}
    with visit(session) as other:
        other.request = None
        restore_referral(**kept())
    assert session == {}


def test_a_session_that_cannot_be_read_leaves_the_pipeline_whole(caplog: pytest.LogCaptureFixture) -> None:
    notes = kept()
    with visit(Unreadable()):
        assert keep_referral() is None
        restore_referral(**notes)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "The token of a visit could not be kept; the pipeline goes on without it.",
        "A kept token could not be restored; the pipeline goes on without it.",
    ]
    assert "tok-1" not in caplog.text


@pytest.mark.parametrize("rubbish", ["tok-1", 7, {"token": "tok-1", "colour": "red"}, {"token": ["tok-1"]}, {}])
def test_a_note_that_is_none_leaves_the_pipeline_whole(rubbish: object) -> None:
    with visit() as other:
        restore_referral(mmolove_referral=rubbish)
        assert other.brings() is None
