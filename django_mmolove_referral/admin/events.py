"""Outbound events: what was sent, what came back, and what to do about it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import advice
from ..delivery.operate import cancel, redeliver
from ..delivery.settle import masked
from ..models import DeliveryAttempt, OutboundEvent, ServerHealth
from .base import LogAdmin, ReadOnly, TabularInline, badge, explained, linked, username_lookup


class DeliveryAttemptInline(ReadOnly, TabularInline[DeliveryAttempt, OutboundEvent]):
    model = DeliveryAttempt
    fields = readonly_fields = ("started", "duration", "signed_at", "status", "error", "answer_text", "in_time")
    ordering = ("pk",)
    extra = 0
    verbose_name_plural = _("Attempts")

    @admin.display(description=_("started at"))
    def started(self, attempt: DeliveryAttempt) -> str:
        return advice.when(attempt.started_at, "Y-m-d H:i:s")

    @admin.display(description=_("duration"))
    def duration(self, attempt: DeliveryAttempt) -> str:
        return f"{attempt.duration_ms} ms"

    @admin.display(description=_("answer"))
    def answer_text(self, attempt: DeliveryAttempt) -> SafeString:
        return format_html('<pre class="mmolove-text">{}</pre>', attempt.answer)

    @admin.display(description=_("in time"))
    def in_time(self, attempt: DeliveryAttempt) -> str:
        return gettext("too late to count") if attempt.late else gettext("yes")


class OutboundEventAdmin(LogAdmin[OutboundEvent]):
    list_display = (
        "server_event_id",
        "kind",
        "state_badge",
        "account",
        "server",
        "attempts",
        "last_status",
        "created_at",
    )
    list_filter = ("state", "kind", "server")
    list_select_related = ("referral__user",)
    ordering = ("-pk",)
    actions = ("redeliver", "cancel")
    inlines = (DeliveryAttemptInline,)
    search_help_text = _("Exactly: an idempotency key (reg-7842), a referral id of MMOLove's, or a username.")

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return ["server_event_id__exact", "referral__referral_id__exact", username_lookup("referral__user")]

    def get_fieldsets(self, request: HttpRequest, obj: OutboundEvent | None = None) -> Any:
        body = "whole_body" if self.may(request, "view_token") else "exact_body"
        return (
            (None, {"fields": ("explanation",)}),
            (
                _("Event"),
                {
                    "fields": (
                        ("kind", "server_event_id", "server"),
                        ("state_badge", "outcome", "reason"),
                        ("referral_link", "account", "reward_link"),
                        ("attempts", "due", "attempted_at"),
                        ("created_at", "settled_at"),
                    )
                },
            ),
            (_("Last answer"), {"fields": (("last_status", "last_error"), "answer_fields")}),
            (_("Body"), {"fields": ("formatted_body", body, "body_facts")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: OutboundEvent | None = None) -> Any:
        return flatten_fieldsets(self.get_fieldsets(request, obj))

    # -- columns and fields

    @admin.display(description=_("state"), ordering="state")
    def state_badge(self, event: OutboundEvent) -> SafeString:
        return badge(event)

    @admin.display(description=_("account"))
    def account(self, event: OutboundEvent) -> SafeString | str:
        return linked(event.referral.user, site=self.admin_site.name)

    @admin.display(description=_("referral"))
    def referral_link(self, event: OutboundEvent) -> SafeString | str:
        return linked(event.referral, site=self.admin_site.name)

    @admin.display(description=_("reward"))
    def reward_link(self, event: OutboundEvent) -> SafeString | str:
        return linked(getattr(event.referral, "reward", None), site=self.admin_site.name)

    @admin.display(description=_("due at"))
    def due(self, event: OutboundEvent) -> str:
        """When it is sent, if it still is: what is over keeps the end of its last lease there."""
        return advice.when(event.due_at) if event.open else "-"

    @admin.display(description=_("What this means"))
    def explanation(self, event: OutboundEvent) -> SafeString:
        health = ServerHealth.objects.filter(server=event.server).first()
        return explained(advice.of_event(event, health))

    @admin.display(description=_("answer"))
    def answer_fields(self, event: OutboundEvent) -> SafeString:
        return _text(json.dumps(event.response, ensure_ascii=False, indent=2) if event.response else "-")

    @admin.display(description=_("as JSON"))
    def formatted_body(self, event: OutboundEvent) -> SafeString:
        body = _masked_body(event)
        return _text(json.dumps(json.loads(body), ensure_ascii=False, indent=2) if body else "-")

    @admin.display(description=_("exact bytes, token masked"))
    def exact_body(self, event: OutboundEvent) -> SafeString:
        return _text(_masked_body(event) or "-")

    @admin.display(description=_("exact bytes"))
    def whole_body(self, event: OutboundEvent) -> SafeString:
        return _text(bytes(event.body).decode() or "-")

    @admin.display(description=_("length and SHA-256 of the exact bytes"))
    def body_facts(self, event: OutboundEvent) -> str:
        body = bytes(event.body)
        return f"{len(body)} bytes, {hashlib.sha256(body).hexdigest()}"

    # -- actions

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "redeliver_event")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "cancel_event")

    @admin.action(permissions=["redeliver"], description=_("Redeliver"))
    def redeliver(self, request: HttpRequest, events: QuerySet[OutboundEvent]) -> None:
        self.each(request, events, redeliver, gettext("%(count)d will be sent again."), "Redelivered.")

    @admin.action(permissions=["cancel"], description=_("Cancel"))
    def cancel(self, request: HttpRequest, events: QuerySet[OutboundEvent]) -> None:
        self.each(request, events, cancel, gettext("%(count)d will not be sent."), "Cancelled.")


def _masked_body(event: OutboundEvent) -> str:
    return masked(bytes(event.body).decode(), event.referral.token)


def _text(text: str) -> SafeString:
    return format_html('<pre class="mmolove-text">{}</pre>', text)
