"""Account created, logged in, deleted: what the portal does anyway, turned into the verbs of ``lifecycle``.

Nothing here may harm the portal: trouble of ours is contained in a savepoint, logged, and healed at the
account's next login.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in
from django.db import DEFAULT_DB_ALIAS, OperationalError, router, transaction
from django.db.models.signals import post_save, pre_delete

from . import lifecycle
from .capture import Visit, current_visit
from .delivery.blank import forget
from .locks import promptly
from .logs import over, trouble
from .models import Referral
from .record import Captured

logger = logging.getLogger("mmolove_referral.signup")


def connect() -> None:
    """Listen to the user model and to its subclasses: a proxy or multi-table child is its own signal sender."""
    user_model = get_user_model()
    for model in apps.get_models():
        if issubclass(model, user_model):
            uid = f"mmolove_referral.{model._meta.label}"
            post_save.connect(on_account_saved, sender=model, dispatch_uid=uid)
            pre_delete.connect(on_account_deleted, sender=model, dispatch_uid=uid)
    user_logged_in.connect(on_logged_in, dispatch_uid="mmolove_referral")


def on_account_saved(
    sender: type[Any],
    instance: Any,
    created: bool,
    raw: bool = False,
    using: str = DEFAULT_DB_ALIAS,
    **kwargs: Any,
) -> None:
    """An account that an anonymous visitor with a token creates is a referred sign-up; nothing else is."""
    if not created or raw:
        return
    visit = current_visit()
    if visit is None:
        return
    try:
        captured = visit.brings()
        if captured is not None:
            _attach(instance, visit, captured, using, new=True)
    except Exception as error:  # noqa: BLE001  # whatever a session store does
        trouble(logger, "sign-up", error, "The token of a sign-up could not be read; the sign-up goes on.")
    else:
        over(logger, "sign-up", "The tokens of sign-ups can be read again.")


def on_logged_in(sender: type[Any], user: Any, **kwargs: Any) -> None:
    """Attach what a crash or a contained error left unattached."""
    visit = current_visit()
    if visit is None:
        return
    try:
        captured = visit.owes(user)
        if captured is not None and visit.attached_to is None and not visit.put_off:
            _attach(user, visit, captured, router.db_for_write(Referral, instance=user), new=False)
    except Exception as error:  # noqa: BLE001  # whatever a session store does
        trouble(logger, "login", error, "The token of a login could not be read; the login goes on.")
    else:
        over(logger, "login", "The tokens of logins can be read again.")


def on_account_deleted(sender: type[Any], instance: Any, using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    try:
        with transaction.atomic(using=using):
            forget(instance, using=using)
    except Exception:
        extra = {"account": instance.pk}
        logger.exception("The referrals of a deleted account could not be closed; the deletion goes on.", extra=extra)


def _gone_to_another(visit: Visit, captured: Captured, using: str) -> bool:
    """Whether this request's token is on an account already (one that was not rolled back since)."""
    if visit.attached_to is None:
        return False
    # SQLite gives the key of a rolled-back row to the next one, which may be somebody else's.
    return Referral.objects.using(using).filter(pk=visit.attached_to, token=captured.token).exists()


def _attach(user: Any, visit: Visit, captured: Captured, using: str, *, new: bool) -> None:
    try:
        if captured.expired:
            return
        with promptly(using) as accounts:
            if new and _gone_to_another(visit, captured, using):
                return
            told = visit.told(captured)
            referral = lifecycle.attach(user, told.token, server=told.server, code=told.code, using=using, new=new)
            accounts.update({referral.user_id, referral.referrer_id} - {None})
            # Used up with the commit: after a rollback the token is as before.
            transaction.on_commit(partial(visit.use_up, captured.token), using=using, robust=True)
        visit.attached_to = referral.pk
        over(logger, "attach", "Referrals can be attached again.", server=referral.server)
    except Exception as error:  # noqa: BLE001  # a database that fails, a callable of the portal's
        text = "A referral could not be attached; it will be at the account's next login."
        trouble(logger, "attach", error, text, account=user.pk)
        visit.put_off = isinstance(error, OperationalError)
        visit.owe(user)
