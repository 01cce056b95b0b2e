"""The push client's uploads: piece by piece, at the endpoint's pace, cut when they are given up."""

from __future__ import annotations

import asyncio

import pytest

from arena.errors import ShuttingDown, Unreachable, UpstreamBroken, UpstreamTimeout
from arena.wire import Pool, Timeouts
from arena.wire.connection import Connection
from arena.wire.upload import Upload
from tests.peer import Guest, Peer, ok, served

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


async def head(guest: Guest) -> bytes:
    return await guest._reader.readuntil(b"\r\n\r\n")


async def deaf(guest: Guest) -> None:
    """Read the head and nothing of the body."""
    await head(guest)
    await asyncio.Event().wait()


@pytest.mark.parametrize("size_bytes", [11, None])
async def test_the_pieces_arrive_as_one_body_and_the_connection_serves_again(size_bytes: int | None) -> None:
    got: list[bytes] = []

    async def script(guest: Guest) -> None:
        got.append(await head(guest))
        ends = guest._reader.readuntil(b"0\r\n\r\n") if size_bytes is None else guest._reader.readexactly(size_bytes)
        got.append(await ends)
        await guest.say(ok(b"there"))
        await guest.gone()

    async with served(script) as (_, pool):
        async with pool.upload("/x", size_bytes, headers=[("Content-Type", "a/b")]) as upload:
            assert await upload.write(b"hello ")
            assert await upload.write(b"")
            assert await upload.write(b"world")
            assert await upload.end() == (200, b"there")
        assert pool.idle_connections == 1
    framing = b"Transfer-Encoding: chunked" if size_bytes is None else b"Content-Length: 11"
    assert got[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert got[0].lower().count(b"content-length") + got[0].lower().count(b"transfer-encoding") == 1
    assert framing in got[0]
    assert got[1] == (b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n" if size_bytes is None else b"hello world")


async def test_a_slow_endpoint_holds_the_writer_back(slowness: asyncio.Event) -> None:
    read_on = asyncio.Event()

    async def script(guest: Guest) -> None:
        await head(guest)
        await read_on.wait()
        await guest._reader.readexactly(32 * MIB)
        await guest.say(ok())

    async with served(script) as (_, pool), pool.upload("/", 32 * MIB) as upload:
        writing = asyncio.create_task(write_all(upload, 32))
        await slowness.wait()
        assert not writing.done(), "all of it went into our own memory"
        read_on.set()
        await writing
        assert (await upload.end())[0] == 200


async def write_all(upload: Upload, mib: int) -> None:
    piece = bytes(MIB)
    for _ in range(mib):
        assert await upload.write(piece)


@pytest.fixture
def slowness(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set as soon as an endpoint's slowness is felt."""
    felt = asyncio.Event()
    pause = Connection.pause_writing

    def pause_and_tell(self: Connection) -> None:
        pause(self)
        felt.set()

    monkeypatch.setattr(Connection, "pause_writing", pause_and_tell)
    return felt


async def test_an_endpoint_that_goes_away_while_it_is_slow_ends_the_writing(
    slowness: asyncio.Event,
) -> None:
    leave = asyncio.Event()

    async def script(guest: Guest) -> None:
        await head(guest)
        await leave.wait()
        guest.reset()

    async with served(script) as (_, pool), pool.upload("/", 32 * MIB) as upload:
        writing = asyncio.create_task(write_all(upload, 32))
        await slowness.wait()
        leave.set()
        with pytest.raises(UpstreamBroken):
            await writing


async def test_giving_up_cuts_the_connection_before_the_body_is_whole() -> None:
    async def script(guest: Guest) -> None:
        await head(guest)
        await guest.gone()

    async with served(script) as (peer, pool):
        async with pool.upload("/", None) as upload:
            await upload.write(b"half")
        await peer.all_left(1)


async def test_an_early_answer_ends_the_writing_and_its_connection_serves_nobody_else() -> None:
    async def script(guest: Guest) -> None:
        await head(guest)
        await guest.say(ok(b"have it"))
        await guest.gone()

    async with served(script) as (peer, pool):
        async with pool.upload("/", 100) as upload:
            await upload.write(b"x")
            await upload.done
            assert not await upload.write(b"y")
            assert await upload.end() == (200, b"have it")
        await peer.all_left(1)
        assert pool.idle_connections == 0


async def test_a_long_answer_is_cut() -> None:
    async def script(guest: Guest) -> None:
        await head(guest)
        await guest.say(ok(b"z" * 100_000))
        await guest.gone()

    async with served(script) as (_, pool), pool.upload("/", 0) as upload:
        status, body = await upload.end()
        assert status == 200
        assert 64 * 1024 <= len(body) <= 100_000


async def test_failures_reach_the_writer() -> None:
    async def breaks(guest: Guest) -> None:
        await head(guest)
        guest.reset()

    async with served(breaks) as (_, pool), pool.upload("/", None) as upload:
        with pytest.raises(UpstreamBroken):
            await upload.end()
    async with served(deaf, timeouts=Timeouts(first_byte_s=0.05)) as (_, pool), pool.upload("/", 1) as upload:
        with pytest.raises(UpstreamTimeout):
            await upload.end()


async def test_an_endpoint_that_is_not_there_or_no_longer_ours() -> None:
    async with Peer(deaf) as peer:
        url = peer.url
    pool = Pool(url, name="gone")
    async with pool.upload("/", 1) as upload:
        with pytest.raises(Unreachable):
            await upload.write(b"x")
    await pool.aclose()
    async with pool.upload("/", 1) as upload:
        with pytest.raises(ShuttingDown):
            await upload.write(b"x")
