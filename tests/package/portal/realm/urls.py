"""The portal's pages."""

from django.contrib import admin
from django.urls import include, path

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("django_mmolove_referral.urls")),
    path("share/", views.share),
    path("level-up/", views.level_up),
]
