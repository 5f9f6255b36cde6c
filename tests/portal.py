"""The test portal's views: the least that signs up, logs in and reaches a milestone, sync and async."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.contrib.auth import alogin, authenticate, get_user_model, login, logout
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from django_mmolove_referral import amark_qualified, mark_qualified


def create(name: str, manager: Any = None) -> Any:
    model = get_user_model()
    manager = manager or model._default_manager
    return manager.create_user(**{model.USERNAME_FIELD: name, "password": "pw"})


def page(request: HttpRequest) -> HttpResponse:
    """A page that looks at nothing of the visitor."""
    return HttpResponse("welcome")


@csrf_exempt
def register(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return HttpResponse("the form")
    kind = request.POST.get("kind")  # a subclass of the user model
    user = create(request.POST["name"], apps.get_model("testapp", kind)._default_manager if kind else None)
    if request.POST.get("login"):
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(str(user.pk))


@csrf_exempt
async def aregister(request: HttpRequest) -> HttpResponse:
    model = get_user_model()
    user = await model._default_manager.acreate_user(**{model.USERNAME_FIELD: request.POST["name"], "password": "pw"})
    if request.POST.get("login"):
        await alogin(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(str(user.pk))


@csrf_exempt
def register_then_fail(request: HttpRequest) -> HttpResponse:
    """A sign-up whose transaction is rolled back; the visitor sees the form again."""
    try:
        with transaction.atomic():
            create(request.POST["name"])
            raise ValueError
    except ValueError:
        return HttpResponse("try again")


@csrf_exempt
def register_twice(request: HttpRequest) -> HttpResponse:
    """One request that makes two accounts."""
    create(request.POST["name"])
    create(f"x{request.POST['name']}")
    return HttpResponse("both")


@csrf_exempt
def signin(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, username=request.POST["name"], password="pw")
    assert user is not None
    login(request, user)
    return HttpResponse("in")


@csrf_exempt
def signout(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("out")


@csrf_exempt
def milestone(request: HttpRequest) -> HttpResponse:
    event = mark_qualified(request.user)
    return HttpResponse(event.state if event else "none")


@csrf_exempt
async def amilestone(request: HttpRequest) -> HttpResponse:
    event = await amark_qualified(await request.auser())
    return HttpResponse(event.state if event else "none")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("django_mmolove_referral.urls")),
    path("page/", page),
    path("register/", register),
    path("aregister/", aregister),
    path("register-then-fail/", register_then_fail),
    path("register-twice/", register_twice),
    path("signin/", signin),
    path("signout/", signout),
    path("milestone/", milestone),
    path("amilestone/", amilestone),
]
