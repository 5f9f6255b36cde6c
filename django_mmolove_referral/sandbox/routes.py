"""The sandbox's routes, as both faces serve them: share links, the endpoint and MMOLove's side of the log."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from django.template import Context, Engine
from django.utils.encoding import iri_to_uri

from ..protocol import SIGNATURE_HEADER
from .response import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .core import Sandbox
    from .state import Entry

EVENTS_PATH = "api/referral/events"
SHARE_PREFIX = "r/"
STYLE_PATH = "log.css"

_SHOWN = 200


def handle(
    sandbox: Sandbox,
    method: str,
    path: str,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Response:
    """The answer to one HTTP request.

    ``path`` is unquoted and relative to where the sandbox is mounted, ``query`` raw. Pass at most one byte
    more than :data:`~.wire.MAX_BODY` of a body.
    """
    if path == EVENTS_PATH:
        named = {name.lower(): value for name, value in (headers or {}).items()}
        response = sandbox.ingest(
            body,
            named.get(SIGNATURE_HEADER.lower(), ""),
            content_type=named.get("content-type", ""),
            method=method,
        )
    elif method not in ("GET", "HEAD"):
        response = Response.of(405, {"error": "method_not_allowed"}, Allow="GET, HEAD")
    elif path.startswith(SHARE_PREFIX):
        response = _share(sandbox, path[len(SHARE_PREFIX) :].rstrip("/"), query)
    elif path == "":
        response = _page("log.html", "text/html", referrals=_referral_rows(sandbox), log=_log_rows(sandbox))
    elif path == STYLE_PATH:
        response = _page("log.css", "text/css")
    else:
        response = Response.of(404, {"error": "not_found"})
    return replace(response, headers={"Cache-Control": "no-store", **response.headers})


def _share(sandbox: Sandbox, server_id: str, query: str) -> Response:
    try:
        url = sandbox.click(server_id, parse_qs(query).get("ref", [""])[-1])
    except LookupError as error:
        return Response.of(404, {"error": str(error)})
    return Response(302, headers={"Location": iri_to_uri(url)})


@cache
def _engine() -> Engine:
    """An engine of our own: the page is the same with and without a Django project around it."""
    return Engine(dirs=[str(Path(__file__).parents[1] / "templates" / "mmolove_referral" / "sandbox")])


def _page(template: str, content_type: str, **context: Any) -> Response:
    html = _engine().get_template(template).render(Context(context))
    return Response(200, html.encode("utf-8", "replace"), {"Content-Type": f"{content_type}; charset=utf-8"})


# The pages get text only: anything else would make the engine ask Django's settings for its formats.


def _referral_rows(sandbox: Sandbox) -> list[dict[str, str]]:
    return [
        {
            "id": referral.id,
            "server": referral.server_id,
            "referrer": referral.referrer,
            "referee": referral.referee,
            "state": referral.state,
            "registered": _time(referral.registered_at),
            "qualified": _time(referral.qualified_at),
        }
        for referral in reversed(sandbox.referrals[-_SHOWN:])
    ]


def _log_rows(sandbox: Sandbox) -> list[dict[str, str]]:
    return [
        {
            "time": _time(entry.at),
            "server": entry.server_id,
            "kind": entry.kind + (" (dry run)" if entry.test else ""),
            "token": entry.masked_token,
            "event_id": entry.server_event_id,
            "who": entry.referee_identity or entry.referrer,
            "status": str(entry.status or ""),
            "answer": _answer(entry),
        }
        for entry in reversed(sandbox.log[-_SHOWN:])
    ]


def _answer(entry: Entry) -> str:
    decided = json.dumps(entry.answer, ensure_ascii=False) if entry.answer else ""
    return " · ".join(filter(None, [decided, entry.fault and f"fault: {entry.fault}"]))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
