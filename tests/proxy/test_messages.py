"""Anthropic's messages on hosts that only know OpenAI's chat, beside hosts that know them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama, text_of
from tests.peer import Guest, Peer, ok
from tests.proxy.front import HELLO, Front, Taken, asked, front

pytestmark = pytest.mark.anyio

MESSAGES = "/olla/anthropic/v1/messages"
CHAT = "/v1/chat/completions"
LISTING = ok(b'{"object":"list","data":[{"id":"m","object":"model"}]}', "Content-Type: application/json")
SHORT = Timeouts(connect_s=2, first_byte_s=5, idle_s=0.3)
IMPATIENT = {"bad": {"timeouts": Timeouts(connect_s=2, first_byte_s=0.3)}}


@asynccontextmanager
async def chats(*models: str, **more: Any) -> AsyncGenerator[tuple[Front, FakeOllama], None]:
    """The proxy before one host that has OpenAI's routes only, and nothing of Anthropic's."""
    async with FakeOllama(models=models) as fake, front(urls={"p": fake.url}, **more) as it:
        fake.log.clear()
        yield it, fake


async def ask(it: Front, model: str, *, stream: bool = True, path: str = MESSAGES, **more: Any) -> Taken:
    body = {"model": model, "max_tokens": 99, "messages": HELLO, "stream": stream, **more}
    return await it.ask("POST", path, body, headers=[("Accept-Encoding", "gzip"), ("anthropic-version", "2023-06-01")])


def events(answer: Taken) -> list[dict[str, Any]]:
    """The events of a stream."""
    lines = [event.split(b"\n") for event in answer.body.split(b"\n\n")[:-1]]
    told = [json.loads(data.removeprefix(b"data: ")) for _, data in lines]
    assert [kind.removeprefix(b"event: ").decode() for kind, _ in lines] == [event["type"] for event in told]
    return told


def said(told: Sequence[dict[str, Any]]) -> str:
    return "".join(event["delta"].get("text", "") for event in told if event["type"] == "content_block_delta")


def scripted(*replies: tuple[str, bytes]) -> Any:
    """A host that lists the model "m", and then answers request after request at the paths that are expected."""
    left = list(replies)

    async def script(guest: Guest) -> None:
        while True:
            request = await guest.request()
            if request.line.startswith("GET"):
                await guest.say(LISTING)
                continue
            path, answer = left.pop(0)
            assert request.line.split(" ")[1] == path
            await guest.say(answer)

    return script


def refused(status: int, value: Any) -> bytes:
    answer = ok(json.dumps(value).encode(), "Content-Type: application/json", "Retry-After: 7")
    return answer.replace(b"200 OK", b"%d No" % status)


def completion(text: str = "Hi", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    value = {"choices": [choice], "usage": usage, **more}
    return ok(json.dumps(value).encode(), "Content-Type: application/json")


UNKNOWN = (MESSAGES.removeprefix("/olla/anthropic"), refused(404, {"detail": "Not Found"}))


@pytest.mark.parametrize("path", [MESSAGES, "/olla/proxy/v1/messages", "/olla/openai/v1/messages"])
async def test_a_stream_comes_as_anthropics_and_is_counted(path: str) -> None:
    async with chats("fx-ok:n-5") as (it, fake):
        answer = await ask(it, "fx-ok:n-5", path=path)
        assert (answer.status, answer.ended) == (200, True)
        told = events(answer)
        assert (said(told), told[-1]["type"]) == (text_of(5), "message_stop")
        assert told[-2]["usage"]["output_tokens"] == 5
        headers = answer.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["x-olla-endpoint"] == "p"
        assert headers["request-id"] == headers["x-olla-request-id"]
        assert "x-olla-mode" not in headers  # which is how Olla tells that it was translated
        (record,) = asked(fake, CHAT)
        assert record.body["stream_options"] == {"include_usage": True}
        assert not record.headers.keys() & {"anthropic-version"}
        assert record.headers["accept-encoding"] == "identity"
        (entry,) = it.fleet.book.recent
        assert (entry.outcome, entry.prompt_tokens, entry.completion_tokens) == ("succeeded", 1, 5)
        assert entry.estimated is False
        (route,) = it.fleet.book.by_route().values()
        assert (route.requests, route.translations, route.streams) == (1, 1, 1)


async def test_a_whole_answer() -> None:
    async with chats("fx-ok:n-5") as (it, fake):
        for _ in range(2):
            answer = await ask(it, "fx-ok:n-5", stream=False)
            assert answer.json["content"] == [{"type": "text", "text": text_of(5)}]
            assert (answer.json["stop_reason"], answer.json["usage"]["output_tokens"]) == ("end_turn", 5)
            assert answer.headers["content-length"] == str(len(answer.body))
        assert len(asked(fake, "/v1/messages")) == 1, "what the host does not know it is asked once"
        assert [entry.completion_tokens for entry in it.fleet.book.recent] == [5, 5]


async def test_prompt_tokens_of_a_cache_are_counted_too() -> None:
    usage = {"prompt_tokens": 37, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 36}}
    script = scripted(UNKNOWN, (CHAT, completion(usage=usage)), (CHAT, completion(usage=usage)))
    async with Peer(script) as peer, front(urls={"p": peer.url}) as it:
        for stream in (False, True):
            assert b'"cache_read_input_tokens":36' in (await ask(it, "m", stream=stream)).body
            assert it.fleet.book.recent[0].prompt_tokens == 37


async def test_tools_and_thoughts() -> None:
    async with chats("fx-tools", "fx-think:think-2_n-3") as (it, _):
        tool = {"name": "get_weather", "input_schema": {"type": "object"}}
        message = (await ask(it, "fx-tools", stream=False, tools=[tool])).json
        assert message["stop_reason"] == "tool_use"
        called = [block for block in message["content"] if block["type"] == "tool_use"]
        assert called
        assert all(isinstance(block["input"], dict) and block["id"] for block in called)
        kinds = {event["content_block"]["type"] for event in events(await ask(it, "fx-think:think-2_n-3"))
                 if event["type"] == "content_block_start"}  # fmt: skip
        assert kinds == {"thinking", "text"}


async def test_a_host_that_knows_messages_gets_them_as_they_came() -> None:
    native = ok(b'{"type":"message","usage":{"input_tokens":3,"output_tokens":2}}', "Content-Type: application/json")
    async with Peer(scripted(*[("/v1/messages", native)] * 2)) as peer, front(urls={"p": peer.url}) as it:
        for _ in range(2):
            answer = await ask(it, "m", stream=False)
            assert answer.headers["x-olla-mode"] == "passthrough"
            assert b'"anthropic-version' not in answer.body
        assert it.fleet.endpoint("p").takes == {"/v1/messages": True}
        assert [entry.completion_tokens for entry in it.fleet.book.recent] == [2, 2]
        (route,) = it.fleet.book.by_route().values()
        assert route.translations == 0


async def test_a_model_that_is_not_there_says_nothing_of_the_route() -> None:
    words = {"object": "error", "message": "The model `m` does not exist."}
    async with Peer(scripted(("/v1/messages", refused(404, words)))) as peer, front(urls={"p": peer.url}) as it:
        answer = await ask(it, "m")
        assert (answer.status, answer.json) == (404, words)
        assert it.fleet.endpoint("p").takes == {}


async def test_a_model_that_is_gone_from_one_host_is_asked_of_another() -> None:
    words = {"error": {"message": "model 'm' not found", "code": 404}}
    native = ok(b'{"type":"message"}', "Content-Type: application/json")
    async with (
        Peer(scripted(("/v1/messages", refused(404, words)))) as first,
        Peer(scripted(("/v1/messages", native))) as second,
        front(urls={"first": first.url, "second": second.url}, strategy="round-robin") as it,
    ):
        answer = await ask(it, "m", stream=False)
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "second")
        assert answer.json == {"type": "message"}


async def test_an_ollama_of_old_is_asked_in_the_other_words_too() -> None:
    async with front("a", models=["fx-ok:n-3", "gone"]) as it:
        assert said(events(await ask(it, "fx-ok:n-3"))) == text_of(3)
        it.fleet.endpoint("a").takes.clear()
        it["a"].state(models=["fx-ok:n-3"])
        assert (await ask(it, "gone")).status == 404


async def test_what_was_found_is_forgotten_when_the_host_comes_back() -> None:
    async with chats("fx-ok:n-3") as (it, fake):
        await ask(it, "fx-ok:n-3")
        endpoint = it.fleet.endpoint("p")
        assert endpoint.takes == {"/v1/messages": False}
        fake.state(accept="refuse")
        for _ in range(endpoint.spec.down_after):
            await endpoint.probe()
        fake.state(accept="normal")
        await endpoint.probe()
        assert endpoint.takes == {}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (429, "rate_limit_error"), (500, "api_error"),
     (503, "overloaded_error")],
)  # fmt: skip
async def test_refusals_are_in_anthropics_form(status: int, kind: str) -> None:
    words = {"error": {"message": "Not now, please", "type": "x"}}
    script = scripted(UNKNOWN, (CHAT, refused(status, words)))
    async with Peer(script) as peer, front(urls={"p": peer.url}) as it:
        answer = await ask(it, "m")
        assert answer.status == status
        error = answer.json
        assert (error["type"], error["error"]) == ("error", {"type": kind, "message": "Not now, please"})
        assert error["request_id"] == answer.headers["x-olla-request-id"] == answer.headers["request-id"] == "r-1"
        assert answer.headers["content-length"] == str(len(answer.body))
        assert it.fleet.book.recent[0].outcome == "failed"


async def test_a_key_that_the_host_does_not_know_is_left_out_from_then_on() -> None:
    words = {"error": {"message": "Unrecognized request argument supplied: stream_options"}}
    stream = ok(b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
                "Content-Type: text/event-stream")  # fmt: skip
    script = scripted(UNKNOWN, (CHAT, refused(400, words)), (CHAT, stream), (CHAT, stream))
    async with Peer(script) as peer, front(urls={"p": peer.url}) as it:
        for _ in range(2):
            assert said(events(await ask(it, "m"))) == "a"
        sent = [json.loads(request.body) for request in peer.requests if request.line.split(" ")[1] == CHAT]
        assert ["stream_options" in body for body in sent] == [True, False, False]
        entry = it.fleet.book.recent[0]
        assert (entry.completion_tokens, entry.estimated) == (1, True)


async def test_a_body_that_has_no_such_form_is_refused_before_the_host_hears_of_it() -> None:
    async with chats("fx-ok:n-3") as (it, fake):
        await ask(it, "fx-ok:n-3")
        fake.log.clear()
        answer = await ask(it, "fx-ok:n-3", max_tokens=0)
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
        assert fake.log == []


BAD = ("fx-status:c-503", "fx-status:c-502", "fx-eof0", "fx-rst0", "fx-empty200", "fx-html", "fx-redirect")


@pytest.mark.parametrize(
    ("model", "stream"), [*((model, stream) for model in BAD for stream in (True, False)), ("fx-hang", True)]
)
async def test_a_peer_answers_instead(model: str, stream: bool) -> None:
    async with (
        FakeOllama(models=["tiny"]) as bad,
        FakeOllama(models=["tiny"]) as good,
        front(urls={"bad": bad.url, "good": good.url}, strategy="round-robin", specs=IMPATIENT) as it,
    ):
        bad.state(routes={CHAT: model})
        answer = await ask(it, "tiny", stream=stream)
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "good")
        assert answer.headers["x-olla-tried"] == "bad"
        assert len(asked(good, CHAT)) == 1


@pytest.mark.parametrize("model", ["fx-eof:at-2", "fx-rst:at-2", "fx-stall:at-2", "fx-badjson:at-2", "fx-errline:at-2",
                                   "fx-nodone:n-2", "fx-cutline:at-2"])  # fmt: skip
async def test_a_stream_that_breaks_says_so_in_anthropics_words(model: str) -> None:
    async with chats(model, limits=SHORT) as (it, _):
        answer = await ask(it, model)
        told = events(answer)
        assert told[-1]["type"] == "error"
        assert "message_stop" not in [event["type"] for event in told]
        assert it.fleet.book.recent[0].outcome == "failed"


@pytest.mark.parametrize("model", ["fx-eof:at-2", "fx-stall:at-2", "fx-errline:at-0", "fx-badjson:at-0"])
async def test_a_whole_answer_that_breaks_is_an_error(model: str) -> None:
    async with chats(model, limits=replace(SHORT, total_s=0.5)) as (it, _):
        answer = await ask(it, model, stream=False)
        assert answer.status >= 500
        assert answer.json["type"] == "error"


async def test_a_host_that_streams_nothing_is_understood_too() -> None:
    async with Peer(scripted(UNKNOWN, (CHAT, completion()))) as peer, front(urls={"p": peer.url}) as it:
        assert said(events(await ask(it, "m"))) == "Hi"


async def test_what_is_packed_or_endless_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = completion().replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type")
    async with Peer(scripted(UNKNOWN, (CHAT, packed))) as peer, front(urls={"p": peer.url}) as it:
        answer = await ask(it, "m", stream=False)
        assert (answer.status, "packed" in answer.json["error"]["message"]) == (502, True)
    monkeypatch.setattr("arena.proxy.messages.WHOLE_BYTES", 100)
    async with Peer(scripted(UNKNOWN, (CHAT, completion("x" * 200)))) as peer, front(urls={"p": peer.url}) as it:
        assert (await ask(it, "m", stream=False)).status == 502
