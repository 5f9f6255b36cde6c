"""The kit for ``django.test.TestCase`` and its relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .kit import MMOLove

if TYPE_CHECKING:
    from django.test import SimpleTestCase as Base
else:
    Base = object


class MMOLoveTestMixin(Base):
    """Gives each test a MMOLove of its own, ``self.mmolove``.

    Stands before the test case among the bases: ``class ReferralTests(MMOLoveTestMixin, TestCase)``.
    """

    _mmolove: MMOLove | None = None

    def setUp(self) -> None:
        super().setUp()
        self._mmolove = MMOLove()
        self._mmolove.start()
        self.addCleanup(self._mmolove.stop)

    @property
    def mmolove(self) -> MMOLove:
        """The kit of the running test."""
        if self._mmolove is None:
            raise RuntimeError(
                f"{type(self).__name__}.setUp() did not reach MMOLoveTestMixin's: name MMOLoveTestMixin before the "
                "test case among the bases, and call super().setUp() first."
            )
        return self._mmolove
