"""A portal that forgot the app's URLs."""

from __future__ import annotations

from typing import Any

urlpatterns: list[Any] = []
