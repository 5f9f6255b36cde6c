"""The MMOLove servers: how delivery to each stands, and a test event to find out."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import router
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from .. import advice
from ..clock import DatabaseNow
from ..conf import ConfigError
from ..delivery.dry_run import dry_run
from ..models import OutboundEvent, ServerHealth
from .base import LogAdmin
from .cards import Card, cards
from .overview import overview
from .pages import page


class ServerHealthAdmin(LogAdmin[ServerHealth]):
    """In place of a changelist: every configured server, whether or not anything has been written about it yet."""

    def get_urls(self) -> list[URLPattern]:
        test = self.admin_site.admin_view(require_POST(self.test_view))
        return [
            path("overview/", self.admin_site.admin_view(self.overview_view), name="mmolove_referral_overview"),
            path("<str:alias>/test/", test, name="mmolove_referral_test_event"),
            *super().get_urls(),
        ]

    def overview_view(self, request: HttpRequest) -> HttpResponse:
        return overview(self, request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return page(
            self,
            request,
            "servers",
            capfirst(str(self.opts.verbose_name_plural)),
            may_test=self.may(request, "send_test_event"),
            servers=self._servers(request),
        )

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """The admin's log links to a row's own page; the page of all servers says the same."""
        return HttpResponseRedirect(self._page())

    def test_view(self, request: HttpRequest, alias: str) -> HttpResponse:
        if not self.may(request, "send_test_event"):
            raise PermissionDenied
        using = router.db_for_write(OutboundEvent)
        try:
            result = dry_run(alias, using=using)
        except ConfigError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(self._page())
        health, _created = ServerHealth.objects.get_or_create(server=alias, defaults={"since": DatabaseNow()})
        self.log_change(request, health, "Sent a test event.")
        return page(
            self,
            request,
            "test_event",
            _("Test event to %s") % alias,
            result=result,
            duration=round(result.attempt.duration * 1000),
            advice=advice.of_dry_run(result, health),
        )

    def _page(self) -> str:
        return reverse(f"{self.admin_site.name}:mmolove_referral_serverhealth_changelist")

    def _servers(self, request: HttpRequest) -> list[Card]:
        try:
            return cards({health.server: health for health in ServerHealth.objects.all()})
        except ConfigError as error:
            self.message_user(request, str(error), messages.ERROR)
            return []
