"""What may be done to one row: a button on its page, a page that asks, and the doing, which is in the admin's log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from ..conf import ConfigError
from .pages import page

if TYPE_CHECKING:
    from .base import LogAdmin

    Base = LogAdmin[Any]
else:
    Base = object


@dataclass(frozen=True)
class Operation:
    """Something that staff may do to a row."""

    name: str
    """In addresses."""
    permission: str
    label: Any
    question: Any
    """What is going to happen, asked on the page before."""
    done: Any
    refused: Any
    """Why nothing was done: the row's state does not allow it, or not any more."""
    logged: str
    act: Callable[[Any], bool]
    """Does it. Returns whether it was possible."""
    possible: Callable[[Any], bool]


class Operable(Base):
    """A model's admin with :class:`Operation` s on the row's page."""

    operations: tuple[Operation, ...] = ()

    def get_urls(self) -> list[URLPattern]:
        ours = [
            path(
                f"<path:object_id>/{operation.name}/",
                self.admin_site.admin_view(
                    require_http_methods(["GET", "HEAD", "POST"])(partial(self.operation_view, operation=operation))
                ),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{operation.name}",
            )
            for operation in self.operations
        ]
        return [*ours, *super().get_urls()]

    def operation_view(self, request: HttpRequest, object_id: str, *, operation: Operation) -> HttpResponse:
        if not (self.has_view_permission(request) and self.may(request, operation.permission)):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            self.message_user(request, _("It does not exist, or not any more."), messages.WARNING)
            return HttpResponseRedirect(reverse(f"{self.admin_site.name}:{self._url_name('changelist')}"))
        if request.method == "POST":
            self._operate(request, row, operation)
        elif operation.possible(row):
            return self._asked(request, row, operation)
        else:
            self.message_user(request, operation.refused, messages.WARNING)
        return HttpResponseRedirect(self._preserving(request, self.page_of(row)))

    def _operate(self, request: HttpRequest, row: Any, operation: Operation) -> None:
        try:
            with transaction.atomic(using=router.db_for_write(self.model)):
                done = operation.act(row)
                if done:
                    self.log_change(request, row, operation.logged)
        except ConfigError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            message, level = (operation.done, messages.SUCCESS) if done else (operation.refused, messages.WARNING)
            self.message_user(request, message, level)

    def _asked(self, request: HttpRequest, row: Any, operation: Operation) -> HttpResponse:
        back = self._preserving(request, self.page_of(row))
        return page(self, request, "confirm", operation.label, object=row, operation=operation, back=back)

    def page_of(self, row: Any) -> str:
        return reverse(f"{self.admin_site.name}:{self._url_name('change')}", args=[quote(row.pk)])

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        row = kwargs.get("obj")
        context["operations"] = [] if row is None else self._offered(request, row)
        return super().render_change_form(request, context, *args, **kwargs)

    def _offered(self, request: HttpRequest, row: Any) -> list[tuple[Any, str]]:
        """The label and address of what this user may do to this row in its present state."""
        return [
            (operation.label, self._preserving(request, operation_url(self.admin_site.name, row, operation.name)))
            for operation in self.operations
            if self.may(request, operation.permission) and operation.possible(row)
        ]

    def _preserving(self, request: HttpRequest, url: str) -> str:
        """``url``, from where the list's filters are found again."""
        kept: Any = {"preserved_filters": self.get_preserved_filters(request), "opts": self.opts}
        return str(add_preserved_filters(kept, url))

    def _url_name(self, view: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{view}"


def operation_url(site: str, row: Any, name: str) -> str:
    """Where ``name`` is done to ``row``; empty where this site has no pages for such rows."""
    opts = row._meta
    try:
        return reverse(f"{site}:{opts.app_label}_{opts.model_name}_{name}", args=[quote(row.pk)])
    except NoReverseMatch:
        return ""
