"""The fixture ``mmolove``, for projects with pytest-django. Imports nothing of Django's until a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import MMOLove

if find_spec("pytest_django") is not None:

    @pytest.fixture
    def mmolove(db: None, settings: Any) -> Iterator[MMOLove]:
        """A MMOLove of the test's own on a real socket, with ``MMOLOVE_REFERRAL`` pointed at it.

        Brings the database along: as the test's ``django_db`` mark says if there is one, else rolled back at the end.
        """
        from .options import SETTING
        from .testing import MMOLove

        # By pytest-django's own fixture, so that it and what the test changes are taken back in the right order.
        with MMOLove(override=lambda value: setattr(settings, SETTING, value)) as kit:
            yield kit

else:

    @pytest.fixture
    def mmolove() -> None:
        """Says what is missing."""
        pytest.fail("The fixture mmolove needs pytest-django: python -m pip install pytest-django", pytrace=False)
