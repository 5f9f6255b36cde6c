from django.urls import include, path
from players import views

urlpatterns = [
    path("", include("django_mmolove_referral.urls")),
    path("register/", views.register),
    path("level-up/", views.level_up),
    path("players/<int:pk>/", views.player),
]
