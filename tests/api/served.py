"""The arena behind its own server, in a thread, for clients that speak real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from arena.app import create_app
from arena.server import Server, bind
from arena.settings import Settings
from tests.threads import in_thread


@contextmanager
def served(settings: Settings) -> Iterator[int]:
    """Serve the API until the block ends; gives the port."""
    ready = threading.Event()
    sockets = bind(settings)
    server = Server(create_app(settings, page=False), settings, sockets, on_ready=lambda _: ready.set())
    with in_thread(server, ready):
        yield sockets[0].getsockname()[1]
