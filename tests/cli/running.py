"""Running the command line, and an arena for it to ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec


class Outcome(msgspec.Struct):
    """What a command left behind."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@contextmanager
def serving() -> Iterator[str]:
    """The address of an arena as shipped but for the page, with the settings of the moment, on a free port."""
    from arena.app import create_app
    from arena.server import Server, bind
    from arena.settings import load
    from tests.threads import in_thread

    settings = load(port=0)
    ready = threading.Event()
    server = Server(create_app(settings, page=False), settings, bind(settings), on_ready=lambda _: ready.set())
    with in_thread(server, ready):
        yield server.url
