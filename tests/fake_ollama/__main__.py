"""`python -m tests.fake_ollama --port 0`: the fake as a process, for servers that are tested from outside.

Prints one JSON line with its ports and ends when its standard input closes, as it does when the parent dies.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading

from tests.fake_ollama.catalogue import DEFAULT_MODELS
from tests.fake_ollama.server import FakeOllama


async def serve(port: int, models: list[str], max_s: float) -> None:
    """Serve until standard input closes, at most `max_s` seconds."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def watch_parent() -> None:
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(stop.set)

    async with FakeOllama(models, port=port) as fake:
        addresses = {"port": fake.port, "control": fake.control_port, "url": fake.url, "canary": fake.canary_url}
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        threading.Thread(target=watch_parent, daemon=True).start()
        async with asyncio.timeout(max_s):
            await stop.wait()


def main() -> int:
    """Run the command line; exit status 0 when stopped, 1 when the time was over."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_ollama", description="A fake Ollama server.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--models", nargs="*", default=list(DEFAULT_MODELS), help="the names it lists")
    parser.add_argument("--max-seconds", type=float, default=600, help="end by itself after this time")
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.port, arguments.models, arguments.max_seconds))
    except TimeoutError:
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
