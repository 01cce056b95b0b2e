"""The arena's entry point: `python arena_app.py` serves it; `arena_app:app` is the same arena for any ASGI server.

Importing this file starts and imports nothing: `app` is built the first time it is asked for, from the environment.
"""

from __future__ import annotations

import gc
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arena.guard import Guard


@cache
def _app() -> Guard:
    from arena.app import create_app
    from arena.settings import load

    app = create_app(load())
    # What was built stays for good: a collection that looked at it would hold up every stream for 100 ms and more.
    gc.collect()
    gc.freeze()
    return app


def __getattr__(name: str) -> Guard:
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    from arena.__main__ import start

    start("python arena_app.py")
