"""For mypy's Django plugin, which has one settings module and must know the models of both projects."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "game"]
