"""The Celery app of a portal, in a process of its own: ``celery -A tests.services.app worker``."""

from __future__ import annotations

import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()


def make(broker: str, queue: str) -> Celery:
    app = Celery("portal", broker=broker, include=["django_mmolove_referral.tasks"])
    app.conf.update(
        task_default_queue=queue,
        task_default_exchange=queue,
        task_default_routing_key=queue,
        beat_schedule={"mmolove-sweep": {"task": "mmolove_referral.sweep", "schedule": 1.0}},
        worker_hijack_root_logger=False,
        broker_transport_options={"global_keyprefix": f"{queue}:"} if broker.startswith("redis") else {},
        broker_connection_retry_on_startup=True,
    )
    return app


app = make(os.environ.get("TEST_BROKER", "memory://"), os.environ.get("TEST_QUEUE", "mmolove-tests"))
