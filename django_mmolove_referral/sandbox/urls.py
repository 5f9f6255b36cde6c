"""The Django-URLs face: ``path("mmolove/", include("django_mmolove_referral.sandbox.urls"))``.

The trailing slash is needed: the log finds its style sheet relative to it.
"""

from __future__ import annotations

from django.urls import path

from . import views
from .routes import EVENTS_PATH, SHARE_PREFIX, STYLE_PATH

app_name = "mmolove_sandbox"
urlpatterns = [
    path("", views.log, name="log"),
    path(STYLE_PATH, views.style, name="style"),
    path(EVENTS_PATH, views.events, name="events"),
    path(f"{SHARE_PREFIX}<path:server_id>", views.share, name="share"),
]
