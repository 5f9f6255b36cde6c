"""What all pages of the log share: nobody writes in it, states are badges, tokens are masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext

from ..advice import Advice

Row = TypeVar("Row", bound=models.Model)

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin
    TabularInline = admin.TabularInline
else:  # generic for the type checker only

    class ModelAdmin(admin.ModelAdmin):
        def __class_getitem__(cls, item):
            return cls

    class TabularInline(admin.TabularInline):
        def __class_getitem__(cls, item):
            return cls


#: How a state looks: something is over, is under way, needs a person.
TONES = {
    "accepted": "good",
    "granted": "good",
    "qualified": "good",
    "registered": "good",
    "open": "good",
    "pending": "busy",
    "waiting": "busy",
    "captured": "busy",
    "due": "busy",
    "half_open": "busy",
    "rejected": "bad",
    "exhausted": "bad",
    "paused": "bad",
}


class ReadOnly:
    """For admins and inlines: looking is all one can do."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LogAdmin(ReadOnly, ModelAdmin[Row]):
    """One table of the log."""

    show_full_result_count = False
    list_per_page = 50

    class Media:
        css = {"all": ["mmolove_referral/admin.css"]}  # noqa: RUF012  # as Django declares it

    def has_add_permission(self, request: HttpRequest) -> bool:  # type: ignore[override]  # a ModelAdmin's has no obj
        return False

    def may(self, request: HttpRequest, permission: str) -> bool:
        return request.user.has_perm(f"mmolove_referral.{permission}")

    def each(
        self, request: HttpRequest, rows: QuerySet[Row], act: Callable[[Row], bool], done: str, logged: str
    ) -> None:
        """Do ``act`` to each row, enter it in the admin's log, and tell how many it was done to."""
        changed = 0
        for row in rows:
            if act(row):
                changed += 1
                self.log_change(request, row, logged)
        if changed:
            self.message_user(request, done % {"count": changed}, messages.SUCCESS)
        left = len(rows) - changed
        if left:
            self.message_user(
                request,
                ngettext(
                    "%(count)d was left alone: its state does not allow this, or a worker has it in hand.",
                    "%(count)d were left alone: their states do not allow this, or a worker has them in hand.",
                    left,
                )
                % {"count": left},
                messages.WARNING,
            )


def badge(obj: Any) -> SafeString:
    """The state of a row, coloured by what it means."""
    return format_html(
        '<span class="mmolove-badge mmolove-{}">{}</span>', TONES.get(obj.state, "over"), obj.get_state_display()
    )


def explained(advice: Advice) -> SafeString:
    return format_html('<div class="mmolove-advice"><p>{}</p><p>{}</p></div>', advice.cause, advice.cure)


def linked(obj: models.Model | None, text: object = None, unknown: str = "-", site: str = "admin") -> SafeString | str:
    """A link to a row's page in the admin, or its text where there is no such page."""
    if obj is None:
        return unknown
    text = text if text is not None else obj
    try:
        url = reverse(f"{site}:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[obj.pk])
    except NoReverseMatch:
        return str(text)
    return format_html('<a href="{}">{}</a>', url, text)


def username_lookup(path: str) -> str:
    """An exact search by the user model's own login field."""
    return f"{path}__{get_user_model().USERNAME_FIELD}__exact"


def unknown() -> str:
    return gettext("unknown")
