"""The arena behind its own server, in a thread, for clients that speak real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from arena.app import create_app
from arena.server import Server, bind
from arena.settings import Settings

PATIENCE_S = 10.0


@contextmanager
def served(settings: Settings) -> Iterator[int]:
    """Serve the API until the block ends; gives the port."""
    ready = threading.Event()
    sockets = bind(settings)
    server = Server(create_app(settings, page=False), settings, sockets, on_ready=lambda _: ready.set())
    thread = threading.Thread(target=server.run, name="arena", daemon=True)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
