"""The portal behind a real ASGI server, for visitors who come at once."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from django.core.asgi import get_asgi_application


@contextmanager
def served(host: str = "127.0.0.1", *, at_once: int = 1000) -> Iterator[str]:
    """The portal's address while uvicorn serves it from a thread of this process.

    ``at_once`` is how many requests are worked on at a time: each may hold a database connection, and others wait.
    """
    places = asyncio.Semaphore(at_once)
    portal = get_asgi_application()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async with places:
            await portal(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = uvicorn.Server(uvicorn.Config(application, lifespan="off", ws="none", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
