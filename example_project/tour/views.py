"""Behind the scenes: the portal's log beside MMOLove's."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from django_mmolove_referral.models import OutboundEvent
from django_mmolove_referral.sandbox.views import current_sandbox

from .context import Guide

SHOWN = 50


@never_cache
def behind_the_scenes(request: HttpRequest) -> HttpResponse:
    """With the sandbox everybody sees everything (tokens masked): that is what the demo is for.

    With the real MMOLove there is only the portal's own log, and it is for staff, as in the admin.
    """
    if not (with_sandbox() or may_see_the_log(request.user)):
        raise Http404
    events = (
        OutboundEvent.objects.select_related("referral__user", "referral__referrer", "referral__reward")
        .prefetch_related("delivery_attempts")
        .order_by("-pk")[:SHOWN]
    )
    entries = current_sandbox().log[: -SHOWN - 1 : -1] if with_sandbox() else None
    return render(request, "tour/behind_the_scenes.html", {"events": events, "entries": entries})


@never_cache
def strip(request: HttpRequest) -> HttpResponse:
    """The strip alone, for ``tour.js``; ``?page=`` is the page that it stands on."""
    if not with_sandbox():
        raise Http404
    return render(request, "tour/strip.html", {"tour": Guide(request.user, request.GET.get("page", ""))})


def with_sandbox() -> bool:
    return hasattr(settings, "MMOLOVE_SANDBOX")


def may_see_the_log(user: User | AnonymousUser) -> bool:
    return user.is_staff and user.has_perm("mmolove_referral.view_outboundevent")
