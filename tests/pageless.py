"""The arena without its page, which takes seconds to import: `python -m tests.pageless`, or under any ASGI server."""

from __future__ import annotations

from arena.app import create_app
from arena.guard import Guard
from arena.server import serve
from arena.settings import Settings, load


def app() -> Guard:
    """It, built from the environment."""
    return built(load())


def built(settings: Settings) -> Guard:
    """The same with these settings."""
    return create_app(settings, page=False)


if __name__ == "__main__":
    serve(built, load())
