"""The portal's own app."""

from django.apps import AppConfig


class RealmConfig(AppConfig):
    name = "realm"

    def ready(self) -> None:
        from . import receivers  # noqa: F401  # which connects them
