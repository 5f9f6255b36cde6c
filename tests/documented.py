"""Code of the documentation in use: what a portal writes into its own modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.dispatch import Signal


def names(code: str, **given: Any) -> dict[str, Any]:
    """What a module with that code has in it; ``given`` are the names that it takes for granted."""
    module: dict[str, Any] = {"__name__": "portal", **given}
    exec(code, module)
    return module


@contextmanager
def receiving(code: str) -> Iterator[None]:
    """The receivers in that code, connected for a while."""
    module = names(code)
    try:
        yield
    finally:
        signals = [value for value in module.values() if isinstance(value, Signal)]
        for signal in signals:
            for value in module.values():
                if callable(value):
                    signal.disconnect(value)
