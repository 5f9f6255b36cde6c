from django.apps import AppConfig


class GameConfig(AppConfig):
    name = "game"

    def ready(self) -> None:
        from . import receivers  # noqa: F401  # importing connects them
