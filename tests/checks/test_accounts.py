"""Identity and code, compared whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.checks import Warning  # noqa: A004
from django.db import models

from tests.visitors import OWN_USER_MODEL

from .conftest import Ours

Configure = Callable[..., None]

USER = get_user_model()._meta.label


def changes(name: str, why: str) -> Warning:
    return Warning(
        f"MMOLOVE_REFERRAL['REFEREE_IDENTITY'] = '{name}' is {why}, which can change: then the account is another one "
        "to MMOLove, and may be referred again.",
        hint="Remove MMOLOVE_REFERRAL['REFEREE_IDENTITY'] (the primary key is used), or name what an account keeps "
        "for ever.",
        id="mmolove_referral.W011",
    )


def shown(name: str) -> Warning:
    return Warning(
        f"MMOLOVE_REFERRAL['REFERRER_CODE'] = '{name}' puts players' e-mail addresses into their share links.",
        hint="Remove MMOLOVE_REFERRAL['REFERRER_CODE'] (the primary key is used), or name what everybody may know.",
        id="mmolove_referral.W012",
    )


def no_value(key: str, name: str, problem: str) -> Warning:
    return Warning(
        f"MMOLOVE_REFERRAL['{key}'] = '{name}': {problem}.",
        hint='Use "pk", another attribute of the account, or the dotted path of a callable(user).',
        id="mmolove_referral.W013",
    )


EMAIL = changes("email", "an e-mail address")
NAME = changes("username", "the name that people log in with")


@pytest.mark.parametrize(
    ("keys", "warnings"),
    [
        ({"REFEREE_IDENTITY": "pk"}, []),
        ({"REFEREE_IDENTITY": "id"}, []),
        ({"REFEREE_IDENTITY": "email"}, [EMAIL]),
        pytest.param(
            {"REFEREE_IDENTITY": "username"},
            [NAME],
            marks=pytest.mark.skipif(OWN_USER_MODEL, reason="its accounts have no username"),
        ),
        ({"REFEREE_IDENTITY": "tests.checks.test_accounts.identity"}, []),
        ({"REFERRER_CODE": "email"}, [shown("email")]),
        ({"REFEREE_IDENTITY": "email", "REFERRER_CODE": "email"}, [EMAIL, shown("email")]),
        (
            {"REFEREE_IDENTITY": "player_no"},
            [no_value("REFEREE_IDENTITY", "player_no", f"the user model {USER} has no such attribute")],
        ),
        (
            {"REFERRER_CODE": "get_username"},
            [no_value("REFERRER_CODE", "get_username", f"that is a method of the user model {USER}, and no value")],
        ),
    ],
)
def test_what_leaves_the_portal_is_looked_at(
    keys: dict[str, str], warnings: list[Warning], configure: Configure, ours: Ours
) -> None:
    configure(**keys)
    assert ours() == warnings


def identity(user: Any) -> str:
    return f"player-{user.pk}"


@pytest.mark.skipif(OWN_USER_MODEL, reason="changes the accounts' fields")
@pytest.mark.parametrize(
    ("name", "field", "warnings"),
    [
        ("contact", models.EmailField(), [changes("contact", "an e-mail address")]),
        ("handle", models.CharField(), [changes("handle", "the name that people log in with")]),
        ("player", models.UUIDField(), []),
        ("number", models.PositiveBigIntegerField(), []),
    ],
)
def test_a_user_model_may_call_its_fields_as_it_likes(
    name: str,
    field: models.Field[Any, Any],
    warnings: list[Warning],
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    ours: Ours,
) -> None:
    """Fields of an abstract kind: nothing else of this process must know of the model."""

    class Account(models.Model):
        EMAIL_FIELD = "email"
        USERNAME_FIELD = name

        class Meta:
            abstract = True

    Account.add_to_class(name, field)
    setattr(Account, name, None)
    Account.get_email_field_name = classmethod(lambda cls: "email")  # type: ignore[attr-defined]  # as of a user model
    monkeypatch.setattr("django_mmolove_referral.checks.accounts.get_user_model", lambda: Account)
    configure(REFEREE_IDENTITY=name, REFERRER_CODE="tests.checks.test_accounts.identity")
    assert ours() == warnings
