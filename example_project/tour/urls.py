from django.urls import path

from . import views

urlpatterns = [
    path("", views.behind_the_scenes, name="behind-the-scenes"),
    path("strip/", views.strip, name="tour-strip"),
]
