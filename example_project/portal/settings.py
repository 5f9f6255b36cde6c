"""A portal that runs as it is, and on production's parts without an edit: the environment chooses them.

Nothing set: SQLite, delivery by a thread of ``runserver``, and a sandbox at ``/sandbox/`` in MMOLove's place, with a
guided tour of it on every page.

====================================================  ==========================================================
``MMOLOVE_SERVER_ID``, ``MMOLOVE_REFERRAL_SECRET``    the real MMOLove instead of the sandbox
``MMOLOVE_SHARE_URL``                                 the server's share link at MMOLove, without ``?ref=``
``MMOLOVE_ENDPOINT``                                  where events go; set it if the portal is not on port 8000
``DATABASE_URL``                                      ``postgres://…``, ``mysql://…`` or ``sqlite:///path``
``CELERY_BROKER_URL``                                 deliver by Celery: ``celery -A portal worker -Q mmolove --beat``
``MMOLOVE_DISPATCH``                                  ``thread``, ``celery`` or ``manual``
``SECRET_KEY``, ``PORTAL_HOSTS``, ``PORTAL_DEBUG=0``  for a portal that others can reach
``PORTAL_VAR``                                        the directory for what the portal writes
====================================================  ==========================================================
"""

import os
from pathlib import Path
from typing import Any

from django.core.management.utils import get_random_secret_key

from .database import from_url

env = os.environ

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(env.get("PORTAL_VAR") or BASE_DIR / "var")
VAR.mkdir(parents=True, exist_ok=True)


def _kept_secret_key() -> str:
    file = VAR / "secret_key"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(get_random_secret_key())
    return file.read_text()


SECRET_KEY = env.get("SECRET_KEY") or _kept_secret_key()
DEBUG = env.get("PORTAL_DEBUG", "1") != "0"
ALLOWED_HOSTS = env.get("PORTAL_HOSTS", "127.0.0.1,localhost").split(",")

INSTALLED_APPS = [
    "game",
    "tour",
    "django_mmolove_referral",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "portal.csp.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django_mmolove_referral.middleware.ReferralMiddleware",  # keeps the visit's token in the session
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
CONTEXT_PROCESSORS = [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": CONTEXT_PROCESSORS},
    },
]

DATABASES = {"default": from_url(env.get("DATABASE_URL", ""), default=VAR / "portal.sqlite3")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TIME_ZONE = "UTC"

AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "character"
LOGOUT_REDIRECT_URL = "home"

STATIC_URL = "static/"
STATIC_ROOT = VAR / "static"

LOGGING = {  # to the console with DEBUG off, too
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"django": {"handlers": []}},
}

CELERY_BROKER_URL = env.get("CELERY_BROKER_URL")
CELERY_TASK_ROUTES = {"mmolove_referral.*": {"queue": "mmolove"}}  # not behind an hour of other work
CELERY_BEAT_SCHEDULE = {"mmolove": {"task": "mmolove_referral.sweep", "schedule": 30.0}}
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR / "celerybeat-schedule")

MMOLOVE_REFERRAL: dict[str, Any] = {
    "ENDPOINT": env.get("MMOLOVE_ENDPOINT"),
    "SHARE_URL": env.get("MMOLOVE_SHARE_URL"),
    "DISPATCH": env.get("MMOLOVE_DISPATCH") or ("celery" if CELERY_BROKER_URL else "thread"),
}
# This portal is there to be tried, with a MMOLove on this machine.
SILENCED_SYSTEM_CHECKS = ["mmolove_referral.W024", "mmolove_referral.W025"]
if not (env.get("MMOLOVE_SERVER_ID") or env.get("MMOLOVE_REFERRAL_SECRET")):
    # No credentials of MMOLove's: the portal's urls mount a sandbox, and this is the way there.
    MMOLOVE_REFERRAL |= {
        "SERVER_ID": "emberfall",
        "SECRET": "sandbox-secret",
        "ENDPOINT": env.get("MMOLOVE_ENDPOINT") or "http://127.0.0.1:8000/sandbox/api/referral/events",
        # A path: the visitor stays on the host name that their session belongs to.
        "SHARE_URL": "/sandbox/r/emberfall",
    }
    MMOLOVE_SANDBOX = {
        "SERVERS": {"emberfall": "sandbox-secret"},
        "REGISTER_URL": "/register/",
        "STATE": VAR / "sandbox.json",
    }
    CONTEXT_PROCESSORS.append("tour.context.guide")  # the guided tour, see /behind-the-scenes/
