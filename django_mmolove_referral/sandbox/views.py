"""The Django face of the sandbox, configured by the setting ``MMOLOVE_SANDBOX``.

::

    MMOLOVE_SANDBOX = {
        "SERVERS": {"my-server": "my-secret"},
        "REGISTER_URL": "/accounts/signup/",
        "STATE": BASE_DIR / "var" / "sandbox.json",  # optional
    }

With ``STATE`` a restart forgets nothing and several web processes share what is in that file; scripted
faults, rotated secrets and switched off servers stay in the process where they were ordered. Without it
everything is in the memory of one process.

A share link sets no cookie: MMOLove's own lies on MMOLove's domain, where a portal cannot read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.decorators.csrf import csrf_exempt

from .contract import Server
from .core import Sandbox
from .routes import EVENTS_PATH, SHARE_PREFIX, STYLE_PATH, handle
from .wire import MAX_BODY

SETTING = "MMOLOVE_SANDBOX"
_KEYS = {"SERVERS", "REGISTER_URL", "STATE"}

_lock = Lock()
_current: Sandbox | None = None


def current_sandbox() -> Sandbox:
    """The sandbox of this process; raises ``ImproperlyConfigured`` naming a missing or wrong key."""
    global _current
    with _lock:
        if _current is None:
            _current = _configured(getattr(settings, SETTING, None))
        return _current


def _configured(setting: Any) -> Sandbox:
    if not isinstance(setting, Mapping):
        raise ImproperlyConfigured(f'{SETTING} must be a dict with "SERVERS" and "REGISTER_URL".')
    unknown = sorted(map(str, set(setting) - _KEYS))
    if unknown:
        raise ImproperlyConfigured(
            f"{SETTING} has unknown keys: {', '.join(unknown)}. Known are {', '.join(sorted(_KEYS))}."
        )
    servers = setting.get("SERVERS")
    if not isinstance(servers, Mapping) or not servers:
        raise ImproperlyConfigured(f'{SETTING}["SERVERS"] must map at least one server id to its secret.')
    for server_id, secret in servers.items():
        if not isinstance(secret, (str, Server)):
            raise ImproperlyConfigured(f'{SETTING}["SERVERS"]["{server_id}"] must be a secret (a string).')
    register_url = setting.get("REGISTER_URL")
    if not register_url:
        raise ImproperlyConfigured(f'{SETTING}["REGISTER_URL"] must say where share links lead.')
    return Sandbox(servers, register_url=str(register_url), state=setting.get("STATE"))


@receiver(setting_changed)
def _reset(*, setting: str, **kwargs: Any) -> None:
    global _current
    if setting == SETTING:
        with _lock:
            _current = None


def log(request: HttpRequest) -> HttpResponse:
    """MMOLove's side of the log."""
    return _serve(request, "")


def style(request: HttpRequest) -> HttpResponse:
    """The log's style sheet: a file, as a strict content security policy allows no inline styles."""
    return _serve(request, STYLE_PATH)


def share(request: HttpRequest, server_id: str) -> HttpResponse:
    """A share link."""
    return _serve(request, f"{SHARE_PREFIX}{server_id}")


@csrf_exempt
def events(request: HttpRequest) -> HttpResponse:
    """The endpoint."""
    return _serve(request, EVENTS_PATH)


def _serve(request: HttpRequest, path: str) -> HttpResponse:
    response = handle(
        current_sandbox(),
        request.method or "GET",
        path,
        request.META.get("QUERY_STRING", ""),
        request.headers,
        request.read(MAX_BODY + 1),
    )
    if response.fault is not None and (response.fault.drop or response.fault.truncate):
        return HttpResponse(status=503)  # what a front server makes of a lost connection
    if "Location" in response.headers:
        return HttpResponseRedirect(response.headers["Location"], headers=response.headers)
    return HttpResponse(response.body, status=response.status, headers=response.headers)
