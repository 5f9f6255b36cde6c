"""A portal with every way to sign up: each library below a prefix of its own, installed as the docs say.

TEST_ALSO=integrations python -m pytest --ds=tests.integrations.settings tests/integrations
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tests.pages import code
from tests.settings import *  # noqa: F403  # the test portal
from tests.settings import INSTALLED_APPS as PORTAL_APPS
from tests.settings import TEMPLATES as PORTAL_TEMPLATES

# python3-openid, which social-auth-core imports, still looks for XML parsers by their old names.
warnings.filterwarnings("ignore", "defusedxml.cElementTree is deprecated", DeprecationWarning)

ROOT_URLCONF = "tests.integrations.urls"
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}  # Django 6.1 asks for it
LOGIN_REDIRECT_URL = "/home/"
ACCOUNT_LOGOUT_REDIRECT_URL = "/home/"
LOGIN_URL = "/accounts/login/"
LOGIN_ERROR_URL = "/accounts/login/"

allauth: dict[str, Any] = {}
exec(code("integrations/allauth.md", "AccountMiddleware"), allauth)
exec(code("integrations/allauth.md", "ACCOUNT_SIGNUP_FORM_CLASS"), allauth)
social_auth: dict[str, Any] = {}
exec(code("integrations/social-auth.md", "INSTALLED_APPS"), social_auth)

MIDDLEWARE = [
    *allauth["MIDDLEWARE"],
    "tests.integrations.urls.RefusalsInWords",
]
INSTALLED_APPS = list(
    dict.fromkeys(
        [
            *PORTAL_APPS,
            *allauth["INSTALLED_APPS"],
            "allauth.socialaccount.providers.openid_connect",
            "django_registration",
            *social_auth["INSTALLED_APPS"],
        ]
    )
)
AUTHENTICATION_BACKENDS = [
    *allauth["AUTHENTICATION_BACKENDS"],
    "tests.integrations.urls.GuildOAuth2",
]
TEMPLATES = [{**PORTAL_TEMPLATES[0], "DIRS": [Path(__file__).parent / "templates"]}]

ACCOUNT_SIGNUP_FORM_CLASS = allauth["ACCOUNT_SIGNUP_FORM_CLASS"].replace("yourapp", "tests.integrations")
# Tests sign up faster than people do.
ACCOUNT_RATE_LIMITS = False
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_SIGNUP_FIELDS = ["email*", "username*", "password1*", "password2*"]
# The single-page front end's addresses: here the same as the portal's own pages.
HEADLESS_FRONTEND_URLS = {
    "account_confirm_email": "/accounts/confirm-email/{key}/",
    "account_reset_password_from_key": "/accounts/password/reset/key/{key}/",
    "account_signup": "/accounts/signup/",
    "socialaccount_login_error": "/accounts/3rdparty/login/error/",
}

ACCOUNT_ACTIVATION_DAYS = 7
DEFAULT_FROM_EMAIL = "portal@example.com"

SOCIAL_AUTH_GUILD_KEY = "portal"
SOCIAL_AUTH_GUILD_SECRET = "portal-secret"
