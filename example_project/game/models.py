"""The game, as little of it as a referral needs: a level to reach and gold to give."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F

MILESTONE = 10
"""The level at which an invited player counts for whoever invited them."""
MAX_LEVEL = 99
RANKS = [(MILESTONE, "Emberkeeper"), (7, "Torchbearer"), (4, "Kindler"), (1, "Spark")]


class Character(models.Model):
    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="character")
    level = models.PositiveSmallIntegerField(default=1)
    gold = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.user}, level {self.level}"

    @property
    def rank(self) -> str:
        return next(rank for level, rank in RANKS if self.level >= level)

    @classmethod
    def of(cls, user: Any) -> Character:
        """The user's character; accounts that the portal did not register (the admin's) get theirs now."""
        return cls.objects.select_related("user").get_or_create(user=user)[0]

    def earn(self, gold: int, *, friend: Any) -> None:
        """Add ``gold`` for inviting ``friend``. Call it inside a transaction: purse and ledger belong together."""
        self.ledger.create(gold=gold, friend=friend)
        Character.objects.filter(pk=self.pk).update(gold=F("gold") + gold)


class GoldEntry(models.Model):
    """One line of the ledger: gold that a player earned by inviting a friend."""

    character = models.ForeignKey(Character, on_delete=models.CASCADE, related_name="ledger")
    gold = models.PositiveIntegerField()
    friend = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    earned_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-earned_at", "-pk")
        verbose_name_plural = "gold entries"

    def __str__(self) -> str:
        return f"{self.gold} gold to {self.character.user}"
