"""The portal's URLs, and the few things that every portal writes itself."""

from __future__ import annotations

from typing import Any

from django.core.mail import send_mail
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import include, path
from social_core.backends.oauth import BaseOAuth2
from social_core.exceptions import SocialAuthBaseException
from social_core.pipeline.partial import partial
from social_django.middleware import SocialAuthExceptionMiddleware


class GuildOAuth2(BaseOAuth2):  # type: ignore[misc]  # not followed by the type checker
    """ "Sign in with your guild": the provider that the tests run."""

    name = "guild"
    ID_KEY = "sub"
    DEFAULT_SCOPE = ["openid", "profile", "email"]  # noqa: RUF012  # the library's own way

    def user_data(self, access_token: str, *args: Any, **kwargs: Any) -> Any:
        url = self.setting("USERINFO_URL")
        return self.get_json(url, headers={"Authorization": f"Bearer {access_token}"})

    def get_user_details(self, response: dict[str, Any]) -> dict[str, Any]:
        return {"username": response["preferred_username"], "email": response["email"]}


class RefusalsInWords(SocialAuthExceptionMiddleware):  # type: ignore[misc]  # not followed by the type checker
    """What social-auth refuses is a page that says why, not an exception in the server's thread."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, SocialAuthBaseException):
            return HttpResponse(f"{type(exception).__name__}: {exception}", status=403)
        return None


def page(request: HttpRequest) -> HttpResponse:
    """A landing page that looks at nothing of the visitor."""
    return HttpResponse("welcome")


def home(request: HttpRequest) -> HttpResponse:
    """Where a login leads: who is in?"""
    return HttpResponse(f"home of {request.user.get_username() or 'nobody'}")


def form(request: HttpRequest) -> str:
    return f'<input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}">'


def enter(request: HttpRequest) -> HttpResponse:
    """The portal's own page with "Sign in with your guild"."""
    return HttpResponse(f'<form action="/social/login/guild/" method="post">{form(request)}</form>')


@partial  # type: ignore[untyped-decorator]  # not followed by the type checker
def ask_for_name(strategy: Any, user: Any = None, **kwargs: Any) -> Any:
    """A pipeline's step: a new player chooses a name on a page of the portal's."""
    name = strategy.session_pop("chosen_name")
    if user is not None:
        return None
    return {"username": name} if name else strategy.redirect("/choose-name/")


def send_validation(strategy: Any, backend: Any, code: Any, partial_token: str) -> None:
    """What SOCIAL_AUTH_EMAIL_VALIDATION_FUNCTION names."""
    link = f"/social/complete/{backend.name}/?verification_code={code.code}&partial_token={partial_token}"
    send_mail("Confirm your address", strategy.build_absolute_uri(link), None, [code.email])


def choose_name(request: HttpRequest) -> HttpResponse:
    """The page on which a pipeline lets a new player choose a name."""
    if request.method == "POST":
        request.session["chosen_name"] = request.POST["name"]
        return HttpResponse(status=302, headers={"Location": "/social/complete/guild/"})
    return HttpResponse(f'<form method="post">{form(request)}<input name="name"></form>')


urlpatterns = [
    path("", include("django_mmolove_referral.urls")),
    path("page/", page),
    path("home/", home),
    path("accounts/", include("allauth.urls")),
    path("_allauth/", include("allauth.headless.urls")),
    path("one-step/", include("django_registration.backends.one_step.urls")),
    path("two-step/", include("django_registration.backends.activation.urls")),
    path("social/", include("social_django.urls", namespace="social")),
    path("enter/", enter),
    path("choose-name/", choose_name),
]
