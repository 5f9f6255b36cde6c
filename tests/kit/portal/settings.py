SECRET_KEY = "only-for-tests"
ROOT_URLCONF = "urls"
STATIC_URL = "/static/"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django_mmolove_referral",
    "players.apps.PlayersConfig",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django_mmolove_referral.middleware.ReferralMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
# As in production: nothing here is made for tests. Nobody listens at the endpoint.
MMOLOVE_REFERRAL = {
    "SERVER_ID": "srv_live",
    "SECRET": "live-secret",
    "ENDPOINT": "https://mmolove.invalid/api/referral/events",
    "SHARE_URL": "https://mmolove.invalid/r/live",
}
