"""Milestones by the thousand, for nightly batches: a constant number of queries for every 1,000 accounts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.db import router, transaction
from django.db.models import Exists, Field, Model, OuterRef, QuerySet
from django.db.models.query import ModelIterable

from .conf import conf
from .delivery import dispatch, order
from .delivery.retry import retrying
from .lifecycle import SeveralServersError, event_for
from .models import OutboundEvent, Referral
from .protocol import Kind

BATCH = 1000
"""Accounts of one transaction."""

QUALIFIED = Kind.QUALIFIED.value


@dataclass(frozen=True)
class Qualified:
    """How many accounts there were of each sort. One that is given again in another batch counts again."""

    #: ``qualified`` was written now.
    now: int = 0
    #: It had been written before.
    before: int = 0
    #: Referrals that have ended (conflict, reversed, expired), or whose ``registered`` was given up.
    ended: int = 0
    #: Accounts without a referral.
    unreferred: int = 0

    def __add__(self, other: Qualified) -> Qualified:
        return Qualified(
            self.now + other.now,
            self.before + other.before,
            self.ended + other.ended,
            self.unreferred + other.unreferred,
        )


def mark_qualified_many(accounts: Iterable[Any], *, server: str | None = None) -> Qualified:
    """:func:`~django_mmolove_referral.mark_qualified` for many accounts; returns how many were qualified.

    ``accounts`` are users or their primary keys: a queryset of users, of which only the keys are read, or any other
    iterable, of which no more than 1,000 are held at a time. Each 1,000 are one short transaction, or part of yours.

    Raises ``ValueError`` without ``server`` if one of the accounts has referrals on several servers, and ``TypeError``
    or ``ValueError`` for what can be no account. Nothing is written then of the 1,000 that it is among; those before
    are done, and doing them again does nothing. Raises :class:`~django_mmolove_referral.conf.ConfigError` for an
    unknown server.
    """
    return _in_batches(accounts, server, _write)


def would_qualify(accounts: Iterable[Any], *, server: str | None = None) -> Qualified:
    """What :func:`mark_qualified_many` would return now. Writes nothing; raises the same."""
    return _in_batches(accounts, server, _count)


amark_qualified_many = sync_to_async(mark_qualified_many)


def _in_batches(
    accounts: Iterable[Any], server: str | None, treat: Callable[[list[Referral], str], Qualified]
) -> Qualified:
    using = router.db_for_write(Referral)
    alias = None if server is None else conf.server(server).alias
    done, keys = Qualified(), _keys(accounts)
    while batch := set(islice(keys, BATCH)):
        # Before the transaction, as a lock must not be preceded by a look that freezes what is seen.
        found = retrying(lambda batch=batch: _referrals(batch, alias, using))  # type: ignore[misc]  # bound at once
        done += Qualified(unreferred=len(batch) - len(found))
        done += treat(found, using)
    return done


def _referrals(keys: set[Any], server: str | None, using: str) -> list[Referral]:
    """The referrals of these accounts, one for each, and whether ``qualified`` has been written as ``written``."""
    qualified = OutboundEvent.objects.using(using).filter(referral=OuterRef("pk"), kind=QUALIFIED)
    rows = Referral.objects.using(using).filter(user__in=keys).annotate(written=Exists(qualified))
    by_account: dict[Any, Referral] = {}
    for referral in rows if server is None else rows.filter(server=server):
        other = by_account.setdefault(referral.user_id, referral)
        if other is not referral:
            raise SeveralServersError(f"The account {referral.user_id}", (other.server, referral.server))
    return list(by_account.values())


def _sort(referral: Referral, *, written: bool) -> Qualified:
    """This referral among the counts, as :func:`mark_qualified` would treat it."""
    if written or QUALIFIED in referral.pruned.split():
        return Qualified(before=1)
    if referral.ended or not referral.token or referral.given_up(QUALIFIED):
        return Qualified(ended=1)
    return Qualified(now=1)


def _count(found: list[Referral], using: str) -> Qualified:
    return sum((_sort(referral, written=referral.written) for referral in found), Qualified())  # type: ignore[attr-defined]  # annotated


def _write(found: list[Referral], using: str) -> Qualified:
    """Lock only what is left to be done: of a nightly batch most have been qualified long since."""
    left = [one.pk for one in found if _sort(one, written=one.written).now]  # type: ignore[attr-defined]  # annotated
    done = replace(_count(found, using), now=0)
    return done + retrying(lambda: _write_locked(left, using)) if left else done


def _write_locked(pks: list[int], using: str) -> Qualified:
    done, events = Qualified(), []
    with transaction.atomic(using=using):
        locked = order.lock(pks, using=using)
        for referral, existing in locked.values():
            sort = _sort(referral, written=QUALIFIED in existing)
            done += sort
            if sort.now:
                free = order.may_leave(QUALIFIED, referral, existing)
                state = OutboundEvent.State.PENDING if free else OutboundEvent.State.WAITING
                events.append(event_for(referral, Kind.QUALIFIED, state))
        OutboundEvent.objects.using(using).bulk_create(events)
        if any(event.state == OutboundEvent.State.PENDING for event in events):
            transaction.on_commit(dispatch.wake, using=using, robust=True)
    return done


# -- accounts of any kind


def _keys(accounts: Iterable[Any]) -> Iterator[Any]:
    """The primary keys of these accounts, each batch read when it is its turn."""
    if isinstance(accounts, (str, bytes)):
        raise TypeError(f"Give a list of accounts or of their primary keys, not {accounts!r}.")
    if isinstance(accounts, QuerySet) and accounts._iterable_class is ModelIterable:
        if not issubclass(accounts.model, get_user_model()):
            raise TypeError(f"Give a queryset of accounts: of {accounts.model.__name__}, take the keys of their users.")
        return _keys_of(accounts)
    field = key_field()
    return (key for key in (_key(account, field) for account in accounts) if key is not None)


def _keys_of(accounts: QuerySet[Any]) -> Iterator[Any]:
    """By key from batch to batch: no cursor is held open over the transactions in between."""
    query = accounts.query
    if query.is_sliced or query.combinator or query.distinct_fields:  # they cannot be narrowed any more
        yield from accounts.values_list("pk", flat=True)
        return
    rows = accounts.order_by("pk").values_list("pk", flat=True)
    batch = list(rows[:BATCH])
    yield from batch
    while len(batch) == BATCH:
        batch = list(rows.filter(pk__gt=batch[-1])[:BATCH])
        yield from batch


def _key(account: Any, field: Field[Any, Any]) -> Any:
    if isinstance(account, Model):
        if not isinstance(account, get_user_model()):
            raise TypeError(f"{type(account).__name__} is no account: give its user.")
        return account.pk
    if account is None or isinstance(account, AnonymousUser):
        return None
    return read(field, account)


def read(field: Field[Any, Any], value: Any) -> Any:
    """``value`` as ``field`` has it, be it text. Raises ``ValueError`` if no account can have that."""
    error = ValueError(f"{value!r} is neither an account nor the {field.verbose_name} of one.")
    try:
        found = field.to_python(value)
        if isinstance(found, int):
            field.run_validators(found)  # what the database can hold
    except (ValidationError, TypeError):  # UUIDField knows nothing of bytes
        raise error from None
    if isinstance(found, str):
        well = "\0" not in found and found == found.encode("utf-8", "replace").decode()  # what every database takes
    else:
        # "1_000" and 7.5 are whole numbers to Python.
        well = not isinstance(found, int) or str(found) == str(value)
    if not well:
        raise error
    return found


def key_field() -> Field[Any, Any]:
    """The field that an account's primary key is of: its own, or where that is a link to a parent, the parent's."""
    field: Any = get_user_model()._meta.pk
    while field.remote_field is not None:
        field = field.target_field
    return field  # type: ignore[no-any-return]  # unknown to the stubs
