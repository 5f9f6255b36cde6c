"""What a portal's own tests need: MMOLove on a real socket, and assertions that explain themselves.

With pytest it is the fixture ``mmolove``, with ``manage.py test`` :class:`MMOLoveTestMixin`. Rows to start from are in
:mod:`~django_mmolove_referral.testing.factories`.
"""

from __future__ import annotations

from .kit import MMOLove
from .mixin import MMOLoveTestMixin

__all__ = ["MMOLove", "MMOLoveTestMixin"]
