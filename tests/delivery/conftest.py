"""A referred account, and what MMOLove says to its events."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from django_mmolove_referral import attach_referral
from django_mmolove_referral.models import Referral
from tests.portal import create

_numbers = count(1)


@pytest.fixture
def sign_up(db: None, mint: Callable[..., str]) -> Callable[..., Any]:
    """``sign_up()`` is an account with a referral and its ``registered`` written."""

    def make(token: str | None = None) -> Any:
        user = create(f"player{next(_numbers)}@example.com")
        attach_referral(user, token or mint())
        return user

    return make


@pytest.fixture
def bob(sign_up: Callable[..., Any]) -> Any:
    return sign_up()


@pytest.fixture
def registered(bob: Any, drain: Callable[..., Any]) -> Any:
    """An account whose ``registered`` has been accepted."""
    drain()
    assert Referral.objects.get(user=bob).state == "registered"
    return bob
