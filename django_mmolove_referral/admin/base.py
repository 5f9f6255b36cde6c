"""What all pages of the log share: nobody writes in it, states are badges, tokens are masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import models, router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy, ngettext

from .. import advice
from ..advice import Advice
from ..conf import ConfigError, conf
from ..models import OutboundEvent, Referral
from .export import Columns, exported
from .filters import parameters
from .paging import LogChangeList, LogPaginator
from .search import referrals

AT_ONCE = 1000
"""Rows that one action treats at most, so that the page comes back."""

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
    show_facets = admin.ShowFacets.NEVER  # they count each filter's rows
    list_per_page = 50
    ordering = ("-pk",)
    sortable_by = ()
    paginator = LogPaginator
    export_columns: Columns = {}  # noqa: RUF012  # never changed

    class Media:
        css = {"all": ["mmolove_referral/admin.css"]}  # noqa: RUF012  # as Django declares it

    def has_add_permission(self, request: HttpRequest) -> bool:  # type: ignore[override]  # a ModelAdmin's has no obj
        return False

    def may(self, request: HttpRequest, permission: str) -> bool:
        return request.user.has_perm(f"mmolove_referral.{permission}")

    # -- the list

    def get_list_display(self, request: HttpRequest) -> Any:
        """Without the server where there is but one: room is short."""
        return [name for name in super().get_list_display(request) if name != "server" or _several_servers()]

    @admin.display(description=gettext_lazy("created at"))
    def written(self, row: Any) -> str:
        return advice.when(row.created_at, "SHORT_DATETIME_FORMAT")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LogChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Only what the filters ask for. Django also allows every column: to scan by, and to guess tokens by."""
        return lookup in parameters(self.list_filter)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Row], search_term: str
    ) -> tuple[QuerySet[Row], bool]:
        term = search_term.strip()
        return (queryset.filter(self.matching(term, queryset.db)) if term else queryset), False

    def matching(self, term: str, using: str) -> models.Q:
        """What ``term`` finds: here the rows of the referrals that it finds."""
        return models.Q(referral__in=referrals(term, using=using))

    # -- the list as a file

    def get_urls(self) -> list[URLPattern]:
        export = path(
            "export/",
            self.admin_site.admin_view(self.export_view),
            name=f"{self.opts.app_label}_{self.opts.model_name}_export",
        )
        return [*([export] if self.export_columns else ()), *super().get_urls()]

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            rows = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponseRedirect(
                reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_changelist")
            )
        return exported(request, rows, self.export_columns, str(self.opts.model_name))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"export": bool(self.export_columns), **(extra_context or {})})

    # -- actions

    def each(
        self, request: HttpRequest, rows: QuerySet[Row], act: Callable[[Row], bool], done: str, logged: str
    ) -> None:
        """Do ``act`` to each row, enter it in the admin's log, and tell how many it was done to."""
        changed = left = 0
        for row in rows[:AT_ONCE]:
            with transaction.atomic(using=router.db_for_write(self.model)):
                if act(row):
                    changed += 1
                    self.log_change(request, row, logged)
                else:
                    left += 1
        if changed:
            self.message_user(request, done % {"count": changed}, messages.SUCCESS)
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
        if changed + left == AT_ONCE:
            self.message_user(
                request,
                gettext("These were the newest %(count)d, the most that is done at once. Repeat it for the others.")
                % {"count": AT_ONCE},
                messages.WARNING,
            )


def badge(obj: Any) -> SafeString:
    """The state of a row, coloured by what it means."""
    return format_html(
        '<span class="mmolove-badge mmolove-{}">{}</span>', TONES.get(obj.state, "over"), obj.get_state_display()
    )


def cut(text: object) -> SafeString:
    """As much of a text as a list has room for; the whole is there to be pointed at, and read out."""
    return format_html('<span class="mmolove-cut" title="{}">{}</span>', text, text)


def _several_servers() -> bool:
    try:
        return len(conf.servers) > 1
    except ConfigError:
        return True


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


def linked_events(events: Iterable[OutboundEvent], site: str) -> SafeString | str:
    """Links to events, each with its state."""
    return (
        format_html_join(
            "",
            '<div class="mmolove-event">{} {}</div>',
            ((linked(event, event.kind, site=site), badge(event)) for event in events),
        )
        or "-"
    )


def blanked(referral: Referral) -> str:
    """What stands where its token, or a body with it, would be."""
    return gettext("blanked: the account was deleted") if referral.user_id is None else gettext("blanked")


def unknown() -> str:
    return gettext("unknown")
