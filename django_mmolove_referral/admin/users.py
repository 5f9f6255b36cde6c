"""An account's referral on the account's own page, for the portal's ``UserAdmin``."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..models import Referral
from .base import ReadOnly, TabularInline, badge, linked, linked_events, unknown
from .operations import operation_url
from .referrals import QUALIFY, may_qualify


class ReferralInline(ReadOnly, TabularInline[Referral, Any]):
    """By whom the account came, how far that got, what was sent and earned, and *Mark qualified*. ::

        class PlayerAdmin(UserAdmin):
            inlines = [ReferralInline]

    Shown to staff who may view referrals, and only for accounts that exist; nothing in it can be edited, so
    saving the account leaves it alone.
    """

    model = Referral
    fk_name = "user"
    extra = 0
    ordering = ("pk",)
    verbose_name = _("MMOLove referral")
    verbose_name_plural = _("MMOLove referral")

    class Media:
        css = {"all": ["mmolove_referral/admin.css"]}  # noqa: RUF012  # as Django declares it

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is not None and super().has_view_permission(request, obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Referral]:
        # Not by way of super(), which asks for the permission without the account.
        rows = Referral._default_manager.select_related("referrer", "reward").prefetch_related("events")
        return rows.order_by("pk")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        qualify = ("qualify",) if request.user.has_perm(f"mmolove_referral.{QUALIFY.permission}") else ()
        return ("link", "state_badge", *qualify, "referred_by", "events", "reward_badge", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_fields(request, obj)

    @admin.display(description=_("referral"))
    def link(self, referral: Referral) -> SafeString | str:
        return linked(referral, f"{referral.pk} ({referral.server})", site=self.admin_site.name)

    @admin.display(description=_("state"))
    def state_badge(self, referral: Referral) -> SafeString:
        return badge(referral)

    @admin.display(description=_("referrer"))
    def referred_by(self, referral: Referral) -> SafeString | str:
        return linked(referral.referrer, unknown=unknown(), site=self.admin_site.name)

    @admin.display(description=_("events"))
    def events(self, referral: Referral) -> SafeString | str:
        return linked_events(sorted(referral.events.all(), key=lambda event: event.pk), self.admin_site.name)

    @admin.display(description=_("reward"))
    def reward_badge(self, referral: Referral) -> SafeString | str:
        reward = getattr(referral, "reward", None)
        return "-" if reward is None else linked(reward, badge(reward), site=self.admin_site.name)

    @admin.display(description=_("milestone"))
    def qualify(self, referral: Referral) -> SafeString | str:
        url = operation_url(self.admin_site.name, referral, QUALIFY.name)
        if not url or not may_qualify(referral):
            return "-"
        return format_html('<a class="button mmolove-button" href="{}">{}</a>', url, QUALIFY.label)
