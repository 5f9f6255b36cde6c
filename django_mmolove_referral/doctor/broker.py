"""Celery's broker: is it reached, and which queue does a worker have to take?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from kombu.utils.url import maybe_sanitize_url

from .. import checks
from ..conf import ConfigError, conf
from ..delivery.dispatch import DELIVER_TASK, celery
from ..masking import printable
from .finding import Finding, error, ok

if TYPE_CHECKING:
    from celery import Celery

WAIT = 3
"""Seconds that the broker has to take a connection."""


def of_broker() -> Iterator[Finding]:
    """Connect once. Nothing without Celery, nor where the checks say already that no broker is spoken to."""
    try:
        if conf.dispatch != "celery" or checks.check_celery(None):
            return
    except ConfigError:
        return  # named among the settings
    app = celery.known_app()
    urls: Any = app.conf.broker_write_url or ""
    each = urls.split(";") if isinstance(urls, str) else urls  # several to fail over to
    address = ", ".join(map(maybe_sanitize_url, each))  # without their passwords
    try:
        _connect(app)
    except Exception as problem:  # noqa: BLE001  # whatever a transport raises, a missing client library included
        yield error(
            "celery.unreachable",
            _("The broker, %(address)s, cannot be reached: %(error)s.")
            % {"address": address, "error": printable(f"{type(problem).__name__}: {problem}").rstrip(".")},
            _(
                "Start it, or mend its address (CELERY_BROKER_URL). One on Redis also needs its client: python -m "
                "pip install redis"
            ),
        )
        return
    yield ok("celery.reached", _("The broker, %s, is reached.") % address)


def _connect(app: Celery) -> None:
    with app.connection_for_write(connect_timeout=WAIT) as connection:
        # Where a transport takes such options, it waits no longer than that; otherwise as long as it is used to.
        options = {"socket_connect_timeout": WAIT, "socket_timeout": WAIT, "max_retries": 0}
        connection.transport_options = {**(connection.transport_options or {}), **options}
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=WAIT, reraise_as_library_errors=False)


def queue_of_ours() -> str:
    """The queue that our tasks are routed to; empty if that cannot be told."""
    try:
        route = celery.known_app().amqp.router.route({}, DELIVER_TASK)
        return str(route["queue"].name)
    except Exception:  # noqa: BLE001  # the portal's own routers
        return ""
