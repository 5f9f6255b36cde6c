from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("mmolove/", include("django_mmolove_referral.sandbox.urls"))]
