"""Text that came from elsewhere, made fit to be shown and stored: printable, and without the token in it. Pure."""

from __future__ import annotations

import json
import re
from html import escape
from urllib.parse import quote

_KEPT_LENGTH = 500
_PLAIN = re.compile(r"[\w.~-]*", re.ASCII)


def printable(text: str, limit: int = _KEPT_LENGTH) -> str:
    """``text`` in one line without control characters or lone surrogates, at most ``limit`` long."""
    text = text[:limit]
    if text.isprintable():
        return text
    safe = text.encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() else " " for char in safe)


def masked(text: str, token: str) -> str:
    """``text`` with the token blotted out."""
    for spelling in _spellings(token):
        text = text.replace(spelling, mask(token))
    return text


def _spellings(token: str) -> tuple[str, ...]:
    """The token as JSON, HTML and URLs write it, the longest first: most have nothing that is written otherwise."""
    if _PLAIN.fullmatch(token):
        return (token,) if token else ()
    quoted = json.dumps(token)[1:-1]
    spellings = {token, quoted, quoted.replace("/", r"\/"), escape(token), quote(token, safe="")}
    return tuple(sorted(spellings, key=len, reverse=True))


class Blot:
    """Blots a token out of what a peer sent back, and shows it in no ``repr`` and traceback itself."""

    __slots__ = ("_token",)

    def __init__(self, token: str = "") -> None:
        self._token = token

    def text(self, text: str) -> str:
        return masked(text, self._token)

    def body(self, body: bytes) -> bytes:
        for spelling in _spellings(self._token):
            body = body.replace(spelling.encode(), mask(self._token).encode())
        return body


def mask(token: str) -> str:
    """Enough of a token to recognise it by, too little to use it."""
    return f"{token[:4]}…{token[-2:]}" if len(token) >= 16 else "…"
