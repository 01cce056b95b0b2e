"""What the push client takes for an answer, and what it sends."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.errors import UpstreamBroken
from arena.wire import Pool
from arena.wire.answer import HEAD_BYTES, Answer, plain
from arena.wire.call import Call
from arena.wire.raw import RawAnswer
from tests.peer import (
    Guest,
    Peer,
    answers,
    caught,
    chunked,
    failure,
    ok,
    once,
    served,
)

pytestmark = pytest.mark.anyio


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


# framing

CHUNKED = chunked(b"one ", b"two")
GOOD = {
    "length": ok(b"one two"),
    "chunks": CHUNKED,
    "chunk extension and trailer": CHUNKED.replace(b"4\r\n", b"4;x=y\r\n").replace(
        b"0\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n"
    ),
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + CHUNKED,
    "odd case": CHUNKED.replace(b"Transfer-Encoding", b"tRANSFER-eNCODING"),
    "identity": ok(b"one two", "Content-Encoding: identity"),
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("wire", GOOD.values(), ids=GOOD.keys())
async def test_sound_answers_come_whole_and_the_connection_is_used_again(wire: bytes, split: bool) -> None:
    async with served(answers(*(bytewise(wire) if split else [wire]))) as (peer, pool):
        for _ in range(3):
            assert (await pool.fetch("GET", "/"))[::2] == (200, b"one two")
        assert (len(peer.guests), pool.idle_connections) == (1, 1)


@pytest.mark.parametrize(
    ("method", "wire", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304),
        ("GET", ok(b""), 200),
    ],
)
async def test_answers_without_a_body_end_with_their_head(method: str, wire: bytes, status: int) -> None:
    async with served(answers(wire)) as (peer, pool):
        for _ in range(2):
            assert (await pool.fetch(method, "/"))[::2] == (status, b"")
        assert len(peer.guests) == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_an_answer_without_length_ends_with_its_connection(head: bytes) -> None:
    async with served(lambda guest: once(guest, head, b"one ", b"two")) as (peer, pool):
        for _ in range(2):
            assert (await pool.fetch("GET", "/")).body == b"one two"
        assert len(peer.guests) == 2


NOT_REUSED = {
    "asked to close": ok(b"ok", "Connection: close"),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "garbage behind": ok() + b"garbage",
    "another answer behind": ok() + ok(b"PUSHED"),
    "an empty answer behind": ok() + ok(b""),
    "the beginning of another behind": ok() + b"HTTP/1.1 2",
    "surplus of a closing answer": ok(b"ok", "Connection: close") + b"more",
}


@pytest.mark.parametrize("wire", NOT_REUSED.values(), ids=NOT_REUSED.keys())
async def test_a_connection_in_doubt_is_not_used_again(wire: bytes) -> None:
    async with served(answers(wire)) as (peer, pool):
        for _ in range(2):
            assert (await pool.fetch("GET", "/")).body == b"ok"
        await peer.all_left(2)
        assert pool.idle_connections == 0


async def test_a_head_request_needs_no_length() -> None:
    async with served(answers(b"HTTP/1.1 200 OK\r\n\r\n")) as (_, pool):
        assert (await pool.fetch("HEAD", "/"))[::2] == (200, b"")


async def test_a_body_after_a_head_request_spoils_the_connection() -> None:
    async with served(answers(ok(b"body that must not be there"))) as (peer, pool):
        assert (await pool.fetch("HEAD", "/")).body == b""
        await peer.all_left(1)
        assert pool.idle_connections == 0


async def test_bytes_on_an_idle_connection_close_it() -> None:
    push = asyncio.Event()

    async def script(guest: Guest) -> None:
        await once(guest, ok())
        await push.wait()
        await guest.say(ok(b"PUSHED"))
        await guest.gone()

    async with served(script) as (peer, pool):
        await pool.fetch("GET", "/")
        push.set()
        await peer.all_left(1)
        assert pool.open_connections == 0


BROKEN = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "the same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": chunked(b"ab").replace(b"\r\n", b"\r\nContent-Length: 2\r\n", 1),
    "bad chunk size": chunked(b"ab", end=False) + b"zz\r\nab\r\n",
    "huge chunk size": chunked(end=False) + b"f" * 20 + b"\r\n",
    "other coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "compressed": ok(b"\x1f\x8b", "Content-Encoding: gzip"),
    "no HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nzzz",
    "bare upgrade": b"HTTP/1.1 101 Switching\r\n\r\n",
    "head too large": b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_BYTES,
    "endless interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    "endless chunk extension": chunked(b"ab", end=False) + b"2;" + b"x" * 1_000_000,
    "endless trailer": chunked(b"ab", end=False) + b"0\r\nX: " + b"x" * 1_000_000,
}


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer_ends_its_connection_and_harms_no_other(wire: bytes) -> None:
    async def script(guest: Guest) -> None:
        if guest.number == 0:
            await once(guest, wire)
            await guest.gone()
        else:
            await answers(ok())(guest)

    async with served(script) as (peer, pool):
        error = await failure(pool)
        assert isinstance(error, UpstreamBroken)
        assert (error.code, error.status, error.endpoint) == ("upstream_broken", 502, "peer")
        await peer.all_left(1)
        for _ in range(20):
            assert (await pool.fetch("GET", "/")).body == b"ok"
        assert len(peer.guests) == 2


async def test_what_came_before_the_fault_is_handed_over() -> None:
    async with served(lambda guest: once(guest, BROKEN["bad chunk size"])) as (_, pool):
        call, catch = caught(pool)
        with pytest.raises(UpstreamBroken):
            await call.done
        assert catch.body == b"ab"


@given(st.sampled_from(sorted(GOOD)), st.lists(st.integers(1, 40), max_size=30), st.sampled_from([b"", b"garbage"]))
def test_any_split_of_the_bytes_gives_the_same_answer(name: str, sizes: list[int], behind: bytes) -> None:
    rest, answer, body = GOOD[name] + behind, Answer("GET"), b""
    for size in [*sizes, len(rest)]:
        body += answer.feed(rest[:size])
        rest = rest[size:]
        if answer.complete:
            break
    assert (body, answer.status, answer.complete, answer.error) == (b"one two", 200, True, None)
    assert answer.keep_alive
    assert not answer.until_eof


HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length:2\r\nX-A:\t one \t\r\nX-A: two:three\r\nX-B:\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 02\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: Keep-Alive\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nProxy-Connection: close\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 \r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 100 Continue\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nRetry-After: 1\r\n",
    b"HTTP/1.1 200 \xc3\xa4\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: \xe4\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: b\rContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 2\r\n",
    b"HTTP/1.1 200 OK\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 2\r\n",
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_what_needs_no_parser_is_read_as_the_parser_reads_it(method: str, head: bytes) -> None:
    wire = head + b"\r\nab"
    told = plain(wire, method)
    answer = RawAnswer(method)
    body = b"".join(map(answer.feed, bytewise(wire)))
    if told is not None:
        assert (told.status, told.fields, told.body) == (answer.status, answer.raw_headers, body)
        assert (answer.complete, answer.keep_alive, answer.surplus, answer.error) == (True, True, False, None)


def test_only_what_is_plain_needs_no_parser() -> None:
    read = [plain(head + b"\r\nab", "GET") is not None for head in HEADS]
    assert [number for number, without in enumerate(read) if without] == [0, 1, 2, 4, 13, 18]
    assert plain(HEADS[4] + b"\r\nab", "GET", Call.unless) is None, "nobody asked for anything packed"


def test_answers_with_the_same_plain_head_share_nothing() -> None:
    for _ in range(2):
        told = plain(HEADS[0] + b"\r\nab", "GET")
        assert told is not None
        assert (b"x-of", b"this answer alone") not in told.fields
        told.fields.append((b"x-of", b"this answer alone"))


def test_an_answer_that_is_closed_leaves_nothing_for_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for kind in (Answer, RawAnswer):
            answer = kind("GET")
            assert answer.feed(chunked(b"ab", b"cd")) == b"abcd"
            answer.close()
            del answer
        assert gc.collect() == 0
    finally:
        gc.enable()


# what is sent


async def test_the_request_as_it_goes_out() -> None:
    async with served(answers(ok()), headers=[("Authorization", "Bearer x")]) as (peer, pool):
        await pool.fetch("GET", "/a?b=c")
        await pool.fetch("POST", "/b", b"{}", headers=[("X-Id", "7")])
        await pool.fetch("PUT", "/c", b"\x00", headers=[("Content-Type", "application/octet-stream")])
        await pool.fetch("DELETE", "/d")
        common = f" HTTP/1.1\r\nHost: 127.0.0.1:{peer.port}\r\nAccept-Encoding: identity\r\nAuthorization: Bearer x\r\n"
        heads = [request.head.decode().split(common) for request in peer.requests]
        assert heads == [
            ["GET /a?b=c", "\r\n"],
            ["POST /b", "X-Id: 7\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"],
            ["PUT /c", "Content-Type: application/octet-stream\r\nContent-Length: 1\r\n\r\n"],
            ["DELETE /d", "Content-Length: 0\r\n\r\n"],
        ]
        assert [request.body for request in peer.requests] == [b"", b"{}", b"\x00", b""]


async def test_a_base_url_may_hold_a_path() -> None:
    async with Peer(answers(ok())) as peer:
        pool = Pool(peer.url + "/prefix/")
        await pool.fetch("GET", "/api/tags")
        await pool.aclose()
        assert peer.requests[0].line == "GET /prefix/api/tags HTTP/1.1"


async def test_nothing_breaks_out_of_its_line() -> None:
    async with served(answers(ok())) as (peer, pool):
        for method, path in [("GET", "/a b"), ("GET", "/a\r\nX: y"), ("GET", "a"), ("GET", "/ä"), ("G T", "/")]:
            with pytest.raises(ValueError, match="target"):
                await pool.fetch(method, path)
        for header in [("X", "a\r\nY: b"), ("X Y", "z"), ("X", "ä"), ("", "z")]:
            with pytest.raises(ValueError, match="header"):
                await pool.fetch("GET", "/", headers=[header])
        assert peer.guests == []
    for url in ["ftp://h", "http://", "127.0.0.1:11434"]:
        with pytest.raises(ValueError, match="base_url"):
            Pool(url)


async def test_a_large_body_goes_out_whole_and_an_early_answer_spoils_the_connection() -> None:
    async def script(guest: Guest) -> None:
        if guest.number == 0:
            await answers(ok())(guest)
        await guest.say(ok(b"early"))
        await guest.gone()

    async with served(script) as (peer, pool):
        body = bytes(range(256)) * 20_000
        assert (await pool.fetch("POST", "/", body)).body == b"ok"
        assert peer.requests[0].body == body
        assert pool.idle_connections == 1
        fetched = await pool.fetch("POST", "/", body * 4, resend=False)
        assert fetched.body == b"early"
        assert pool.idle_connections == 1, "half a request is still on its way on the other"
