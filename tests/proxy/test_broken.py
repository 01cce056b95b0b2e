"""An answer that breaks off: the client can always tell, in its own dialect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from arena.proxy.dialect import dialect_of
from arena.wire import Timeouts
from tests.fake_ollama import text_of
from tests.peer import Guest, Peer, chunked
from tests.proxy.front import CHAT, LIMITS, asked, front

pytestmark = pytest.mark.anyio

OPENAI = "/olla/openai/v1/chat/completions"
BROKEN = {
    "closed": ("fx-eof:n-5", "upstream_eof"),
    "reset": ("fx-rst:n-5", "upstream_reset"),
    "stalled": ("fx-stall:n-5", "timeout"),
    "not done": ("fx-nodone:n-5", "upstream_eof"),
    "cut in a line": ("fx-cutline:n-5", "upstream_eof"),
    "cut in a line and closed": ("fx-cutline:n-5_clean-0", "upstream_eof"),
    "framing": ("fx-badchunk:n-5", "upstream_broken"),
}


def limits_of(code: str) -> Timeouts:
    """Short ones only where they are to be reached: a busy machine may reach them by itself."""
    return Timeouts(connect_s=2, first_byte_s=5, idle_s=0.2) if code == "timeout" else LIMITS


@pytest.mark.parametrize(("model", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_lines_end_with_an_error(model: str, code: str) -> None:
    async with front("a", "b", models=[model], limits=limits_of(code)) as it:
        answer = await it.chat(model)
        assert (answer.status, answer.cut, answer.ended) == (200, True, False)
        last = json.loads(answer.body.split(b"\n")[-2])
        assert (last["code"], last["done"], last["done_reason"]) == (code, True, "error")
        assert last["error"]
        assert len(asked(it["a"])) + len(asked(it["b"])) == 1, "sent again after the first byte"
        (entry,) = it.fleet.book.recent
        assert entry.outcome == "failed"
        if "cutline" not in model:
            text = "".join(line["message"]["content"] for line in answer.lines[:-1])
            assert text_of(5).startswith(text)


@pytest.mark.parametrize(("model", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_openai_events_end_with_an_error(model: str, code: str) -> None:
    async with front("a", models=[model], limits=limits_of(code)) as it:
        answer = await it.chat(model, OPENAI, stream=True)
        assert (answer.status, answer.cut) == (200, True)
        assert b"[DONE]" not in answer.body
        assert answer.body.endswith(b"\n\n")
        event = answer.body.split(b"\n\n")[-2]
        assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == code


def script(media_type: str, *chunks: bytes) -> Callable[[Guest], Any]:
    """Begins a stream, and closes in the middle."""
    kind = f"\r\nContent-Type: {media_type}\r\n\r\n".encode()

    async def play(guest: Guest) -> None:
        await guest.request()
        await guest.say(chunked(*chunks, end=False).replace(b"\r\n\r\n", kind, 1))

    return play


@pytest.mark.parametrize(
    ("path", "find"),
    [
        ("/olla/anthropic/v1/messages", lambda event: event["error"]["message"]),
        ("/olla/ollama/v1/responses", lambda event: event["message"]),
    ],
)
@pytest.mark.parametrize("begun", [b"event: x\ndata: {}\n\n", b"event: x\ndata: {"])
async def test_named_events_end_with_an_error(path: str, find: Callable[[Any], str], begun: bytes) -> None:
    async with Peer(script("text/event-stream", begun)) as peer, front("a", urls={"p": peer.url}) as it:
        specs = it.fleet.endpoint("p")
        path = path.replace("/ollama/", "/proxy/")
        answer = await it.chat("any", path, headers=[("X-Olla-Endpoint", specs.name)])
        assert answer.cut
        event = answer.body.removeprefix(begun).strip().split(b"\n")
        assert event[0] == b"event: error"
        value = json.loads(event[1].removeprefix(b"data: "))
        assert value["type"] == "error"
        assert "p closed the connection" in find(value)


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "audio/mpeg"])
async def test_what_has_no_words_for_it_is_cut(media_type: str) -> None:
    async with Peer(script(media_type, b"half")) as peer, front(urls={"p": peer.url}) as it:
        answer = await it.chat("any", OPENAI, headers=[("X-Olla-Endpoint", "p")])
        assert (answer.body, answer.cut) == (b"half", True)


@pytest.mark.parametrize(
    ("body", "is_whole"),
    [(b'{"choices":[{"message"', False), (b' [{"a":1},', False), (b'{"a":1} \n', True), (b"[]", True), (b"true", True)],
)
@pytest.mark.parametrize("packed", [b"", b"Content-Encoding: gzip\r\n"])
async def test_an_object_that_the_end_of_its_connection_cuts_is_not_whole(
    body: bytes, is_whole: bool, packed: bytes
) -> None:
    async def dies(guest: Guest) -> None:
        await guest.request()
        await guest.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%b\r\n" % packed, body)

    async with Peer(dies) as peer, front(urls={"p": peer.url}) as it:
        headers = [("X-Olla-Endpoint", "p"), *([("Accept-Encoding", "gzip")] if packed else [])]
        answer = await it.chat("any", OPENAI, stream=False, headers=headers)
        whole = is_whole or bool(packed)  # which only the client can look into
        assert (answer.status, answer.body, answer.ended, answer.cut) == (200, body, whole, not whole)
        assert it.fleet.book.recent[0].outcome == ("succeeded" if whole else "failed")


async def test_nothing_lacks_no_end() -> None:
    async def has_done_it(guest: Guest) -> None:
        await guest.request()
        await guest.say(b"HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n\r\n")

    async with Peer(has_done_it) as peer, front(urls={"p": peer.url}) as it:
        answer = await it.chat("any", OPENAI, stream=False, headers=[("X-Olla-Endpoint", "p")])
        assert (answer.status, answer.body, answer.ended, answer.cut) == (204, b"", True, False)
        assert it.fleet.book.recent[0].outcome == "succeeded"


async def test_a_short_length_is_cut() -> None:
    async with front("a", models=["fx-shortcl:n-5"]) as it:
        assert (await it.chat("fx-shortcl:n-5", stream=False)).cut


async def test_the_total_limit_ends_a_stream_that_never_does() -> None:
    limits = Timeouts(first_byte_s=5, idle_s=5, total_s=0.3)
    async with front("a", models=["fx-endless"], limits=limits) as it:
        answer = it.begin_chat("fx-endless")
        await answer.over.wait()
        assert answer.lines[-1]["code"] == "total_timeout"
        assert answer.cut
        assert it.fleet.endpoint("a").breaker.failures == 0, "a long answer is no fault"
        await it["a"].closed(1)


async def test_an_error_line_of_the_host_is_its_failure_and_passes() -> None:
    async with front("a", models=["fx-errline:n-5"]) as it:
        answer = await it.chat("fx-errline:n-5")
        assert (answer.ended, "error" in answer.lines[-1]) == (True, True)
        assert it.fleet.book.recent[0].outcome == "failed"


@pytest.mark.parametrize("model", ["fx-afterdone:n-5", "fx-twodone:n-5", "fx-longline:kb-600", "fx-pipeline:n-5"])
async def test_odd_ends_are_ends(model: str) -> None:
    async with front("a", models=[model]) as it:
        answer = await it.chat(model)
        assert answer.ended
        assert it.fleet.book.recent[0].outcome == "succeeded"
        assert it.fleet.book.recent[0].completion_tokens


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        (CHAT, "native"),
        ("/olla/proxy/v1/completions", "openai"),
        ("/olla/ollama/v1/messages", "anthropic"),
        ("/olla/anthropic/nowhere", "anthropic"),
        ("/olla/openai/v1/responses", "responses"),
        ("/nowhere", "native"),
    ],
)
def test_a_path_tells_the_dialect(path: str, dialect: str) -> None:
    assert dialect_of(path) == dialect
