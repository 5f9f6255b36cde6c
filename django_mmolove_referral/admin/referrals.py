"""Referrals: who came by whose link, and how far it got."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.db.models import Q
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import advice
from ..lifecycle import mark_qualified
from ..masking import mask
from ..models import OutboundEvent, Referral
from ..protocol import Kind
from .base import LogAdmin, ReadOnly, TabularInline, badge, blanked, explained, linked, unknown
from .filters import ServerFilter, StateFilter
from .operations import Operable, Operation
from .search import referrals


def may_qualify(referral: Referral) -> bool:
    """Whether the milestone of this account can still be reported."""
    if referral.user_id is None or referral.ended or referral.blanked or referral.given_up(Kind.QUALIFIED.value):
        return False
    return all(event.kind != Kind.QUALIFIED.value for event in referral.events.all())


def _qualify(referral: Referral) -> bool:
    return may_qualify(referral) and mark_qualified(referral.user, server=referral.server) is not None


QUALIFY = Operation(
    name="qualify",
    permission="mark_qualified",
    label=_("Mark qualified"),
    question=_(
        "“qualified” is reported to MMOLove as if this account had just reached the portal's milestone. Once it has "
        "been accepted, the referrer's reward is due. This cannot be undone here."
    ),
    done=_("“qualified” has been written. It leaves when “registered” has been accepted."),
    refused=_(
        "It was not marked: “qualified” has been written already, the referral has ended or been blanked, or the "
        "account is gone."
    ),
    logged="Marked qualified.",
    act=_qualify,
    possible=may_qualify,
)


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


class ReferralAdmin(Operable, LogAdmin[Referral]):
    list_display = ("number", "state_badge", "account", "referred_by", "reward_badge", "attached", "server")
    list_filter = (StateFilter, ServerFilter)
    list_select_related = ("user", "referrer", "reward")
    operations = (QUALIFY,)
    inlines = (OutboundEventInline,)
    search_fields = ("referral_id",)  # that there is a search; see matching()
    search_help_text = _(
        "Exactly: a username (of either; of a referrer's friends the newest 1,000), a referral id of MMOLove's, or an "
        "idempotency key (reg-7842)."
    )
    export_columns = {  # noqa: RUF012  # never changed
        "id": lambda referral: referral.pk,
        "server": lambda referral: referral.server,
        "state": lambda referral: referral.state,
        "account": lambda referral: referral.user and referral.user.get_username(),
        "referrer": lambda referral: referral.referrer and referral.referrer.get_username(),
        "referrer_code": lambda referral: referral.referrer_code,
        "token": lambda referral: mask(referral.token) if referral.token else "",
        "referral_id_at_mmolove": lambda referral: referral.referral_id,
        "reward": lambda referral: getattr(getattr(referral, "reward", None), "state", ""),
        "created_at": lambda referral: referral.created_at,
        "registered_at": lambda referral: referral.registered_at,
        "qualified_at": lambda referral: referral.qualified_at,
        "closed_at": lambda referral: referral.closed_at,
    }

    def matching(self, term: str, using: str) -> Q:
        return Q(pk__in=referrals(term, using=using))

    def get_fieldsets(self, request: HttpRequest, obj: Referral | None = None) -> Any:
        token = "whole_token" if self.may(request, "view_token") else "masked_token"
        return (
            (None, {"fields": ("explanation",)}),
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

    @admin.display(description=_("referral"))
    def number(self, referral: Referral) -> Any:
        return referral.pk

    @admin.display(description=_("attached at"))
    def attached(self, referral: Referral) -> str:
        return self.written(referral)

    @admin.display(description=_("What this means"))
    def explanation(self, referral: Referral) -> SafeString:
        return explained(advice.of_referral(referral))

    @admin.display(description=_("state"))
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
        return mask(referral.token) if referral.token else blanked(referral)

    @admin.display(description=_("token"))
    def whole_token(self, referral: Referral) -> str:
        return referral.token or blanked(referral)
