"""Referrals: who came by whose link, and how far it got."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..delivery.settle import mask
from ..models import OutboundEvent, Referral
from .base import LogAdmin, ReadOnly, TabularInline, badge, linked, unknown, username_lookup


class OutboundEventInline(ReadOnly, TabularInline[OutboundEvent, Referral]):
    model = OutboundEvent
    fields = readonly_fields = ("link", "state_badge", "outcome", "attempts", "last_status", "last_error", "created_at")
    ordering = ("pk",)
    extra = 0
    verbose_name_plural = _("Events")

    @admin.display(description=_("event"))
    def link(self, event: OutboundEvent) -> SafeString | str:
        return linked(event, f"{event.kind} {event.server_event_id}", site=self.admin_site.name)

    @admin.display(description=_("state"))
    def state_badge(self, event: OutboundEvent) -> SafeString:
        return badge(event)


class ReferralAdmin(LogAdmin[Referral]):
    list_display = ("__str__", "account", "state_badge", "referred_by", "reward_badge", "server", "created_at")
    list_filter = ("state", "server")
    list_select_related = ("user", "referrer", "reward")
    ordering = ("-pk",)
    inlines = (OutboundEventInline,)
    search_help_text = _(
        "Exactly: a username (of either), a referral id of MMOLove's, or an idempotency key (reg-7842)."
    )

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [
            username_lookup("user"),
            username_lookup("referrer"),
            "referral_id__exact",
            "events__server_event_id__exact",
        ]

    def get_fieldsets(self, request: HttpRequest, obj: Referral | None = None) -> Any:
        token = "token" if self.may(request, "view_token") else "masked_token"
        return (
            (
                None,
                {
                    "fields": (
                        ("account", "referred_by", "referrer_code"),
                        ("state_badge", "reward_badge", "referral_id"),
                        ("server", token),
                    )
                },
            ),
            (_("When"), {"fields": (("created_at", "registered_at", "qualified_at", "closed_at"),)}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Referral | None = None) -> Any:
        return flatten_fieldsets(self.get_fieldsets(request, obj))

    @admin.display(description=_("state"), ordering="state")
    def state_badge(self, referral: Referral) -> SafeString:
        return badge(referral)

    @admin.display(description=_("referred account"))
    def account(self, referral: Referral) -> SafeString | str:
        return linked(referral.user, site=self.admin_site.name)

    @admin.display(description=_("referrer"))
    def referred_by(self, referral: Referral) -> SafeString | str:
        return linked(referral.referrer, unknown=unknown(), site=self.admin_site.name)

    @admin.display(description=_("reward"))
    def reward_badge(self, referral: Referral) -> SafeString | str:
        reward = getattr(referral, "reward", None)
        return "-" if reward is None else linked(reward, badge(reward), site=self.admin_site.name)

    @admin.display(description=_("token"))
    def masked_token(self, referral: Referral) -> str:
        return mask(referral.token) if referral.token else "-"
