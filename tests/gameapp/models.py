"""The game that the documentation's examples write to."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Character(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="characters")
    level = models.PositiveSmallIntegerField(default=1)
    seconds_played = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.owner}, level {self.level}"


class Purchase(models.Model):
    account = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="purchases")
    paid_at = models.DateTimeField(null=True)
    refunded_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"Purchase of {self.account}"


class Purse(models.Model):
    """A player's gold."""

    owner = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    gold = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.owner}: {self.gold}"


class Note(models.Model):
    """What the portal was told."""

    text = models.TextField()

    def __str__(self) -> str:
        return self.text
