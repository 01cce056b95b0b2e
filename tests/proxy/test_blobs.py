"""Uploads of files to one host and to several: piece by piece, never kept, never half."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from arena.errors import BadRequest, Forbidden, UpstreamBroken, UpstreamError
from arena.fleet import EndpointSpec, Fleet, FleetSpec
from arena.proxy import blobs
from arena.settings import load
from tests.peer import DEADLINE_S, Guest, Peer, Script, ok
from tests.proxy.ground import Answer, Ground, pieces, whole

pytestmark = pytest.mark.anyio

DIGEST = "sha256:" + "0a" * 32
PATH = f"/api/blobs/{DIGEST}"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Store:
    """A host that takes a file and keeps what came of it."""

    def __init__(self, answer: bytes = CREATED) -> None:
        self.heads: list[bytes] = []
        self.body = b""
        self.whole = False
        self.came = asyncio.Event()
        self._answer = answer

    async def __call__(self, guest: Guest) -> None:
        while True:
            head = await guest._reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if not head.startswith(b"HEAD"):
                await self._take(guest, head)
                self.whole = True
            await guest.say(self._answer)

    async def _take(self, guest: Guest, head: bytes) -> None:
        reader = guest._reader
        if b"chunked" not in head:
            self.body = await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            self.body += (await reader.readexactly(size + 2))[:-2]
            self.came.set()
        await reader.readexactly(2)


@asynccontextmanager
async def stores(**scripts: Script) -> AsyncIterator[Ground]:
    """A fleet of scripted hosts."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(DEADLINE_S))
        endpoints = []
        for name, script in scripts.items():
            peer = await stack.enter_async_context(Peer(script))
            endpoints.append(EndpointSpec(name=name, url=peer.url))
        fleet = Fleet(spec=FleetSpec(endpoints=tuple(endpoints)))
        stack.push_async_callback(fleet.aclose)
        yield Ground(fleet, load(engine="off"), {})


async def put(ground: Ground, *parts: bytes, endpoint: str = "", length: int | None = None, path: str = PATH) -> Answer:
    headers = [] if length is None else [("Content-Length", str(length))]
    inbound = ground.inbound("POST", path, f"endpoint={endpoint}", headers)
    return await whole(await blobs.put_blob(ground, inbound, pieces(*parts)))


@pytest.mark.parametrize("length", [11, None])
async def test_a_file_goes_to_the_default_host_as_it_comes(length: int | None) -> None:
    one, two = Store(), Store()
    async with stores(a=one, b=two) as ground:
        answer = await put(ground, b"hello ", b"world", length=length)
    assert (answer.status, answer.body, answer.headers["x-olla-endpoint"]) == (201, b"", "a")
    assert (one.body, two.heads) == (b"hello world", [])
    assert one.heads[0].startswith(f"POST {PATH} HTTP/1.1\r\n".encode())
    assert b"Content-Type: application/octet-stream\r\n" in one.heads[0]


async def test_every_host_that_is_meant_gets_the_file() -> None:
    one, two = Store(), Store()
    async with stores(a=one, b=two) as ground:
        answer = await put(ground, b"hello ", b"world", endpoint="all")
    assert answer.status == 201
    assert [result["status"] for result in answer.json["results"]] == ["success", "success"]
    assert one.body == two.body == b"hello world"


async def test_pieces_are_handed_on_before_the_next_is_there() -> None:
    store = Store()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await store.came.wait()
        yield b"second"

    async with stores(a=store) as ground:
        await blobs.put_blob(ground, ground.inbound("POST", PATH), slow())
    assert store.body == b"firstsecond"


async def test_a_client_that_leaves_leaves_no_host_with_half_a_file() -> None:
    one, two = Store(), Store()

    class Left(Exception):
        pass

    async def leaving() -> AsyncIterator[bytes]:
        yield b"half"
        await one.came.wait()
        await two.came.wait()
        raise Left

    async with stores(a=one, b=two) as ground:
        with pytest.raises(Left):
            await blobs.put_blob(ground, ground.inbound("POST", PATH, "endpoint=all"), leaving())
    assert (one.body, two.body) == (b"half", b"half")
    assert not one.whole
    assert not two.whole


async def breaking(guest: Guest) -> None:
    await guest._reader.readuntil(b"\r\n\r\n")
    guest.reset()


async def test_one_hosts_failure_does_not_stop_the_others() -> None:
    one = Store()
    async with stores(a=one, b=breaking) as ground:
        answer = await put(ground, *[b"x" * 1000] * 100, endpoint="all")
        assert answer.status == 502
        assert answer.json["code"] == "partial_failure"
        assert one.body == b"x" * 100_000
        with pytest.raises(UpstreamBroken):
            await put(ground, b"x", endpoint="b")


async def test_a_host_that_has_it_already_wants_no_more_of_it() -> None:
    async def has_it(guest: Guest) -> None:
        await guest._reader.readuntil(b"\r\n\r\n")
        await guest.say(ok())
        await guest.gone()

    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x"
            await asyncio.sleep(0)

    async with stores(a=has_it) as ground:
        reply = await blobs.put_blob(ground, ground.inbound("POST", PATH), endless())
        assert reply.status == 200
        assert taken


@pytest.mark.parametrize("status", [400, 403])
async def test_a_hosts_refusal(status: int) -> None:
    refusal = b"HTTP/1.1 %d No\r\nContent-Length: 15\r\n\r\n" % status + b'{"error":"bad"}'
    async with stores(a=Store(refusal), b=Store()) as ground:
        if status == 403:
            with pytest.raises(UpstreamError, match="refuses our credentials"):
                await put(ground, b"x")
        else:
            answer = await put(ground, b"x")
            assert (answer.status, answer.json) == (400, {"error": "bad"})
            assert answer.headers["content-type"].startswith("application/json")
        both = await put(ground, b"x", endpoint="all")
        assert [result["status"] for result in both.json["results"]] == ["error", "success"]


async def test_a_blob_is_there_if_every_host_has_it() -> None:
    async with stores(a=Store(ok(b"")), b=Store(NOT_FOUND), c=breaking) as ground:
        for endpoint, status in (("a", 200), ("b", 404), ("a,b", 404)):
            answer = await ground.ask(blobs.has_blob, "HEAD", PATH, query=f"endpoint={endpoint}")
            assert (answer.status, answer.body) == (status, b"")
        with pytest.raises(UpstreamBroken):
            await ground.ask(blobs.has_blob, "HEAD", PATH, query="endpoint=all")


@pytest.mark.parametrize("path", ["/api/blobs/x", "/api/blobs/sha256:12", f"{PATH}/..", "/api/blobs/../tags"])
async def test_what_is_no_digest(path: str) -> None:
    async with stores(a=Store()) as ground:
        with pytest.raises(BadRequest, match="digest"):
            await put(ground, b"x", path=path)
        with pytest.raises(BadRequest, match="digest"):
            await ground.ask(blobs.has_blob, "HEAD", path)


async def test_uploads_are_closed_with_the_rest() -> None:
    async with stores(a=Store()) as ground:
        ground.settings = load(engine="off", management=False)
        with pytest.raises(Forbidden):
            await put(ground, b"x")
        with pytest.raises(Forbidden):
            await ground.ask(blobs.has_blob, "HEAD", PATH)
