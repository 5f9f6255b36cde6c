"""Subclasses of the user model that portals have. Only with ``auth.User`` as the user model."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import models


class ProxyAccount(User):
    """What a MUD engine in wide use does: every account is saved through a proxy."""

    class Meta:
        proxy = True


class ChildAccount(User):
    """A multi-table child: its own table, its own signal sender."""

    guild = models.CharField(max_length=50, blank=True)
