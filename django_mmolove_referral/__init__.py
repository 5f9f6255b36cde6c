"""MMOLove referrals for Django portals. See :mod:`django_mmolove_referral.lifecycle` for what each verb does, and
:func:`django_mmolove_referral.capture.offer_token`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .capture import offer_token
    from .lifecycle import (
        aattach_referral,
        amark_qualified,
        amark_registered,
        amark_reversed,
        ashare_link,
        attach_referral,
        mark_qualified,
        mark_registered,
        mark_reversed,
        share_link,
    )

__all__ = [
    "aattach_referral",
    "amark_qualified",
    "amark_registered",
    "amark_reversed",
    "ashare_link",
    "attach_referral",
    "mark_qualified",
    "mark_registered",
    "mark_reversed",
    "offer_token",
    "share_link",
]


def __getattr__(name: str) -> Any:
    # Django imports this package before the models may be loaded, so the verbs come when they are asked for.
    if name in __all__:
        from . import capture, lifecycle

        return getattr(capture if name == "offer_token" else lifecycle, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
