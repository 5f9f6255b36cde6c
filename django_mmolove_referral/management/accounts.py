"""Which fields of the user model an account may be named by on a command line (``--by``)."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field


def identifying(name: str) -> Field[Any, Any] | None:
    """The field of that name that an account may be named by, ``username`` being what it logs in with; or ``None``.

    That several accounts have one value is no reason against it; that nobody should type it is (``password``).
    """
    model = get_user_model()
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return identifying(model.USERNAME_FIELD) if name == "username" != model.USERNAME_FIELD else None
    return field if isinstance(field, Field) and not field.is_relation and field.name != "password" else None


def suggested() -> list[str]:
    """The fields that tell accounts apart, and the e-mail address: those worth naming to whoever looks for one."""
    model = get_user_model()
    apart = {model.USERNAME_FIELD, model.get_email_field_name()}
    return [
        field.name
        for field in model._meta.concrete_fields
        if identifying(field.name) and (field.unique or field.name in apart)
    ]
