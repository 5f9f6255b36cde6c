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
from .base import LogAdmin, badge, cut, explained, linked, linked_events, unknown
from .filters import RewardsNeedingAttention, StateFilter
from .operations import Operable, Operation

RETRY = Operation(
    name="retry",
    permission="retry_reward",
    label=_("Retry now"),
    question=_("The receiver of referral_qualified is called again for this reward, by the next delivery run."),
    done=_("It is tried with the next delivery run."),
    refused=_("It was not tried again: it is not due any more."),
    logged="Retried.",
    act=retry_reward,
    possible=lambda reward: reward.state == Reward.State.DUE,
)


class RewardAdmin(Operable, LogAdmin[Reward]):
    list_display = ("of", "state_badge", "error", "attempts", "referred_by", "account", "written")
    list_filter = (RewardsNeedingAttention, StateFilter)
    list_select_related = ("referral__user", "referral__referrer")
    actions = ("retry",)
    operations = (RETRY,)
    search_fields = ("referral",)  # that there is a search; see matching()
    search_help_text = _(
        "Exactly: a username (of either; of a referrer's friends the newest 1,000), a referral id of MMOLove's, or an "
        "idempotency key (reg-7842)."
    )
    export_columns = {  # noqa: RUF012  # never changed
        "id": lambda reward: reward.pk,
        "state": lambda reward: reward.state,
        "referrer": lambda reward: reward.referral.referrer and reward.referral.referrer.get_username(),
        "account": lambda reward: reward.referral.user and reward.referral.user.get_username(),
        "failed_attempts": lambda reward: reward.attempts,
        "last_error": lambda reward: reward.last_error,
        "referral": lambda reward: reward.referral_id,
        "referral_id_at_mmolove": lambda reward: reward.referral.referral_id,
        "created_at": lambda reward: reward.created_at,
        "due_at": lambda reward: reward.due_at if reward.state == Reward.State.DUE else None,
        "granted_at": lambda reward: reward.granted_at,
    }
    fieldsets = (
        (None, {"fields": ("explanation",)}),
        (
            None,
            {
                "fields": (
                    ("state_badge", "referral_link", "events"),
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
        "events",
        "referred_by",
        "account",
        "created_at",
        "granted_at",
        "attempts",
        "due",
        "last_error",
    )

    @admin.display(description=_("reward of referral"))
    def of(self, reward: Reward) -> int:
        return reward.referral_id

    @admin.display(description=_("last error"))
    def error(self, reward: Reward) -> SafeString | str:
        return cut(reward.last_error) if reward.last_error else "-"

    @admin.display(description=_("state"))
    def state_badge(self, reward: Reward) -> SafeString:
        return badge(reward)

    @admin.display(description=_("referral"))
    def referral_link(self, reward: Reward) -> SafeString | str:
        return linked(reward.referral, site=self.admin_site.name)

    @admin.display(description=_("events"))
    def events(self, reward: Reward) -> SafeString | str:
        return linked_events(reward.referral.events.order_by("pk"), self.admin_site.name)

    @admin.display(description=_("referrer"))
    def referred_by(self, reward: Reward) -> SafeString | str:
        return linked(reward.referral.referrer, unknown=unknown(), site=self.admin_site.name)

    @admin.display(description=_("referred account"))
    def account(self, reward: Reward) -> SafeString | str:
        return linked(reward.referral.user, site=self.admin_site.name)

    @admin.display(description=_("due at"))
    def due(self, reward: Reward) -> str:
        return advice.exactly(reward.due_at) if reward.state == reward.State.DUE else "-"

    @admin.display(description=_("What this means"))
    def explanation(self, reward: Reward) -> SafeString:
        return explained(advice.of_reward(reward))

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "retry_reward")

    @admin.action(permissions=["retry"], description=_("Retry reward"))
    def retry(self, request: HttpRequest, rewards: QuerySet[Reward]) -> None:
        self.each(request, rewards, retry_reward, gettext("%(count)d will be tried at once."), "Retried.")
