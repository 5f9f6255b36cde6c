"""The example portal's settings, with session cookies that stay at home."""

from portal.settings import *  # noqa: F403

SESSION_COOKIE_SAMESITE = "Strict"
