"""The portal's own share link: notes who shared it, then sends the visitor on to MMOLove."""

from __future__ import annotations

import logging
from urllib.parse import urlencode, urlsplit, urlunsplit

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import get_script_prefix
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .capture import current_visit
from .conf import DEFAULT_SERVER, ConfigError, conf
from .logs import over, trouble
from .record import usable_code

logger = logging.getLogger("mmolove_referral.join")


@never_cache
@require_safe
def join(request: HttpRequest, code: str, server: str = DEFAULT_SERVER) -> HttpResponse:
    """``/join/<code>/``: on to ``SHARE_URL?ref=<code>``; MMOLove sends the visitor back with a token.

    The visitor never sees an error: a code that can be none is dropped, and without a ``SHARE_URL`` the portal's
    front page is the next best place.
    """
    usable = usable_code(code)
    known = True
    try:
        known = server in conf.servers
        target = conf.server(server).share_url
        over(logger, f"share link of {server}", "Share links lead on again.", server=server)
    except ConfigError as error:
        target = ""
        _led_nowhere(server, error, mistyped=not known)
    visit = current_visit()
    if usable and known and visit is not None:
        try:
            visit.note_code(usable, server)
            over(logger, "code", "The codes of share links can be noted again.")
        except Exception as error:  # noqa: BLE001  # whatever a session store does
            text = "The code of a share link could not be noted; the visitor goes on without it."
            trouble(logger, "code", error, text)
    return HttpResponseRedirect(with_code(target, usable) if target else get_script_prefix())


def _led_nowhere(server: str, error: ConfigError, *, mistyped: bool) -> None:
    text = "A share link led nowhere: %s"  # the error says it all
    if mistyped:  # by anybody, so it neither wakes nor fills anything
        logger.info(text, error)
    else:
        topic = f"share link of {server}"
        trouble(logger, topic, str(error), text, error, level=logging.WARNING, trace=False, server=server)


def with_code(url: str, code: str | None) -> str:
    """``url`` with ``ref=<code>`` added to its query."""
    if code is None:
        return url
    parts = urlsplit(url)
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=query + urlencode({"ref": code})))
