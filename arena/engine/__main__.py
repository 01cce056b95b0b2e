"""`python -m arena.engine` serves; `python -m arena.engine setup` fetches and prepares the first models."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arena.engine.config import check_host, from_environment
from arena.engine.prepare import setup
from arena.engine.server import create_app, serve
from arena.errors import SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run the engine; returns the exit status."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        check_host(parsed.host)
        config = from_environment(
            parsed.data, os.environ, fetch=not parsed.no_fetch, threads=parsed.threads, extra_models=parsed.models or ()
        )
    except SettingsError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if parsed.command == "setup":
            return 0 if runner.run(setup(config, sys.stdout)) else 1
        started = runner.run(serve(create_app(config), parsed.host, parsed.port, watch_parent=parsed.watch_parent))
    return 0 if started else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m arena.engine", description="llama.cpp as a small Ollama server.")
    parser.add_argument("command", nargs="?", choices=("serve", "setup"), default="serve", help="what to do")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; only those of this machine alone (loopback)"
    )
    parser.add_argument("--port", type=int, default=11434, help="port to listen on; 0 picks a free one")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder for models")
    parser.add_argument("--models", type=Path, action="append", help="a further GGUF file, or a folder of them")
    parser.add_argument("--threads", type=int, help="threads for one model; never more than usable cores")
    parser.add_argument("--no-fetch", action="store_true", help="download and prepare nothing by itself")
    parser.add_argument("--watch-parent", action="store_true", help="end when standard input is closed")
    return parser


def _loop_factory() -> Callable[[], Any] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    factory: Callable[[], Any] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main())
