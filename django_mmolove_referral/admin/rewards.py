"""Rewards: due, granted or cancelled, and why one could not be granted."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import advice
from ..delivery.operate import retry_reward
from ..models import Reward
from .base import LogAdmin, badge, explained, linked, unknown, username_lookup


class RewardAdmin(LogAdmin[Reward]):
    list_display = ("__str__", "state_badge", "referred_by", "account", "attempts", "last_error", "created_at")
    list_filter = ("state",)
    list_select_related = ("referral__user", "referral__referrer")
    ordering = ("-pk",)
    actions = ("retry",)
    search_help_text = _("Exactly: a username (of either), or a referral id of MMOLove's.")
    fieldsets = (
        (None, {"fields": ("explanation",)}),
        (
            None,
            {
                "fields": (
                    ("state_badge", "referral_link"),
                    ("referred_by", "account"),
                    ("created_at", "granted_at"),
                    ("attempts", "due", "last_error"),
                )
            },
        ),
    )
    readonly_fields = (
        "explanation",
        "state_badge",
        "referral_link",
        "referred_by",
        "account",
        "created_at",
        "granted_at",
        "attempts",
        "due",
        "last_error",
    )

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [
            username_lookup("referral__user"),
            username_lookup("referral__referrer"),
            "referral__referral_id__exact",
        ]

    @admin.display(description=_("state"), ordering="state")
    def state_badge(self, reward: Reward) -> SafeString:
        return badge(reward)

    @admin.display(description=_("referral"))
    def referral_link(self, reward: Reward) -> SafeString | str:
        return linked(reward.referral, site=self.admin_site.name)

    @admin.display(description=_("referrer"))
    def referred_by(self, reward: Reward) -> SafeString | str:
        return linked(reward.referral.referrer, unknown=unknown(), site=self.admin_site.name)

    @admin.display(description=_("referred account"))
    def account(self, reward: Reward) -> SafeString | str:
        return linked(reward.referral.user, site=self.admin_site.name)

    @admin.display(description=_("due at"))
    def due(self, reward: Reward) -> str:
        return advice.when(reward.due_at) if reward.state == reward.State.DUE else "-"

    @admin.display(description=_("What this means"))
    def explanation(self, reward: Reward) -> SafeString:
        return explained(advice.of_reward(reward))

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "retry_reward")

    @admin.action(permissions=["retry"], description=_("Retry reward"))
    def retry(self, request: HttpRequest, rewards: QuerySet[Reward]) -> None:
        self.each(request, rewards, retry_reward, gettext("%(count)d will be tried at once."), "Retried.")
