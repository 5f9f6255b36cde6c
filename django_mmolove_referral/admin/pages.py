"""Pages of our own within the admin."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from .base import LogAdmin


def page(admin: LogAdmin[Any], request: HttpRequest, name: str, title: str, **context: Any) -> HttpResponse:
    """The page ``name`` with the frame of ``admin``'s site, whose links stay within that site."""
    request.current_app = admin.admin_site.name  # as all views of the admin do
    return TemplateResponse(
        request,
        f"admin/mmolove_referral/{name}.html",
        {**admin.admin_site.each_context(request), "title": title, "opts": admin.opts, "media": admin.media, **context},
    )
