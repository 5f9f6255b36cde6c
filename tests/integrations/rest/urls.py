"""djoser's own views; those of the documentation's API are a test's to add."""

from __future__ import annotations

from django.urls import include, path

from tests import portal

urlpatterns = [
    path("auth/", include("djoser.urls")),
    path("auth/", include("djoser.urls.authtoken")),
    *portal.urlpatterns,
]
