"""The portal's own share link: notes who shared it, then sends the visitor on to MMOLove."""

from __future__ import annotations

import logging
from urllib.parse import urlencode, urlsplit, urlunsplit

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import get_script_prefix
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .capture import current_visit, usable_code
from .conf import DEFAULT_SERVER, ConfigError, conf

logger = logging.getLogger("mmolove_referral.join")


@never_cache
@require_safe
def join(request: HttpRequest, code: str, server: str = DEFAULT_SERVER) -> HttpResponse:
    """``/join/<code>/``: on to ``SHARE_URL?ref=<code>``; MMOLove sends the visitor back with a token.

    The visitor never sees an error: a code that can be none is dropped, and without a ``SHARE_URL`` the portal's
    front page is the next best place.
    """
    usable = usable_code(code)
    try:
        target = conf.server(server).share_url
    except ConfigError as error:
        logger.warning("A share link led nowhere: %s", error)  # the message says it all
        target = ""
    visit = current_visit()
    if usable and visit is not None:
        try:
            visit.note_code(usable)
        except Exception:
            logger.exception("The code of a share link could not be noted; the visitor goes on without it.")
    return HttpResponseRedirect(with_code(target, usable) if target else get_script_prefix())


def with_code(url: str, code: str | None) -> str:
    """``url`` with ``ref=<code>`` added to its query."""
    if code is None:
        return url
    parts = urlsplit(url)
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=query + urlencode({"ref": code})))
