"""The test portal. DATABASE_URL chooses the database (SQLite in a file by default)."""

from __future__ import annotations

import json
import os

from tests.databases import from_url

SECRET_KEY = "only-for-tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.portal"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": from_url(os.environ.get("DATABASE_URL", ""))}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_mmolove_referral",
    "tests.gameapp",
]
# The user model cannot change within a process: a second run of the sign-up tests uses the other one.
if os.environ.get("TEST_USER_MODEL") == "email":
    INSTALLED_APPS.append("tests.emailapp")
    AUTH_USER_MODEL = "emailapp.EmailUser"
else:
    INSTALLED_APPS.append("tests.testapp")
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django_mmolove_referral.middleware.ReferralMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
STATIC_URL = "/static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGGING_CONFIG = None
# The tests connect receivers of their own, and their MMOLove is on this machine.
SILENCED_SYSTEM_CHECKS = ["mmolove_referral.W014", "mmolove_referral.W025"]

MMOLOVE_REFERRAL = {
    "SERVER_ID": "srv_test",
    "SECRET": "test-secret",
    # Nobody listens there: tests point it at a sandbox, processes of their own are told by the environment.
    "ENDPOINT": os.environ.get("TEST_ENDPOINT", "http://127.0.0.1:9/api/referral/events"),
    "SHARE_URL": "https://mmolove.example/r/srv_test",
    "DISPATCH": "manual",
    # Single keys for a process of its own.
    **json.loads(os.environ.get("TEST_REFERRAL_SETTINGS", "{}")),
}
