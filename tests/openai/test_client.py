"""OpenAIClient: what it sends, what it makes of the events, the counters and the lists."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from arena.errors import ArenaError, BadRequest, ModelNotFound
from arena.openai import OpenAIClient, Unsupported
from arena.openai.body import chat_body, keys_of, told
from arena.types import ChatMessage, ChatRequest, LoadedModel, Metrics, ModelInstance, Options
from tests.asking import HELLO, ask
from tests.openai.conftest import DONE, chunk, client_of, event, in_turn, refused, said
from tests.peer import Peer, answers, chunked, ok

pytestmark = pytest.mark.anyio

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
GOOD = chunked(chunk("Hi"), chunk(reason="stop"), DONE)


def body_of(instance: ModelInstance, *messages: ChatMessage, owner: str = "llamacpp") -> dict[str, Any]:
    return chat_body(ChatRequest(instance, messages or HELLO), keys_of(owner))


def listing(*models: dict[str, Any]) -> bytes:
    """The answer to GET /v1/models."""
    return ok(json.dumps({"object": "list", "data": models or None}).encode())


class TestBody:
    def test_options_have_their_other_names(self) -> None:
        options = Options(0.5, 0.9, 20, 1.1, 64, 7, 2048, ("END",))
        assert body_of(ModelInstance("a", "m", options)) == {
            "model": "m",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 7,
            "stop": ("END",),
            "top_k": 20,
            "repeat_penalty": 1.1,
            "max_tokens": 64,
        }

    @pytest.mark.parametrize(
        ("owner", "keys"),
        [
            ("vllm", {"top_k", "repetition_penalty", "chat_template_kwargs"}),
            ("organization_owner", {"top_k", "repeat_penalty"}),
            ("somebody", set()),
        ],
    )
    def test_each_server_gets_what_it_understands(self, owner: str, keys: set[str]) -> None:
        instance = ModelInstance("a", "m", Options(top_k=20, repeat_penalty=1.1), think=True)
        plain = {"model", "messages", "stream", "stream_options"}
        assert body_of(instance, owner=owner).keys() - plain == keys
        kept = told(instance, keys_of(owner))
        assert (kept.options.top_k, kept.options.repeat_penalty) == ((20, 1.1) if keys else (None, None))
        assert kept.think == (True if "chat_template_kwargs" in keys else None)

    def test_nothing_is_sent_that_is_not_set(self) -> None:
        assert body_of(ModelInstance("a", "m")).keys() == {"model", "messages", "stream", "stream_options"}

    @pytest.mark.parametrize(
        ("think", "sent"),
        [
            (True, {"chat_template_kwargs": {"enable_thinking": True}}),
            (False, {"chat_template_kwargs": {"enable_thinking": False}}),
            ("low", {"reasoning_effort": "low"}),
            ("max", {"reasoning_effort": "high"}),
        ],
    )
    def test_thinking(self, think: bool | str, sent: dict[str, Any]) -> None:
        assert sent.items() <= body_of(ModelInstance("a", "m", think=think)).items()

    def test_the_system_prompt_comes_first_unless_the_history_has_one(self) -> None:
        instance = ModelInstance("a", "m", system="Be brief.")
        assert body_of(instance)["messages"][0] == {"role": "system", "content": "Be brief."}
        own = ChatMessage("system", "Be long.")
        assert body_of(instance, own, *HELLO)["messages"][0]["content"] == "Be long."

    def test_images_are_parts(self) -> None:
        (message,) = body_of(ModelInstance("a", "m"), ChatMessage("user", "See", images=(PNG,)))["messages"]
        assert message["content"] == [
            {"type": "text", "text": "See"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ]
        with pytest.raises(BadRequest, match="not base64"):
            body_of(ModelInstance("a", "m"), ChatMessage("user", "See", images=("x",)))

    def test_tool_calls_carry_their_arguments_as_text(self) -> None:
        natives = [{"function": {"name": "add", "arguments": {"a": 1}}}, {"id": "x", "function": {"arguments": "{}"}}]
        message = ChatMessage("assistant", "", extra={"tool_calls": natives})
        (sent,) = body_of(ModelInstance("a", "m"), message)["messages"]
        assert sent["tool_calls"] == [
            {"id": "call_0", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
            natives[1],
        ]

    async def test_half_a_character_is_refused_before_anything_is_sent(self) -> None:
        async with Peer(answers(GOOD)) as peer, client_of(peer.url) as client:
            (reply,) = await ask(client, "\ud800")
            assert reply.error is not None
            assert reply.error.code == "bad_request"
            assert peer.requests == []


class TestRequest:
    @pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
    async def test_address_and_credentials(self, path: str) -> None:
        async with Peer(answers(GOOD)) as peer:
            async with client_of(peer.url + path, key="k", headers=[("X-Team", "blue")]) as client:
                await ask(client, "m")
            head = peer.requests[0].head.lower()
            assert peer.requests[0].line == "POST /v1/chat/completions HTTP/1.1"
            assert b"\r\nauthorization: bearer k\r\n" in head
            assert b"\r\nx-team: blue\r\n" in head

    @pytest.mark.parametrize("status", [400, 422])
    async def test_a_strict_server_is_asked_again_without_what_it_does_not_know(self, status: int) -> None:
        errors = [
            {"error": {"message": "Unrecognized request argument supplied: stream_options"}},
            {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}
                ]
            },
        ]
        models = listing({"id": "m", "owned_by": "vllm"})
        script = in_turn(models, *(refused(status, error) for error in errors), GOOD, GOOD)
        instance = ModelInstance("a", "m", Options(top_k=5, num_ctx=512, seed=1, num_predict=-1))
        async with Peer(script) as peer, client_of(peer.url) as client:
            assert client.told(instance).options == Options(seed=1)
            await client.tags()
            assert client.told(instance).options == Options(top_k=5, seed=1)
            for _ in range(2):
                (reply,) = await ask(client, instance)
                assert (reply.text, reply.error) == ("Hi", None)
            sent = [json.loads(request.body).keys() for request in peer.requests[1:]]
            assert ["stream_options" in keys for keys in sent] == [True, False, False, False]
            assert ["top_k" in keys for keys in sent] == [True, True, False, False]
            assert client.told(instance).options == Options(seed=1)

    async def test_a_value_it_does_not_like_is_the_users_business(self) -> None:
        error = {"error": {"message": "top_k must be -1 or at least 1, got 0"}}
        script = in_turn(listing({"id": "m", "owned_by": "vllm"}), refused(400, error))
        async with Peer(script) as peer, client_of(peer.url) as client:
            await client.tags()
            (reply,) = await ask(client, ModelInstance("a", "m", Options(top_k=0)))
            assert reply.error is not None
            assert (reply.error.code, reply.error.message) == (
                "upstream_error",
                "top_k must be -1 or at least 1, got 0",
            )
            assert len(peer.requests) == 2


USAGE = {"prompt_tokens": 9, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 4}}
TIMINGS = {"prompt_n": 5, "cache_n": 4, "prompt_ms": 100, "predicted_n": 40, "predicted_ms": 2000.0}


class TestAnswer:
    @pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
    async def test_thinking_is_kept_apart(self, field: str) -> None:
        thought = event({"choices": [{"delta": {"role": "assistant", field: "Hm", "content": None}}]})
        for end in (chunk("Hi"), b": careful\n\n" + chunk("Hi")):
            async with said(answers(chunked(thought + end, chunk(reason="stop"), DONE))) as client:
                (reply,) = await ask(client, "m")
                assert (reply.text, reply.thinking, reply.error) == ("Hi", "Hm", None)

    async def test_metrics_that_nobody_told_are_none(self) -> None:
        async with said(answers(GOOD)) as client:
            (reply,) = await ask(client, "m")
            metrics = reply.metrics
            assert metrics is not None
            ours = Metrics(ttft_s=metrics.ttft_s, first_visible_s=metrics.first_visible_s, total_s=metrics.total_s)
            assert metrics == Metrics(**{**as_dict(ours), "done_reason": "stop"})

    async def test_usage_comes_after_the_finish(self) -> None:
        stream = chunked(chunk("Hi"), chunk(reason="length"), event({"choices": [], "usage": USAGE}), DONE)
        async with said(answers(stream)) as client:
            (reply,) = await ask(client, "m")
            metrics = reply.metrics
            assert metrics is not None
            assert (metrics.tokens, metrics.prompt_tokens, metrics.prompt_cached) == (40, 9, True)
            assert (metrics.duration_s, metrics.tokens_per_sec, metrics.rate_reliable) == (None, None, False)
            assert (metrics.done_reason, metrics.cut_by_limit) == ("length", True)

    async def test_timings_of_llama_cpp(self) -> None:
        stream = chunked(chunk("Hi"), chunk(reason="stop", timings=TIMINGS), DONE)
        async with said(answers(stream)) as client:
            (reply,) = await ask(client, "m")
            metrics = reply.metrics
            assert metrics is not None
            assert (metrics.tokens, metrics.duration_s, metrics.tokens_per_sec) == (40, 2.0, 20.0)
            assert metrics.rate_reliable
            assert (metrics.prompt_tokens, metrics.prompt_s, metrics.prompt_cached) == (9, 0.1, True)
            assert (metrics.load_s, metrics.queue_s, metrics.server_total_s) == (None, None, None)

    async def test_absurd_figures_are_unknown(self) -> None:
        usage = {"completion_tokens": -1, "prompt_tokens": True, "prompt_tokens_details": 7}
        timings = {"predicted_ms": "fast", "prompt_ms": -3}
        stream = chunked(chunk("Hi"), chunk(reason="stop", usage=usage, timings=timings), DONE)
        async with said(answers(stream)) as client:
            (reply,) = await ask(client, "m")
            assert reply.metrics is not None
            assert (reply.metrics.tokens, reply.metrics.prompt_tokens, reply.metrics.prompt_s) == (None, None, None)

    async def test_a_server_that_does_not_stream(self) -> None:
        message = {"role": "assistant", "content": "Hi", "reasoning_content": "Hm"}
        whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
        async with said(answers(ok(json.dumps(whole).encode()))) as client:
            (reply,) = await ask(client, "m")
            assert (reply.text, reply.thinking, reply.error) == ("Hi", "Hm", None)
            assert reply.metrics is not None
            assert reply.metrics.tokens == 40

    async def test_only_the_first_of_several_choices_is_the_answer(self) -> None:
        both = event({"choices": [{"delta": {"content": "Hi"}}, {"index": 1, "delta": {"content": "Ho"}}]})
        async with said(answers(chunked(both, chunk(reason="stop"), DONE))) as client:
            (reply,) = await ask(client, "m")
            assert (reply.text, reply.error) == ("Hi", None)

    async def test_a_finish_is_enough(self) -> None:
        for end in (chunked(chunk("Hi"), chunk(reason="stop")), chunked(chunk("Hi"), chunk(reason="stop"), end=False)):

            async def script(guest: Any, end: bytes = end) -> None:
                await guest.request()
                await guest.say(end)

            async with said(script) as client:
                (reply,) = await ask(client, "m")
                assert (reply.text, reply.error) == ("Hi", None)
                assert reply.metrics is not None


def as_dict(metrics: Metrics) -> dict[str, Any]:
    return {field: getattr(metrics, field) for field in Metrics.__struct_fields__}


# what a server says under status 200: (code, words of the message)
BAD: dict[bytes, tuple[str, str]] = {
    chunk("Hi"): ("upstream_eof", "without saying that it is complete"),
    chunk("Hi") + DONE: ("upstream_eof", "without saying why it ended"),
    chunk("Hi") + b'data: {"choi': ("upstream_truncated", "in the middle of an event"),
    chunk("Hi") + event({"error": {"message": "CUDA out of memory", "code": 500}}): ("upstream_error", "CUDA out of"),
    chunk("Hi") + event({"error": "no"}): ("upstream_error", "no"),
    chunk("Hi") + event({"error": {}}): ("upstream_error", "failed without saying why"),
    chunk("Hi") + event({"object": "error", "message": "Internal", "code": 500}): ("upstream_error", "Internal"),
    chunk("Hi") + chunk(reason="error"): ("upstream_error", "failed without saying why"),
    chunk("Hi") + b"data: nonsense\n\n": ("malformed", "not the JSON of OpenAI's API"),
    chunk("Hi") + b"data: [1]\n\n": ("malformed", "not the JSON of OpenAI's API"),
    chunk("Hi") + b"data: {}\n\n": ("malformed", "does not know"),
    chunk("Hi") + event({"choices": [1]}): ("malformed", "does not know"),
    chunk("Hi") + event({"choices": [{"delta": 1}]}): ("malformed", "does not know"),
    chunk("Hi") + event({"choices": [{"delta": {"content": 1}}]}): ("malformed", "does not know"),
    chunk("Hi") + event({"choices": [{"finish_reason": 1}]}): ("malformed", "does not know"),
}


@pytest.mark.parametrize("stream", BAD, ids=range(len(BAD)))
async def test_a_bad_end_keeps_the_text(stream: bytes) -> None:
    code, words = BAD[stream]
    async with said(answers(chunked(stream))) as client:
        (reply,) = await ask(client, "m")
        assert reply.error is not None
        assert (reply.error.code, words in reply.error.message) == (code, True), reply.error
        assert reply.text == "Hi"


async def test_an_error_without_a_stream() -> None:
    async with said(answers(ok(b'{"error":{"message":"Model is not loaded"}}'))) as client:
        (reply,) = await ask(client, "m")
        assert reply.error is not None
        assert reply.error.message == "Model is not loaded"


# status, body: (code, words of the message)
REFUSALS: list[tuple[int, object, str, str]] = [
    (404, {"error": {"message": "The model `m` does not exist.", "code": "model_not_found"}}, "model_not_found", "`m`"),
    (404, {"object": "error", "message": "The model `m` does not exist."}, "model_not_found", "`m`"),
    (404, {"detail": "Not Found"}, "not_openai", "is the path in its URL right?"),
    (400, {"error": {"message": "too long", "type": "exceed_context_size_error"}}, "upstream_error", "too long"),
    (401, {"error": {"message": "Invalid API key"}}, "upstream_refused", "refuses our credentials"),
    (429, {"error": {"message": "slow"}}, "rate_limited", "limits requests"),
    (503, {"error": {"message": "Loading model", "code": 503}}, "busy", "server busy"),
    (500, {}, "upstream_error", "answered with status 500"),
    (302, {}, "upstream_broken", "redirects elsewhere"),
]


@pytest.mark.parametrize(("status", "body", "code", "words"), REFUSALS)
async def test_refusals(status: int, body: object, code: str, words: str) -> None:
    async with said(answers(refused(status, body))) as client:
        (reply,) = await ask(client, "m")
        assert reply.error is not None
        assert (reply.error.code, words in reply.error.message) == (code, True), reply.error
        with pytest.raises(ArenaError) as caught:
            await client.tags()
        assert caught.value.code == code


class TestModels:
    async def test_lists_of_several_servers(self) -> None:
        models = listing(
            {"id": "plain", "object": "model", "created": 1, "owned_by": "me"},
            {"id": "vllm", "owned_by": "vllm", "max_model_len": 32768, "root": "x"},
            {"id": "llama", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192, "n_ctx": 4096, "size": 99}},
            {"id": "studio", "max_context_length": 2048},
            {"id": "asleep", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192}},
        )
        async with said(in_turn(listing(), models)) as client:
            assert await client.tags() == ()
            assert await client.ps() == ()
            found = await client.tags()
            assert [(info.name, info.context_length, info.size_bytes) for info in found] == [
                ("plain", None, 0),
                ("vllm", 32768, 0),
                ("llama", 4096, 99),
                ("studio", 2048, 0),
                ("asleep", 8192, 0),
            ]
            assert {info.endpoints for info in found} == {("there",)}
            assert {info.capabilities for info in found} == {None}
            assert await client.ps() == (
                LoadedModel("vllm", "there", context_length=32768),
                LoadedModel("llama", "there", 99, context_length=4096),
            )

    @pytest.mark.parametrize("body", [b"[]", b'{"data":[{}]}', b'{"data":7}', b"{}", b"<html>", b'{"error":"x"}'])
    async def test_other_programs_are_recognised(self, body: bytes) -> None:
        async with said(answers(ok(body))) as client:
            with pytest.raises(ArenaError):
                await client.tags()

    async def test_show_is_what_the_list_tells(self) -> None:
        body = ok(b'{"data":[{"id":"a","context_length":7}]}')
        async with said(answers(body)) as client:
            assert (await client.show("a")).context_length == 7
            with pytest.raises(ModelNotFound, match="does not serve a model called 'b'"):
                await client.show("b")

    async def test_version_where_it_is_told(self) -> None:
        for owner, answer, version in [
            ("vllm", ok(b'{"version":"0.11.0"}'), "0.11.0"),
            ("llamacpp", ok(b'{"build_info":"b7000"}'), "b7000"),
            ("llamacpp", ok(b"{}"), ""),
        ]:
            async with said(in_turn(listing({"id": "m", "owned_by": owner}), answer)) as client:
                assert await client.version() == ""
                await client.tags()
                assert await client.version() == version

    async def test_what_such_a_server_cannot(self) -> None:
        client = OpenAIClient("http://127.0.0.1:9", name="there")
        assert await client.ps() == ()

        async def pull() -> AsyncIterator[object]:
            async for progress in client.pull("m"):
                yield progress

        for work in (client.load("m"), client.unload("m"), client.delete("m"), anext(aiter(pull()))):
            with pytest.raises(Unsupported, match="it cannot be told to") as caught:
                await work
            assert (caught.value.status, caught.value.code) == (501, "not_supported")
