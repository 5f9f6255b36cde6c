"""``celery -A portal worker --beat``: delivery by Celery instead of the web process's own thread.

Configured by ``CELERY_BROKER_URL`` alone; without it nothing here is ever used.
"""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

app = Celery("portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
