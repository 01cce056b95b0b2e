"""Clients that take what waits for them slowly, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.config import Config

from arena.server.limits import Limits
from arena.server.protocol import LimitedProtocol, State

pytestmark = pytest.mark.anyio

KIB = 1024


class Slow(asyncio.Transport):
    """A transport with `left` bytes that its client has not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        self.closing = self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return self.left

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted = True


async def nobody(scope: Any, receive: Any, send: Any) -> None:
    """An application that is never asked."""


def connected(limits: Limits) -> tuple[LimitedProtocol, Slow]:
    """A connection that was just made."""
    config = Config(nobody, lifespan="off", ws="none", log_config=None)
    config.load()
    connection, transport = LimitedProtocol(config, State(limits), {}), Slow()
    connection.connection_made(transport)
    return connection, transport


@pytest.mark.parametrize("closing", [True, False], ids=["after its end", "in the middle"])
async def test_who_takes_a_large_answer_slowly_gets_all_of_it_and_who_takes_next_to_nothing_is_dropped(
    closing: bool,
) -> None:
    connection, transport = connected(Limits(head_s=10**6))
    now = asyncio.get_running_loop().time()
    transport.left, transport.closing = 640 * KIB, closing
    if not closing:
        connection.pause_writing()
    for _ in range(20):  # a minute for every 16 KiB
        connection.sweep(now)
        assert not transport.aborted
        now += 59
        transport.left -= 16 * KIB
    connection.sweep(now)
    for _ in range(59):
        now += 1
        transport.left -= 1
        connection.sweep(now)
        assert not transport.aborted
    connection.sweep(now + 2)
    assert transport.aborted


async def test_time_that_was_taken_before_does_not_count() -> None:
    connection, transport = connected(Limits(head_s=10**6))
    now = asyncio.get_running_loop().time()
    for _ in range(5):
        transport.left = 100 * KIB
        connection.pause_writing()
        connection.sweep(now)
        now += 59
        connection.sweep(now)
        assert not transport.aborted
        transport.left = 0
        connection.resume_writing()
        connection.sweep(now)
