"""The portal's own tables that the documentation's examples write to."""

from __future__ import annotations

from django.conf import settings
from django.db import models


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
