"""The token as a hidden field of the sign-up form."""

from __future__ import annotations

from typing import Any

from django import forms

from .capture import current_visit, offer_token
from .record import carried_token


class ReferralTokenField(forms.CharField):
    """A hidden field with the visit's token, which goes to the account that the form creates.

    The token survives a session that is lost between the page and the sign-up. Whatever is posted, the field is valid:
    what can be no token is cleaned to ``""``. Its name is up to the form.
    """

    widget = forms.HiddenInput

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"required": False, "initial": _token, **kwargs})

    def widget_attrs(self, widget: forms.Widget) -> dict[str, Any]:
        return {**super().widget_attrs(widget), "autocomplete": "off"}  # some browsers fill in an earlier page's token

    def clean(self, value: Any) -> str:
        offer_token(value)
        return carried_token(value) or ""

    def bound_data(self, data: Any, initial: Any) -> Any:
        return carried_token(data) or initial


def _token() -> str:
    visit = current_visit()
    return "" if visit is None else visit.show()
