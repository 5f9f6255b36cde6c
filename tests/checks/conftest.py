"""A portal that is set up well, to be spoilt. Without a database: the checks ask none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks

from django_mmolove_referral.checks import TAG
from tests.conftest import Granted

SET_UP = {
    "SERVER_ID": "srv_1",
    "SECRET": "0f6c2a9d7b31e854",
    "SHARE_URL": "https://mmolove.example/r/srv_1",
    "DISPATCH": "manual",
}
Ours = Callable[..., list[CheckMessage]]


@pytest.fixture(autouse=True)
def set_up_well(settings: Any, granted: Granted) -> None:
    settings.MMOLOVE_REFERRAL = SET_UP


@pytest.fixture
def ours() -> Ours:
    """What ``manage.py check`` says of ours; ``deploy=True``: what ``check --deploy`` says."""
    return lambda deploy=False: run_checks(tags=[TAG], include_deployment_checks=deploy)
