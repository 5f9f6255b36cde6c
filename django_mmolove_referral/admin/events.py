"""Outbound events: what was sent, what came back, and what to do about it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import advice
from ..delivery.operate import cancel, hurry, may_cancel, may_redeliver, redeliver
from ..masking import masked
from ..models import OutboundEvent, ServerHealth
from .base import LogAdmin, badge, blanked, cut, explained, linked, linked_events
from .filters import EventsNeedingAttention, KindFilter, PeriodFilter, ServerFilter, StateFilter, StatusFilter
from .operations import Operable, Operation
from .search import referrals
from .timeline import timeline


def _redeliver_now(event: OutboundEvent) -> bool:
    return redeliver(event) or hurry(event)


REDELIVER = Operation(
    name="redeliver",
    permission="redeliver_event",
    label=_("Redeliver now"),
    question=_("The event is sent again, with the same body and a fresh signature, by the next delivery run."),
    done=_("It leaves with the next delivery run."),
    refused=_(
        "It was not redelivered: only what was rejected, exhausted or cancelled by staff can be, and what waits for "
        "its next try, and nothing whose body has been blanked. This event is not, or not any more."
    ),
    logged="Redelivered.",
    act=_redeliver_now,
    possible=may_redeliver,
)
CANCEL = Operation(
    name="cancel",
    permission="cancel_event",
    label=_("Cancel"),
    question=_("The event will not be sent. It can be redelivered later, as long as the referral goes on."),
    done=_("It will not be sent."),
    refused=_("It was not cancelled: it is no longer on its way, or a worker is sending it at this moment."),
    logged="Cancelled.",
    act=cancel,
    possible=may_cancel,
)


class OutboundEventAdmin(Operable, LogAdmin[OutboundEvent]):
    list_display = (
        "key",
        "state_badge",
        "status",
        "attempts",
        "account",
        "kind",
        "written",
        "server",
    )
    list_filter = (EventsNeedingAttention, StateFilter, KindFilter, StatusFilter, PeriodFilter, ServerFilter)
    list_select_related = ("referral__user",)
    actions = ("redeliver", "cancel")
    operations = (REDELIVER, CANCEL)
    search_fields = ("server_event_id",)  # that there is a search; see matching()
    search_help_text = _(
        "Exactly: an idempotency key (reg-7842), a referral id of MMOLove's, or the username of the referred player."
    )
    export_columns = {  # noqa: RUF012  # never changed
        "id": lambda event: event.pk,
        "server": lambda event: event.server,
        "kind": lambda event: event.kind,
        "idempotency_key": lambda event: event.server_event_id,
        "state": lambda event: event.state,
        "outcome": lambda event: event.outcome,
        "reason": lambda event: event.reason,
        "attempts": lambda event: event.attempts,
        "last_status": lambda event: event.last_status,
        "last_error": lambda event: masked(event.last_error, event.referral.token),
        "account": lambda event: event.referral.user and event.referral.user.get_username(),
        "referral": lambda event: event.referral_id,
        "referral_id_at_mmolove": lambda event: event.referral.referral_id,
        "created_at": lambda event: event.created_at,
        "last_attempt_at": lambda event: event.attempted_at,
        "settled_at": lambda event: event.settled_at,
    }

    def matching(self, term: str, using: str) -> Q:
        return Q(referral__in=referrals(term, using=using, friends=False))

    def get_fieldsets(self, request: HttpRequest, obj: OutboundEvent | None = None) -> Any:
        body = "whole_body" if self.may(request, "view_token") else "exact_body"
        course = ("course",) if self.may(request, "view_deliveryattempt") else ()
        return (
            (None, {"fields": ("explanation", *course)}),
            (
                _("Event"),
                {
                    "fields": (
                        ("kind", "server_event_id", "server"),
                        ("state_badge", "outcome", "reason"),
                        ("referral_link", "account", "reward_link", "siblings"),
                        ("counted", "due", "attempted_at"),
                        ("created_at", "settled_at"),
                    )
                },
            ),
            (_("Last answer"), {"fields": (("status", "last_error"), "answer_fields")}),
            (_("Body"), {"fields": ("formatted_body", body, "body_facts")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: OutboundEvent | None = None) -> Any:
        return flatten_fieldsets(self.get_fieldsets(request, obj))

    # -- columns and fields

    @admin.display(description=_("idempotency key"))
    def key(self, event: OutboundEvent) -> SafeString:
        return cut(event.server_event_id)

    @admin.display(description=_("state"))
    def state_badge(self, event: OutboundEvent) -> SafeString:
        return badge(event)

    @admin.display(description=_("HTTP status"))
    def status(self, event: OutboundEvent) -> str:
        if event.last_status is None:
            return "-"
        return str(event.last_status) if event.last_status else gettext("no answer")

    @admin.display(description=_("attempts since it was written or last redelivered"))
    def counted(self, event: OutboundEvent) -> int:
        """Not as many as the steps above: a redelivery starts the schedule anew, and faults of the server are free."""
        return event.attempts

    @admin.display(description=_("account"))
    def account(self, event: OutboundEvent) -> SafeString | str:
        return linked(event.referral.user, site=self.admin_site.name)

    @admin.display(description=_("referral"))
    def referral_link(self, event: OutboundEvent) -> SafeString | str:
        return linked(event.referral, site=self.admin_site.name)

    @admin.display(description=_("reward"))
    def reward_link(self, event: OutboundEvent) -> SafeString | str:
        return linked(getattr(event.referral, "reward", None), site=self.admin_site.name)

    @admin.display(description=_("the referral's other events"))
    def siblings(self, event: OutboundEvent) -> SafeString | str:
        return linked_events(event.referral.events.exclude(pk=event.pk).order_by("pk"), self.admin_site.name)

    @admin.display(description=_("due at"))
    def due(self, event: OutboundEvent) -> str:
        """When it is sent, if it still is: what is over keeps the end of its last lease there."""
        return advice.exactly(event.due_at) if event.open else "-"

    @admin.display(description=_("What this means"))
    def explanation(self, event: OutboundEvent) -> SafeString:
        health = ServerHealth.objects.filter(server=event.server).first()
        return explained(advice.of_event(event, health))

    @admin.display(description=_("What happened"))
    def course(self, event: OutboundEvent) -> SafeString:
        return render_to_string("admin/mmolove_referral/timeline.html", {"steps": timeline(event)})

    @admin.display(description=_("answer"))
    def answer_fields(self, event: OutboundEvent) -> SafeString:
        return _text(json.dumps(event.response, ensure_ascii=False, indent=2) if event.response else "-")

    @admin.display(description=_("as JSON"))
    def formatted_body(self, event: OutboundEvent) -> SafeString:
        body = _masked_body(event)
        return _text(json.dumps(json.loads(body), ensure_ascii=False, indent=2) if body else blanked(event.referral))

    @admin.display(description=_("exact bytes, token masked"))
    def exact_body(self, event: OutboundEvent) -> SafeString:
        return _text(_masked_body(event) or blanked(event.referral))

    @admin.display(description=_("exact bytes"))
    def whole_body(self, event: OutboundEvent) -> SafeString:
        return _text(bytes(event.body).decode() or blanked(event.referral))

    @admin.display(description=_("length and SHA-256 of the exact bytes"))
    def body_facts(self, event: OutboundEvent) -> str:
        body = bytes(event.body)
        if not body:
            return "-"
        return f"{len(body)} bytes, {hashlib.sha256(body).hexdigest()}"

    # -- actions

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "redeliver_event")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "cancel_event")

    @admin.action(permissions=["redeliver"], description=_("Redeliver"))
    def redeliver(self, request: HttpRequest, events: QuerySet[OutboundEvent]) -> None:
        self.each(request, events, _redeliver_now, gettext("%(count)d will be sent again."), "Redelivered.")

    @admin.action(permissions=["cancel"], description=_("Cancel"))
    def cancel(self, request: HttpRequest, events: QuerySet[OutboundEvent]) -> None:
        self.each(request, events, cancel, gettext("%(count)d will not be sent."), "Cancelled.")


def _masked_body(event: OutboundEvent) -> str:
    return masked(bytes(event.body).decode(), event.referral.token)


def _text(text: str) -> SafeString:
    return format_html('<pre class="mmolove-text">{}</pre>', text)
