"""A portal as its owner writes it: a new project with the steps of the installation."""

from pathlib import Path

SECRET_KEY = "only-for-tests"
DEBUG = True
ROOT_URLCONF = "realm.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db.sqlite3")}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_mmolove_referral",
    "realm.apps.RealmConfig",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django_mmolove_referral.middleware.ReferralMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
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
            ]
        },
    }
]
STATIC_URL = "/static/"
MMOLOVE_REFERRAL = {
    "SERVER_ID": "srv_realm",
    "SECRET": "Zm9yIHRlc3RzIG9ubHksIG5vdCBhIHNlY3JldA",
    "SHARE_URL": "https://mmolove.com/r/realm",
}
