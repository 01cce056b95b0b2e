"""A process that has imported the arena and splits off a server of it, fresh and at once, as often as it is told.

`python -m tests.durability.serving` reads lines of JSON, each the environment of a server; it says where that one
listens and under which number it runs, and "ended" when it is gone. One lives at a time. The page, which takes seconds
to import, is left out.
"""

from __future__ import annotations

import gc
import json
import os
import sys

from arena import log
from arena.app import create_app
from arena.server import serve
from arena.settings import load
from arena.store import database

PATIENCE = "ARENA_TEST_PATIENCE_S"
"""How long a server's writers wait for a lock, for tests that would wait for the end of that."""


def main() -> None:
    """Until standard input ends."""
    gc.freeze()
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            _serve(json.loads(line))
        os.waitpid(child, 0)
        _say("ended")


def _serve(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    if PATIENCE in environment:
        database.PATIENCE_S = float(environment[PATIENCE])
        options = f"{database._POSTGRES['options']} -c lock_timeout={environment[PATIENCE]}s"
        database._POSTGRES.update(options=options)
    settings = load()
    log.configure(settings)
    serve(
        lambda settings: create_app(settings, page=False),
        settings,
        on_ready=lambda url: _say(f"{os.getpid()} running on {url}"),
    )
    os._exit(0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
