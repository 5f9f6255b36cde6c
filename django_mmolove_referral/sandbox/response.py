"""An HTTP answer, as both faces send it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .faults import Fault


@dataclass(frozen=True)
class Response:
    """An HTTP answer, for a face to send."""

    status: int
    body: bytes = b""
    #: Names in ``Title-Case``.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: What the face does to it on the way out.
    fault: Fault | None = None

    @classmethod
    def of(cls, status: int, answer: Mapping[str, Any], **headers: str) -> Response:
        """A JSON answer."""
        return cls(status, json.dumps(answer).encode(), {"Content-Type": "application/json", **headers})

    def json(self) -> Any:
        """The parsed body; raises ``ValueError`` if it is no JSON."""
        return json.loads(self.body)


def spoil(response: Response, fault: Fault) -> Response:
    """The answer that leaves instead of ``response``."""
    headers = {name.title(): value for name, value in fault.headers.items()}
    if fault.status is None:
        return replace(response, headers={**response.headers, **headers}, fault=fault)
    if isinstance(fault.body, bytes):
        return Response(fault.status, fault.body, {"Content-Type": "text/html; charset=utf-8", **headers}, fault)
    return replace(Response.of(fault.status, fault.body, **headers), fault=fault)
