"""Servers in threads: each ends with the block that started it, or the failure says what holds it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import CoroutineType
from typing import Any

from arena.server import Server

PATIENCE_S = 30.0
"""How long a server may take to start and to end, on a machine that is busy with other things."""
SHOWN = 20


@contextmanager
def in_thread(server: Server, ready: threading.Event) -> Iterator[threading.Thread]:
    """Run `server`, whose `on_ready` sets `ready`, until the block ends. Both ends must come in time."""
    thread = threading.Thread(target=server.run, name="arena", daemon=True)
    thread.start()
    try:
        until_ready(ready, thread)
        yield thread
    finally:
        end(server, thread)


def until_ready(ready: threading.Event, thread: threading.Thread) -> None:
    """Wait until the server listens; raises AssertionError with what its thread does instead."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not ready.wait(0.1):
        assert thread.is_alive(), "the server ended before it listened"
        assert time.monotonic() < deadline_s, f"not listening after {PATIENCE_S} s{_stack(thread)}"


def end(server: Server, thread: threading.Thread) -> None:
    """Tell `server` to stop, as a signal would, and wait for its thread; raises AssertionError with what holds it."""
    server.should_exit = True
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), f"not ended after {PATIENCE_S} s{_clients(server)}{_tasks(server)}{_stack(thread)}"


def _clients(server: Server) -> str:
    """The clients that are still connected, and what each has asked for."""
    connections: list[Any] = list(server.server_state.connections)
    return _listed("connections", [f"{each.client} {each.path}" for each in connections])


def _tasks(server: Server) -> str:
    """The tasks of the server's loop, and where each waits."""
    loop = server._loop
    return _listed("tasks", [_waits(task) for task in asyncio.all_tasks(loop)] if loop is not None else [])


def _waits(task: asyncio.Task[Any]) -> str:
    """The task's name, and the lines that it waits in, the outermost first."""
    coroutine: Any = task.get_coro()
    places = []
    while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
        places.append(f"{coroutine.cr_code.co_qualname}:{coroutine.cr_frame.f_lineno}")
        coroutine = coroutine.cr_await
    return f"{task.get_name()}: {' > '.join(places)}"


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(["\nits thread is at\n", *traceback.format_stack(frame, 4)]) if frame else "\nits thread has ended"


def _listed(what: str, lines: list[str]) -> str:
    return "".join([f"\n{len(lines)} {what} open", *(f"\n  {line}" for line in lines[:SHOWN])])
