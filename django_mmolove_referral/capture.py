"""A visit: which referral token a browser brought, and the context that carries it to the sign-up.

The visit's record lives in the session. A :class:`Visit` is a lazy view of it for one request; it touches the
session only for a visitor with a token, or when an account is in fact created. A token that a request carries in its
body is offered to the visit (:func:`offer_token`) and is good for this request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest

from .conf import conf
from .logs import over, trouble
from .record import Captured, Record, carried_token

logger = logging.getLogger("mmolove_referral.capture")

SESSION_KEY = "mmolove_referral"


class Visit:
    """One request's visit. Alive until its response has been made; holds the session that the request came with.

    Some libraries swap ``request.session`` during a sign-up, so the session is taken from the start.
    """

    # Defaults of the class, as most requests change nothing of it.
    #: The record of a visitor without a session, or who is to keep nothing: good for this request (an API that
    #: creates accounts).
    _record: Record | None = None
    #: The token that this request carries in its body, and when it was offered.
    _offered = ""
    _offered_at = 0
    #: The server of this request, once it was asked for.
    _told = ""
    _may_keep: bool | None = None
    #: The referral that this request's token went to, if any: a token is used once per browser.
    attached_to: int | None = None
    #: The database was not to be had: trying again in the same request would keep the visitor waiting twice.
    put_off = False
    #: The response is this visitor's own: the record has changed, or the page shows the token.
    private = False
    changed = False
    used_up = False

    def __init__(self, request: HttpRequest) -> None:
        #: ``None`` once the response is made: whatever outlives it (a background task) sees no visitor any more.
        self.request: HttpRequest | None = request
        self._session: MutableMapping[str, Any] | None = getattr(request, "session", None)

    def may_keep(self, *, ask: bool = True) -> bool:
        """Whether this visitor may be given something to keep: what ``CAPTURE_IF`` says, asked once per request.

        Without ``ask`` it is not asked, and has not said yes unless it did before.
        """
        if self._may_keep is None:
            try:
                question = conf.capture_if
                if question is not None and not ask:
                    return False
                self._may_keep = question is None or bool(question(self.request))
                over(logger, "consent", "CAPTURE_IF answers again.")
            except Exception as error:  # noqa: BLE001  # CAPTURE_IF is the portal's
                trouble(logger, "consent", error, "CAPTURE_IF gave no answer; nothing is captured until it does.")
                self._may_keep = False
        return self._may_keep

    def capture(self, token: str) -> bool:
        """Write ``token`` into the record; ``False`` if there was nothing to change."""
        if self.request is None:
            return False
        record = self._load()
        try:
            server = self._server(token, record)
            over(logger, "visit", "The servers of visits can be told again.")
        except Exception as error:  # noqa: BLE001  # RESOLVE_SERVER is the portal's
            trouble(logger, "visit", error, "The server of a visit could not be told; it will be at the sign-up.")
            server = ""
        if not record.take(token, server, int(time.time())):
            return False
        self._store(record)
        return True

    def offer(self, token: str) -> None:
        """Have an account that is made now get ``token``, as if it had just been captured. Nothing is stored."""
        self._offered, self._offered_at, self._told = token, int(time.time()), ""

    def restore(self, captured: Captured) -> None:
        """Go on with a visit that began in another browser, unless this one has a token of its own."""
        if self.request is None or self.token:
            return
        record = self._load()
        if record.has_used(captured.token):
            return
        record.token, record.code = captured.token, captured.code
        record.server, record.at = captured.server, captured.at
        record.owed_to = ""
        self._store(record)

    @property
    def token(self) -> str:
        """The token that this visit would bring to an account, or ``""``: none, or one too old."""
        captured = self.captured
        return "" if captured is None else captured.token

    @property
    def captured(self) -> Captured | None:
        """What the visit would bring, whoever the visitor is: ``None`` without a token, and for one too old."""
        captured = self._captured()
        return None if captured is None or captured.expired else captured

    def show(self) -> str:
        """:attr:`token` to be shown in the response, which no cache may give to anybody else then. Never raises."""
        if self.request is None:
            return ""
        try:
            token = self.token
            over(logger, "form", "Forms can be given their tokens again.")
        except SynchronousOnlyOperation:  # an async view whose session has not been read yet; it keeps the token anyway
            return ""
        except Exception as error:  # noqa: BLE001  # whatever a session store does
            trouble(logger, "form", error, "A form could not be given its token; the visitor goes on without it.")
            return ""
        if token:
            self.private = True
            # cache_page stores the page before the middleware can mark it; this is how Django's caches are told sooner.
            self.request._cache_update_cache = False  # type: ignore[attr-defined]
        return token

    def note_code(self, code: str, server: str) -> None:
        """Remember who shared the link to ``server``, for its token with which the visitor is about to come back."""
        if not self.may_keep():
            return
        record = self._load()
        record.note(code, server, int(time.time()))
        self._store(record)

    def brings(self) -> Captured | None:
        """The token for an account created now, or ``None``: nobody's visit, a logged-in visitor, no token."""
        if self.request is None:
            return None
        captured = self._captured()
        if captured is None:
            return None
        user = getattr(self.request, "user", None)
        return None if user is not None and user.is_authenticated else captured

    def owes(self, user: Any) -> Captured | None:
        """The token for an account that logs in now and was created by this visit without getting it.

        Either the record says so, or the account was made after the token came (a crash left no note).
        """
        if self.request is None:
            return None
        captured = self._captured()
        if captured is None:
            return None
        joined = getattr(user, "date_joined", None)
        came_after = isinstance(joined, datetime) and joined.timestamp() >= captured.at
        return captured if came_after or self._latest().owed_to == str(user.pk) else None

    def owe(self, user: Any) -> None:
        """Note that ``user`` was created by this visit and has not got its token."""
        record = self._latest()
        record.owed_to = str(user.pk)
        self._store(record)

    def use_up(self, token: str) -> None:
        """The token went to an account for good."""
        offered = token == self._offered
        record = self._latest() if offered else self._load()
        record.use_up(token)
        if offered:
            self._offered = ""
        # An API's client that keeps no cookies is not given one to remember what it offered.
        self._store(record, begin=not offered)
        self.private = self.changed = self.used_up = True

    def _captured(self) -> Captured | None:
        record = self._latest()
        return Captured(record.token, record.server, record.code, record.at) if record.token else None

    def told(self, captured: Captured) -> Captured:
        """With the server, and its code, if that could not be told when the token came.

        Raises what ``RESOLVE_SERVER`` does, and :class:`~django_mmolove_referral.conf.ConfigError` for an alias that
        the settings do not have.
        """
        if captured.server in conf.servers:
            return captured
        record = self._load()
        server = self._server(captured.token, record)
        if captured.token == self._offered:
            self._told = server
        return replace(captured, server=server, code=captured.code or record.code_for(server, captured.at))

    def _server(self, token: str, record: Record) -> str:
        """What ``RESOLVE_SERVER`` says; else the server that the token belonged to before; else that of the share link
        which was followed last; else the first.
        """
        resolve = conf.resolve_server
        alias = resolve(self.request) if resolve else None
        before = record.server if record.token == token else ""
        expected = record.expects(conf.servers, int(time.time()))
        return conf.server(alias or before or expected or next(iter(conf.servers))).alias

    def _latest(self) -> Record:
        """The record, with the token that was offered as the last one captured."""
        record = self._load()
        if self._offered:
            # A token that has been captured before keeps its server; another one's is told at the sign-up.
            server = record.server if self._offered == record.token else self._told
            record.take(self._offered, server, self._offered_at)
        return record

    def _load(self) -> Record:
        if self._record is not None:
            return replace(self._record)
        if self._session is None or self._empty:  # reading an empty one, too, sets ``Vary: Cookie``
            return Record()
        return Record.load(self._session.get(SESSION_KEY))

    @property
    def _empty(self) -> bool:
        """Whether the visitor has no session yet."""
        is_empty = getattr(self._session, "is_empty", None)
        return self._session is None or (is_empty is not None and bool(is_empty()))

    def _store(self, record: Record, *, begin: bool = True) -> None:
        """Write the record: into the session, which it may ``begin``, or for this request alone."""
        empty = self._empty
        held = self._session is not None and not empty and SESSION_KEY in self._session
        # Not asked from here: within the portal's transaction a query that fails would break the sign-up.
        allowed = held or self.may_keep(ask=False)
        if allowed:
            self.private = self.changed = True
        if self._session is None or self._record is not None or not allowed or (empty and not begin):
            self._record = record
        else:
            self._session[SESSION_KEY] = {key: value for key, value in asdict(record).items() if value}


_current: ContextVar[Visit | None] = ContextVar("mmolove_referral_visit", default=None)

current_visit = _current.get
enter_visit = _current.set


def offer_token(token: object) -> bool:
    """Offer a token that the request carries in its body (a form field, JSON) to the account it is about to create.

    Call it before the account is created, in a sync or an async view; it reads neither session nor database, and
    stores nothing. The token goes to the first account that an anonymous visitor creates in this request, before any
    token that was captured earlier. Never raises: ``False`` says that nothing was offered, as ``token`` can be none,
    or as the request does not pass through ``ReferralMiddleware``.
    """
    usable, visit = carried_token(token), current_visit()
    if usable is None or visit is None or visit.request is None:
        return False
    visit.offer(usable)
    return True
