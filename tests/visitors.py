"""Visitors: a browser for either server interface, and what came of its sign-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import AsyncClient, Client
from django.urls import path

from django_mmolove_referral.capture import SESSION_KEY
from django_mmolove_referral.models import OutboundEvent, Referral

from . import portal

OWN_USER_MODEL = settings.AUTH_USER_MODEL != "auth.User"
"""Whether this process runs with the portal's own user model (UUID key, e-mail login, no ``date_joined``)."""


class OneCookieHeader(AsyncClient):
    """Django 5.2's sends its own cookies in a header beside the one that a test asks for, even when it has none."""

    def _base_scope(self, **request: Any) -> dict[str, Any]:
        scope: dict[str, Any] = super()._base_scope(**request)  # type: ignore[misc]  # inherited, unknown to the stubs
        scope["headers"] = [header for header in scope["headers"] if header != (b"cookie", b"")]
        return scope


class Browser:
    """One visitor's browser: keeps cookies, and goes through WSGI or ASGI."""

    def __init__(self, *, asgi: bool = False) -> None:
        self.client: Client | AsyncClient = OneCookieHeader() if asgi else Client()
        self.client.raise_request_exception = False

    def get(self, url: str, **headers: str) -> Any:
        return self.ask("get", url, headers=headers)

    def post(self, url: str, **data: str) -> Any:
        return self.ask("post", url, data)

    def visit(self, token: str) -> Any:
        """Come from MMOLove with ``token``."""
        return self.get(f"/page/?mmref={token}")

    def sign_up(self, name: str = "bob@example.com", url: str = "/register/", **data: str) -> Any:
        return self.post(url, name=name, **data)

    def log_in(self, name: str = "bob@example.com") -> Any:
        return self.post("/signin/", name=name)

    @property
    def record(self) -> Mapping[str, Any]:
        """What the visitor's session holds of ours."""
        record: Mapping[str, Any] = self.client.session.get(SESSION_KEY, {})
        return record

    @record.setter
    def record(self, value: object) -> None:
        session = self.client.session
        session[SESSION_KEY] = value
        session.save()

    def begin_session(self) -> None:
        """Have a session in which there is nothing of ours."""
        session = self.client.session
        session["theme"] = "dark"
        session.save()

    def ask(self, method: str, url: str, data: Mapping[str, Any] | None = None, **extra: Any) -> Any:
        call: Callable[..., Any] = getattr(self.client, method)
        if isinstance(self.client, AsyncClient):
            call = async_to_sync(call)
        return call(url, data, **extra)


def referred() -> dict[str, str]:
    """The token of each referred account, by name."""
    name = get_user_model().USERNAME_FIELD
    return dict(Referral.objects.values_list(f"user__{name}", "token"))


def written() -> list[tuple[str, str]]:
    """Account and kind of each event in the outbox."""
    name = get_user_model().USERNAME_FIELD
    return list(OutboundEvent.objects.order_by("pk").values_list(f"referral__user__{name}", "kind"))


def accounts() -> set[str]:
    return {user.get_username() for user in get_user_model()._default_manager.all()}


def urls(**views: Callable[..., Any]) -> type:
    """A ROOT_URLCONF: the portal, with ``views`` by name (``urls(news=view)`` serves ``/news/``)."""
    mine = [path(f"{name}/", view) for name, view in views.items()]
    return type("Urls", (), {"urlpatterns": [*mine, *portal.urlpatterns]})


@contextmanager
def failing(start: str, error: Exception) -> Iterator[None]:
    """The database answers every statement that begins like ``start`` with ``error``."""

    def fail(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if sql.replace("`", '"').startswith(start):
            raise error
        return execute(sql, *args)

    with connection.execute_wrapper(fail):
        yield
