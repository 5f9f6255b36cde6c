"""Letting time pass: see :mod:`django_mmolove_referral.testing.clock`."""

from __future__ import annotations

from django_mmolove_referral.testing.clock import let_pass as let_pass
