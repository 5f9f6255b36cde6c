"""What the strip of the guided tour says: what just happened behind the scenes, from the rows themselves, and what
to do next. A context processor that ``portal.settings`` adds with the sandbox only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse
from game.models import MILESTONE

from django_mmolove_referral.capture import current_visit
from django_mmolove_referral.models import OutboundEvent, Referral, Reward
from django_mmolove_referral.record import Captured

UNDER_WAY = (OutboundEvent.State.PENDING, OutboundEvent.State.WAITING)


@dataclass(frozen=True)
class Step:
    """What to do next, and a link to where."""

    text: str
    url: str = ""
    link: str = ""


class Guide:
    """The strip for one visitor. Nothing is asked of the database until a template shows it."""

    def __init__(self, user: User | AnonymousUser, page: str) -> None:
        self.user, self.page = user, page

    @cached_property
    def captured(self) -> Captured | None:
        """The token that an anonymous visitor's session holds."""
        visit = current_visit()
        return visit.brings() if visit is not None else None

    @cached_property
    def events(self) -> list[OutboundEvent]:
        """Those of the latest referral that has to do with the visitor, as the friend or as the one who invited.

        One statement reads them with their referral and its reward: a delivery that settles in between would leave
        the strip with a state that never was, and with nothing that makes it look again.
        """
        if not self.user.is_authenticated:
            return []
        own = Referral.objects.filter(Q(user=self.user) | Q(referrer=self.user)).order_by("-pk").values("pk")[:1]
        events = OutboundEvent.objects.filter(referral=own).order_by("pk")
        return list(events.select_related("referral__user", "referral__referrer", "referral__reward"))

    @property
    def referral(self) -> Referral | None:
        return self.events[0].referral if self.events else None

    @property
    def reward(self) -> Reward | None:
        return getattr(self.referral, "reward", None)

    @property
    def busy(self) -> bool:
        """Whether more is about to happen by itself."""
        due = self.reward is not None and self.reward.state == Reward.State.DUE
        return due or any(event.state in UNDER_WAY for event in self.events)

    @property
    def next(self) -> Step:
        if not self.user.is_authenticated:
            return self._before_registering()
        if self.referral is None:
            return Step(
                "Copy your invite link, open it in a private window, and register there as a friend.",
                f"{reverse('character')}#invite",
                "Your invite link",
            )
        if self.reward is not None and self.reward.state == Reward.State.GRANTED:
            return self._after_the_reward()
        if self.referral.state == Referral.State.REGISTERED and len(self.events) == 1:
            return self._to_the_milestone(self.referral)
        return Step("See what the portal and MMOLove say about it.", reverse("behind-the-scenes"), "Behind the scenes")

    def _before_registering(self) -> Step:
        if self.captured is not None:
            return Step(
                "Register. The account, its referral and the event for MMOLove are written in one transaction.",
                reverse("register"),
                "Register",
            )
        return Step("Register a first player: the one who will invite a friend.", reverse("register"), "Register")

    def _to_the_milestone(self, referral: Referral) -> Step:
        if referral.user == self.user:
            return Step(
                f"Train to level {MILESTONE}. The portal then calls mark_qualified().",
                f"{reverse('character')}#training",
                "Your character",
            )
        return Step(f"In your friend's window, train them to level {MILESTONE}.")

    def _after_the_reward(self) -> Step:
        rewards, behind_the_scenes = reverse("rewards"), reverse("behind-the-scenes")
        if self.page == rewards:
            return Step("Compare what both sides wrote down.", behind_the_scenes, "Behind the scenes")
        if self.page == behind_the_scenes:
            events = reverse("admin:mmolove_referral_outboundevent_changelist")
            return Step("As the portal's owner, look at the same events in the admin.", events, "Admin")
        return Step("See who earned what.", rewards, "Rewards")


def guide(request: HttpRequest) -> dict[str, Guide]:
    user = getattr(request, "user", AnonymousUser())  # the 404 page of a static file has passed no middleware
    return {"tour": Guide(user, request.path)}
