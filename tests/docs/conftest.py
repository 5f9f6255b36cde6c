"""What the documentation's code needs around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_mmolove_referral import signals
from django_mmolove_referral.conf import SETTING
from tests.portal import create

Names = dict[str, Any]


@pytest.fixture
def run() -> Iterator[Callable[..., Names]]:
    """``run(block, token=…)`` runs a block as a module with these names, and returns all names it then has.

    Receivers that it connects hear nothing any more after the test.
    """
    all_signals = [getattr(signals, name) for name in dir(signals) if hasattr(getattr(signals, name), "receivers")]
    before = [list(signal.receivers) for signal in all_signals]
    kept: list[Names] = []  # receivers are held weakly

    def execute(block: str, **given: Any) -> Names:
        names: Names = {"__name__": "portal.example", **given}
        kept.append(names)
        exec(block, names)
        return names

    yield execute
    for signal, receivers in zip(all_signals, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.fixture
def adopt(settings: Any) -> Callable[[Names], None]:
    """``adopt(names)`` makes the MMOLOVE_REFERRAL of a block the portal's; ``# …`` stands for its other keys."""

    def change(names: Names) -> None:
        needed = {} if "SERVERS" in names[SETTING] else {"SERVER_ID": "srv_test", "SECRET": "test-secret"}
        setattr(settings, SETTING, {**needed, **names[SETTING]})

    return change


@pytest.fixture
def players(db: None) -> tuple[Any, Any]:
    """Alice, who shares her link, and Bob, who is about to follow it."""
    return create("alice@example.com"), create("bob@example.com")
