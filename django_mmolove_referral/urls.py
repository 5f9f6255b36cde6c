"""``path("", include("django_mmolove_referral.urls"))`` gives the portal ``/join/<code>/``."""

from django.urls import path

from . import views

app_name = "mmolove_referral"
urlpatterns = [
    path("join/<str:code>/", views.join, name="join"),
    path("join/<str:server>/<str:code>/", views.join, name="join-server"),
]
