"""MMOLove referrals for Django portals. The verbs are in ``lifecycle``, ``milestones`` and ``importing``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .capture import offer_token
    from .importing import aimport_referral, import_referral
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
    from .milestones import amark_qualified_many, mark_qualified_many

__all__ = [
    "aattach_referral",
    "aimport_referral",
    "amark_qualified",
    "amark_qualified_many",
    "amark_registered",
    "amark_reversed",
    "ashare_link",
    "attach_referral",
    "import_referral",
    "mark_qualified",
    "mark_qualified_many",
    "mark_registered",
    "mark_reversed",
    "offer_token",
    "share_link",
]


def __getattr__(name: str) -> Any:
    # Django imports this package before the models may be loaded, so the verbs come when they are asked for.
    if name in __all__:
        from . import capture, importing, lifecycle, milestones

        modules = (lifecycle, milestones, importing, capture)
        return next(getattr(module, name) for module in modules if hasattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
