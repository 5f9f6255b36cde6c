"""Steps for the pipeline of social-auth-app-django, where a link in an e-mail stands before the account.

That link may be opened in another browser, whose session knows nothing of the visit. So the token goes with the
pipeline: one step before the e-mail is sent notes it, one step before the account is created brings it back.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from .capture import current_visit
from .logs import over, trouble
from .record import Captured

logger = logging.getLogger("mmolove_referral.capture")


def keep_referral(**pipeline: Any) -> dict[str, Any] | None:
    """Note what the visit brings. Stands before ``social_core.pipeline.mail.mail_validation``."""
    visit = current_visit()
    if visit is None:
        return None
    try:
        captured = visit.brings()
    except Exception as error:  # noqa: BLE001  # whatever a session store does
        trouble(logger, "keep", error, "The token of a visit could not be kept; the pipeline goes on without it.")
        return None
    over(logger, "keep", "The tokens of visits can be kept again.")
    return None if captured is None else {"mmolove_referral": asdict(captured)}


def restore_referral(mmolove_referral: Any = None, **pipeline: Any) -> None:
    """Bring back what was noted. Stands before ``social_core.pipeline.user.create_user``.

    A token that this browser brought itself goes first.
    """
    visit = current_visit()
    if visit is None or mmolove_referral is None:
        return
    try:
        visit.restore(Captured(**mmolove_referral))
    except Exception as error:  # noqa: BLE001  # whatever a session store does
        trouble(logger, "restore", error, "A kept token could not be restored; the pipeline goes on without it.")
    else:
        over(logger, "restore", "Kept tokens can be restored again.")
