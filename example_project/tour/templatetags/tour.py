from __future__ import annotations

import json
from datetime import datetime, timezone

from django import template

register = template.Library()


@register.filter
def masked(token: str) -> str:
    """Enough of a token to recognise it by on both sides, too little to use it."""
    return f"{token[:4]}…{token[-2:]}" if len(token) >= 16 else "…"


@register.filter
def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


@register.filter
def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
