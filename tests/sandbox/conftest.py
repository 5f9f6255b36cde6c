from __future__ import annotations

import pytest

from .portal import Portal


@pytest.fixture
def portal() -> Portal:
    return Portal()
