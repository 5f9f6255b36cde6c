"""The project. Importing the Celery app here lets the web processes send to the configured broker."""

from .celery import app as celery_app

__all__ = ["celery_app"]
