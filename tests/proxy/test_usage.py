"""What OpenAI streams cost is known, whoever asked for it; the client sees what it asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arena.exchange import Caller
from arena.proxy.counters import Tail
from arena.proxy.dialect import EVENTS
from tests.fake_ollama import FakeOllama
from tests.peer import Guest, Peer, ok
from tests.proxy.front import HELLO, asked, front

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
LISTING = ok(b'{"object":"list","data":[{"id":"m","object":"model"}]}', "Content-Type: application/json")
USAGE = b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
TEXT = [b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":null}],"usage":null}' % t for t in (b"a", b"[]")]
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}'
DONE = b"data: [DONE]"
USAGE_EVENT = b"data: " + USAGE


def host(*answers: bytes) -> Any:
    """A host that lists "m" and gives these answers, one after the other."""
    left = list(answers)

    async def script(guest: Guest) -> None:
        while True:
            request = await guest.request()
            await guest.say(LISTING if request.line.startswith("GET") else left.pop(0))

    return script


def streamed(*events: bytes, gap: bytes = b"\n\n", end: bytes = b"\n\n", coding: str = "") -> bytes:
    fields = [f"Content-Encoding: {coding}"] if coding else []
    return ok(gap.join(events) + end, "Content-Type: text/event-stream", *fields)


async def ask(it: Any, path: str = CHAT, model: str = "m", **more: Any) -> Any:
    body = {"model": model, "stream": True, "messages": HELLO, **more}
    return await it.ask("POST", f"/olla/proxy{path}", body, headers=[("Accept-Encoding", "br")])


@pytest.mark.parametrize("path", [f"/olla/{prefix}{path}" for prefix in ("openai", "proxy", "ollama")
                                  for path in (CHAT, "/v1/completions")])  # fmt: skip
@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": True}])
async def test_every_stream_is_counted_and_tells_what_was_asked(path: str, options: Any) -> None:
    async with front("a", models=["fx-ok:n-5"]) as it:
        body = {"model": "fx-ok:n-5", "stream": True, "stream_options": options, "prompt": "x", "messages": HELLO}
        answer = await it.ask("POST", path, body)
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert (b'"usage"' in answer.body) is bool(options and options["include_usage"] if options else False)
        (entry,) = it.fleet.book.recent
        assert (entry.prompt_tokens, entry.completion_tokens, entry.estimated) == (2, 5, False)


@pytest.mark.parametrize(
    "path", ["/olla/ollama/api/chat", "/olla/openai/v1/chat/completions", "/olla/anthropic/v1/messages"]
)
@pytest.mark.parametrize("leaves", [True, False], ids=["left", "stopped"])
async def test_what_has_come_counts_though_the_client_leaves_before_the_end(path: str, leaves: bool) -> None:
    """Else a key would be free for whoever hangs up just before the last line."""
    spent: list[tuple[str, str, str, int]] = []
    caller = Caller("127.0.0.1", "127.0.0.1", "r-1", key="ann")
    async with front("a", models=["fx-gate:n-99"]) as it:
        it.fleet.book.spent = lambda *told: spent.append(told)
        body = {"model": "fx-gate:n-99", "stream": True, "messages": HELLO, "max_tokens": 99}
        answer = it.begin("POST", path, body, caller=caller)
        it["a"].release(n=40)
        while answer.body.count(b"\n\n" if path != "/olla/ollama/api/chat" else b"\n") < 40:
            answer.news.clear()
            await answer.news.wait()
        assert answer.session is not None
        answer.session.left() if leaves else it.proxy.drain()
        (entry,) = it.fleet.book.recent
        assert (entry.outcome, entry.estimated) == ("left", True)
        assert 36 <= entry.completion_tokens <= 44
        assert spent == [("ann", "fx-gate:n-99", "a", entry.completion_tokens)]


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_prompt_that_is_told_first_counts_in_whatever_pieces_it_comes_and_though_the_client_leaves(size: int) -> None:
    tail = Tail()
    start = b'event: message_start\ndata: {"message":{"usage":{"input_tokens":900,"output_tokens":1}}}\n\n'
    said = start + b'event: content_block_delta\ndata: {"delta":{"text":"word"}}\n\n' * 100
    for at in range(0, len(said), size):
        tail.feed(said[at : at + size])
    left = tail.so_far(EVENTS)
    assert (left.prompt_tokens, left.estimated) == (900, True)
    assert 95 <= left.completion_tokens <= 105
    tail.feed(b'event: message_delta\ndata: {"usage":{"output_tokens":100}}\n\nevent: message_stop\n\n')
    usage = tail.read("anthropic", EVENTS).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (900, 100)


async def test_a_refusal_costs_no_tokens_though_it_comes_as_events() -> None:
    said = b'data: {"error":{"message":"no"}}\n\n' * 3
    refusal = b"HTTP/1.1 400 No\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(said) + said
    async with Peer(host(refusal)) as peer, front(urls={"p": peer.url}) as it:
        assert (await ask(it)).status == 400
        (entry,) = it.fleet.book.recent
        assert (entry.completion_tokens, entry.estimated) == (0, False)


async def test_words_of_a_model_are_no_end_of_its_stream() -> None:
    words = json.dumps({"choices": [{"delta": {"content": "Say event: error and data: [DONE], or message_stop."}}]})
    said = streamed(f"data: {words}".encode(), USAGE_EVENT, DONE)
    cut = streamed(f"data: {words}".encode(), STOP)
    async with Peer(host(said, cut)) as peer, front(urls={"p": peer.url}) as it:
        assert (await ask(it)).ended
        assert (await ask(it)).cut
        ends = [(entry.outcome, entry.completion_tokens) for entry in it.fleet.book.recent]
        assert [outcome for outcome, _ in ends] == ["failed", "succeeded"]
        assert ends[1] == ("succeeded", 2)


async def test_a_server_of_type_openai_is_asked_too() -> None:
    async with FakeOllama(models=["fx-slicer:k-1_n-3"]) as fake, front(urls={"p": fake.url}) as it:
        for _ in range(2):
            answer = await ask(it, model="fx-slicer:k-1_n-3", temperature=0.25, stream_options={"more": 1})
            assert b'"usage"' not in answer.body
        sent = asked(fake, CHAT)
        assert sent[0].body["stream_options"] == {"more": 1, "include_usage": True}
        assert sent[0].body["temperature"] == 0.25
        assert sent[0].headers["accept-encoding"] == "identity"
        assert it.fleet.book.totals().completion_tokens == 6


@pytest.mark.parametrize("gap", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("cut", range(0, 230, 23))
async def test_the_chunk_is_found_wherever_the_stream_is_cut(gap: bytes, cut: int) -> None:
    answer = streamed(*TEXT, STOP, b"data: " + USAGE, DONE, gap=gap, end=gap)
    head = answer.index(b"\r\n\r\n") + 4

    async def script(guest: Guest) -> None:
        while True:
            if (await guest.request()).line.startswith("GET"):
                await guest.say(LISTING)
            else:
                await guest.say(answer[: head + cut], answer[head + cut :])

    async with Peer(script) as peer, front(urls={"p": peer.url}) as it:
        told = await ask(it)
        assert told.body.replace(b"\r\n", b"\n") == b"\n\n".join([*TEXT, STOP, DONE, b""])
        entry = it.fleet.book.recent[0]
        assert (entry.outcome, entry.prompt_tokens, entry.completion_tokens) == ("succeeded", 3, 2)


async def test_without_a_word_of_the_cost_the_events_are_counted_and_that_is_said() -> None:
    stream = streamed(*TEXT, STOP, DONE)
    async with Peer(host(stream, stream)) as peer, front(urls={"p": peer.url}) as it:
        for options in (None, {"include_usage": True}):
            await ask(it, stream_options=options)
        assert [(entry.completion_tokens, entry.estimated) for entry in it.fleet.book.recent] == [(2, True)] * 2
        totals = it.fleet.book.totals()
        assert (totals.completion_tokens, totals.estimated_tokens) == (4, 4)


async def test_a_server_that_does_not_know_the_key_is_asked_without_it_from_then_on() -> None:
    words = json.dumps({"error": {"message": "unknown field stream_options"}}).encode()
    refused = ok(words, "Content-Type: application/json").replace(b"200 OK", b"422 No")
    stream = streamed(*TEXT, STOP, DONE)
    async with Peer(host(refused, stream, stream)) as peer, front(urls={"p": peer.url}) as it:
        for _ in range(2):
            assert (await ask(it)).status == 200
        sent = [json.loads(request.body) for request in peer.requests if request.body]
        assert ["stream_options" in body for body in sent] == [True, False, False]
        assert [entry.outcome for entry in it.fleet.book.recent] == ["succeeded"] * 2


@pytest.mark.parametrize("size", [10, 200_000])
async def test_any_other_refusal_is_the_clients(size: int) -> None:
    words = json.dumps({"error": {"message": "x" * size}}).encode()
    refused = ok(words, "Content-Type: application/json").replace(b"200 OK", b"400 No")
    async with Peer(host(refused)) as peer, front(urls={"p": peer.url}) as it:
        answer = await ask(it)
        assert (answer.status, answer.body) == (400, words)
        assert it.fleet.endpoint("p").takes == {}


async def test_what_is_no_readable_stream_passes_as_it_is() -> None:
    packed = streamed(b"\x1f\x8b", end=b"", coding="gzip")
    plain = ok(b'{"choices":[],"usage":{"completion_tokens":4}}', "Content-Type: application/json")
    async with Peer(host(packed, plain)) as peer, front(urls={"p": peer.url}) as it:
        assert b"\x1f\x8b" in (await ask(it)).body
        assert (await ask(it)).json["usage"] == {"completion_tokens": 4}
        assert it.fleet.book.recent[0].completion_tokens == 4


@pytest.mark.parametrize("body", [b'{"model":"m","stream":"yes"}',
                                  b'{"model":"m","stream":false}', b'{"model":"m"}'])  # fmt: skip
async def test_what_is_no_sound_request_for_a_stream_goes_as_it_came(body: bytes) -> None:
    plain = ok(b'{"choices":[]}', "Content-Type: application/json")
    async with Peer(host(plain)) as peer, front(urls={"p": peer.url}) as it:
        await it.ask("POST", f"/olla/proxy{CHAT}", body, headers=[("Content-Type", "application/json")])
        assert [request.body for request in peer.requests if request.body] == [body]


async def test_an_end_without_an_empty_line_is_passed_on() -> None:
    async with Peer(host(streamed(*TEXT, STOP, DONE, end=b""))) as peer, front(urls={"p": peer.url}) as it:
        answer = await ask(it)
        assert answer.body == b"\n\n".join([*TEXT, STOP, DONE])
        assert answer.ended


async def test_a_huge_event_passes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.proxy.usage.EVENT_BYTES", 1000)
    huge = b'data: {"choices":[{"delta":{"content":"%b"}}]}' % (b"x" * 500_000)
    events = [TEXT[0], huge, STOP, b"data: " + USAGE, DONE]
    async with Peer(host(streamed(*events))) as peer, front(urls={"p": peer.url}) as it:
        answer = await ask(it)
        assert answer.body.startswith(b"\n\n".join(events[:3]))
        assert it.fleet.book.recent[0].completion_tokens == 2
