"""The verbs: what a portal says about a referred account, written as outbox rows in the caller's transaction.

Every verb locks the referral's row before it looks at the events, as settling does; so neither can miss what the
other just did.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldError, ImproperlyConfigured, ValidationError
from django.db import IntegrityError, router, transaction
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from . import protocol, signals
from .clock import DatabaseNow
from .conf import DEFAULT_SERVER, conf
from .delivery import dispatch, order
from .models import OutboundEvent, Referral, Reward
from .protocol import Kind
from .record import usable_code, usable_token


class SeveralServersError(ValueError):
    """An account has referrals on several servers, and it was not said which is meant."""

    def __init__(self, account: str, servers: Iterable[str]) -> None:
        names = ", ".join(map(repr, sorted(servers)))
        super().__init__(f"{account} has referrals on several servers; say which with server=…: {names}.")


PREFIXES = {Kind.REGISTERED: "reg", Kind.QUALIFIED: "qual", Kind.REVERSED: "rev"}


@sensitive_variables("token")
def attach_referral(user: Any, token: str, *, server: str = DEFAULT_SERVER, code: str = "") -> Referral:
    """Bind ``token`` to ``user`` and write ``registered`` (unless ``AUTO_REGISTER`` is off).

    For sign-ups that the middleware does not see. ``code`` is the referrer's share code, if known. An account
    that has a referral on that server keeps it: the existing one is returned. Raises ``ValueError`` for a token or
    code that can be none and :class:`~django_mmolove_referral.conf.ConfigError` for an unknown server.
    """
    check(user, token, code)
    using = router.db_for_write(Referral, instance=user)
    return attach(user, token, server=conf.server(server).alias, code=code, using=using, new=False)


def mark_registered(user: Any, *, server: str | None = None) -> OutboundEvent | None:
    """Write ``registered`` if that has not been done: the later step of ``AUTO_REGISTER = False``.

    Returns the event, or ``None`` for an account without a referral, with one that has ended, or whose event was
    pruned (as from all three verbs).
    """
    return _mark(user, server, Kind.REGISTERED)


def mark_qualified(user: Any, *, server: str | None = None) -> OutboundEvent | None:
    """Write ``qualified``: the account reached the portal's milestone. Call it as often as you like.

    The event waits until ``registered`` has been accepted. Returns the event, or ``None`` (after one query) for an
    account without a referral; ``None``, too, if the referral has ended or been blanked (``TOKEN_RETENTION`` after
    the token was worth something; then no verb writes anything to be sent). With referrals on several servers
    ``server`` has to say which; otherwise ``ValueError``.
    """
    return _mark(user, server, Kind.QUALIFIED)


def mark_reversed(user: Any, *, server: str | None = None) -> OutboundEvent | None:
    """Take the referral back (refund, abuse): cancel an unsent ``qualified`` and a due reward, report ``reversed``.

    What MMOLove may have recorded is followed by ``reversed``, in order. A reward that has been granted stays so:
    taking it back is the portal's business (signal ``referral_reversed``). Returns the event, or ``None``
    for an account without a referral or with one that ended otherwise. Once the referral has been blanked
    (``TOKEN_RETENTION``) all of this holds, but nothing can be reported: the event is a cancelled one.
    """
    return _mark(user, server, Kind.REVERSED)


def share_link(user: Any, request: HttpRequest | None = None, *, server: str = DEFAULT_SERVER) -> str:
    """The link that ``user`` shares: the portal's own ``/join/<code>/``, absolute if ``request`` is given.

    It notes who shared it before it leads on to ``SHARE_URL``, as MMOLove never says who the referrer was. Raises
    ``ValueError`` for an anonymous visitor, and ``ImproperlyConfigured`` if the app's URLs are not included or
    ``REFERRER_CODE`` makes no usable code.
    """
    if user.pk is None:
        raise ValueError("Only an account has a share link, and this visitor has none.")
    code = usable_code(conf.referrer_code(user))
    if code is None:
        raise ImproperlyConfigured(
            "MMOLOVE_REFERRAL['REFERRER_CODE'] must give 1 to 255 printable characters without spaces and slashes."
        )
    alias = conf.server(server).alias
    try:
        path = join_path(code, alias)
    except NoReverseMatch as error:
        raise ImproperlyConfigured(
            'Add path("", include("django_mmolove_referral.urls")) to the portal\'s URLconf: share links need it.'
        ) from error
    return request.build_absolute_uri(path) if request is not None else path


aattach_referral = sync_to_async(attach_referral)
amark_registered = sync_to_async(mark_registered)
amark_qualified = sync_to_async(mark_qualified)
amark_reversed = sync_to_async(mark_reversed)
ashare_link = sync_to_async(share_link)


# -- for the receivers and the other verbs


def join_path(code: str, server: str) -> str:
    """The path of a share link. Raises ``NoReverseMatch`` if the app's URLs are not included."""
    if server == DEFAULT_SERVER:
        return reverse("mmolove_referral:join", args=[code])
    return reverse("mmolove_referral:join-server", args=[server, code])


@sensitive_variables("token")
def check(user: Any, token: str, code: str) -> None:
    """Raise ``ValueError`` for what can be no referral."""
    if usable_token(token) is None:
        raise ValueError("A referral token is 1 to 1,024 visible ASCII characters; this is none.")
    if user.pk is None:
        raise ValueError("Only an account can be referred, and this visitor has none.")
    if code and usable_code(code) is None:
        raise ValueError("A referrer code is 1 to 255 printable characters without spaces and slashes.")


@sensitive_variables("token")
def attach(user: Any, token: str, *, server: str, code: str, using: str, new: bool) -> Referral:
    """:func:`attach_referral` for values that have been checked; ``new`` spares a just created account the query."""
    referral = Referral(user=user, server=server, token=token, referrer_code=code)
    del token  # with DEBUG on, pages about errors show the variables that are hidden otherwise
    if not new:
        existing = Referral.objects.using(using).filter(user=user, server=server).first()
        if existing is not None:
            return existing
    referral.referrer = find_referrer(code, user, using)
    try:
        with transaction.atomic(using=using, savepoint=not new):
            referral.save(using=using, force_insert=True)
            if conf.auto_register:
                _write(referral, Kind.REGISTERED, user, OutboundEvent.State.PENDING, using)
    except IntegrityError:
        # Somebody else attached one between our look and our insert.
        existing = None if new else Referral.objects.using(using).filter(user=user, server=server).first()
        if existing is None:
            raise
        return existing
    _announce(signals.referral_captured, using, referral=referral)
    return referral


def find_referrer(code: str, user: Any, using: str) -> Any:
    """The account that ``code`` names, or ``None``: it names none, or ``user`` itself."""
    field = conf.referrer_code_field
    if not code or field is None:
        return None
    model = get_user_model()
    try:
        referrer = model._default_manager.using(using).get(**{field: code})
    except (
        model.DoesNotExist,
        model.MultipleObjectsReturned,
        FieldError,  # the codes are a property of the model, not a column
        ValidationError,
        ValueError,
        TypeError,
        OverflowError,
    ):
        return None  # a code that anybody can type into a link
    return None if referrer.pk == user.pk else referrer


@sensitive_variables("body")
def event_for(referral: Referral, kind: Kind, state: OutboundEvent.State, *, identity: str = "") -> OutboundEvent:
    """The outbox row of a locked referral, due now and yet to be saved. ``identity`` goes with ``registered``."""
    key = _key(kind, referral)
    server = conf.servers.get(referral.server)
    body = protocol.encode(
        kind,
        token=referral.token,
        # A server that the settings do not have any more gets its events when it is back; its id is filled in then.
        server_id=server.server_id if server else "",
        server_event_id=key,
        ts=int(time.time()),
        referee_identity=identity,
    )
    return OutboundEvent(
        referral=referral,
        server=referral.server,
        kind=kind.value,
        server_event_id=key,
        body=body,
        state=state,
        due_at=DatabaseNow(),  # the database's own clock, not this process's
    )


# -- inside


def _mark(user: Any, server: str | None, kind: Kind) -> OutboundEvent | None:
    if user.pk is None:  # an anonymous visitor
        return None
    using = router.db_for_write(Referral, instance=user)
    pk = _pick(user, server, using)
    if pk is None:
        return None
    with transaction.atomic(using=using):
        referral, events = order.lock_one(pk, using=using)
        existing = events.get(kind.value)
        if existing is not None or referral.ended:
            return existing
        if referral.given_up(kind.value):
            return None
        if kind is Kind.REVERSED:
            _reverse(referral, events, using)
        if referral.blanked:  # by its age, or with its account, which may just be going
            return _note_reversal(referral, using) if kind is Kind.REVERSED else None
        free = order.may_leave(kind.value, referral, events)
        state = OutboundEvent.State.PENDING if free else OutboundEvent.State.WAITING
        return _write(referral, kind, user, state, using)


def _pick(user: Any, server: str | None, using: str) -> int | None:
    found = Referral.objects.using(using).filter(user=user).values_list("pk", "server")
    if server is not None:
        found = found.filter(server=conf.server(server).alias)
    rows = list(found)
    if len(rows) > 1:
        raise SeveralServersError("This account", (alias for _, alias in rows))
    return rows[0][0] if rows else None


def _reverse(referral: Referral, events: order.Events, using: str) -> None:
    qualified = events.get(Kind.QUALIFIED.value)
    if qualified is not None and qualified.open and not qualified.sent:
        order.cancel(qualified, OutboundEvent.Reason.REVERSED)
        qualified.save(using=using)
    Reward.objects.using(using).filter(referral=referral, state=Reward.State.DUE).update(state=Reward.State.CANCELLED)
    referral.state, referral.closed_at = Referral.State.REVERSED, timezone.now()
    referral.save(using=using, update_fields=["state", "closed_at"])


def _write(referral: Referral, kind: Kind, user: Any, state: OutboundEvent.State, using: str) -> OutboundEvent:
    event = event_for(referral, kind, state, identity=_identity(user) if kind is Kind.REGISTERED else "")
    event.save(using=using, force_insert=True)
    event.__dict__.pop("due_at")  # the database's own clock said when: loaded when somebody asks
    if state == OutboundEvent.State.PENDING:
        transaction.on_commit(dispatch.wake, using=using, robust=True)
    if kind is Kind.REVERSED:
        _announce(signals.referral_reversed, using, referral=referral, event=event, response={})
    return event


def _note_reversal(referral: Referral, using: str) -> OutboundEvent:
    """What MMOLove cannot be told any more: a row like any other, so that the portal's receivers know no difference."""
    event = OutboundEvent.objects.using(using).create(
        referral=referral,
        server=referral.server,
        kind=Kind.REVERSED.value,
        server_event_id=_key(Kind.REVERSED, referral),
        state=OutboundEvent.State.CANCELLED,
        reason=OutboundEvent.Reason.BLANKED,
        due_at=timezone.now(),
        settled_at=timezone.now(),
    )
    _announce(signals.referral_reversed, using, referral=referral, event=event, response={})
    return event


def _key(kind: Kind, referral: Referral) -> str:
    return f"{PREFIXES[kind]}-{referral.user_id}"


def _identity(user: Any) -> str:
    identity = conf.referee_identity(user).strip()
    if not identity:
        raise ImproperlyConfigured(
            "MMOLOVE_REFERRAL['REFEREE_IDENTITY'] must give each account an identity that is not empty."
        )
    return identity


def _announce(signal: Any, using: str, **news: Any) -> None:
    sender = type(next(iter(news.values())))
    transaction.on_commit(partial(signal.send_robust, sender=sender, **news), using=using, robust=True)
