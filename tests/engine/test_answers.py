"""What becomes of llama.cpp's answers on the wire: thoughts, tools, errors, crashes, clients that leave."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine.conftest import config_for, serving
from tests.engine.scripted import END, Scripted, delta

pytestmark = pytest.mark.anyio

CALL = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "able:1b", "messages": [{"role": "user", "content": "x"}], **more}


async def lines(client: httpx.AsyncClient, **more: Any) -> list[dict[str, Any]]:
    response = await client.post("/api/chat", json=ask(**more))
    return [json.loads(line) for line in response.content.split(b"\n") if line]


async def events(client: httpx.AsyncClient, **more: Any) -> list[Any]:
    response = await client.post("/v1/chat/completions", json=ask(stream=True, **more))
    assert response.headers["content-type"] == "text/event-stream"
    data = [part.removeprefix("data: ") for part in response.text.split("\n\n") if part]
    return [part if part == "[DONE]" else json.loads(part) for part in data]


class TestNative:
    async def test_thoughts_come_apart(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(reasoning_content="hm"), delta(content="yes"), delta("stop"), END]
        thought, answer, last = await lines(able, think=True)
        assert thought["message"] == {"role": "assistant", "content": "", "thinking": "hm"}
        assert answer["message"] == {"role": "assistant", "content": "yes"}
        assert (last["done_reason"], last["eval_count"], last["prompt_eval_cached_count"]) == ("stop", 20, 0)
        assert script.requests[0]["chat_template_kwargs"] == {"enable_thinking": True}

    async def test_tool_call_comes_whole(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(tool_calls=[CALL]), delta("tool_calls"), END]
        call, last = await lines(able, tools=TOOLS)
        assert call["message"]["tool_calls"] == [
            {"function": {"name": "add", "arguments": {"a": 1}, "index": 0}, "id": "c1"}
        ]
        assert last["done_reason"] == "stop"
        whole = (await lines(able, tools=TOOLS, stream=False))[0]
        assert whole["message"]["tool_calls"] == call["message"]["tool_calls"]

    async def test_authors_system_and_parameters_are_used_unless_the_request_has_its_own(
        self, able: httpx.AsyncClient, script: Scripted
    ) -> None:
        await lines(able)
        await lines(able, messages=[{"role": "system", "content": "Mine."}], options={"top_k": 9})
        first, second = script.requests
        assert (first["messages"][0]["content"], first["top_k"]) == ("Be kind.", 3)
        assert (len(second["messages"]), second["top_k"]) == (1, 9)

    async def test_pictures_are_sent_on(self, able: httpx.AsyncClient, script: Scripted) -> None:
        await lines(able, messages=[{"role": "user", "content": "x", "images": ["AAAA"]}])
        assert script.requests[0]["messages"][1]["content"][1]["type"] == "image_url"

    async def test_of_a_conversation_too_long_the_oldest_goes_and_the_question_stays(
        self, able: httpx.AsyncClient, script: Scripted
    ) -> None:
        """As much as is too much, at once; where even the question is too long, that is said."""
        full = {"type": "exceed_context_size_error", "n_prompt_tokens": 200, "n_ctx": 150, "code": 400, "message": "no"}
        script.status, script.pieces = 400, [json.dumps({"error": full}).encode()]
        talk = [
            {"role": role, "content": word * 100} for role, word in zip(["user", "assistant"] * 2, "abcd", strict=True)
        ]
        response = await able.post("/api/chat", json=ask(messages=talk))
        assert (response.status_code, "exceeds the context length" in response.json()["error"]) == (400, True)
        sent = [[message["content"][0] for message in request["messages"]] for request in script.requests]
        assert sent == [["B", "a", "b", "c", "d"], ["B", "c", "d"], ["B", "d"]]

    async def test_error_before_the_first_token_has_its_status(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.status, script.pieces = 400, [b'{"error": {"code": 400, "message": "bad schema"}}']
        response = await able.post("/api/chat", json=ask())
        assert (response.status_code, response.json()) == (400, {"error": "bad schema"})
        script.status, script.pieces = 500, [b'{"error": {"code": 500, "message": "no memory"}}']
        response = await able.post("/api/chat", json=ask())
        assert (response.status_code, response.json()) == (500, {"error": "no memory"})

    async def test_error_on_the_way_is_the_last_line(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(content="a"), {"error": {"code": 500, "message": "no memory"}}]
        first, last = await lines(able)
        assert (first["message"]["content"], last) == ("a", {"error": "no memory"})

    @pytest.mark.parametrize("ending", [b"cut", None])
    async def test_crash_is_told_in_ollamas_words(
        self, able: httpx.AsyncClient, script: Scripted, ending: bytes | None
    ) -> None:
        script.pieces = [delta(content="a"), *([ending] if ending else [])]
        script.dead.set()
        *_, last = await lines(able)
        assert last == {"error": "an error was encountered while running the model: unexpected EOF"}

    async def test_runner_that_stays_after_hanging_up(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(content="a"), b"cut"]
        *_, last = await lines(able)
        assert "unexpected EOF" in last["error"]

    async def test_runner_that_accepts_nothing(self, able: httpx.AsyncClient, script: Scripted) -> None:
        await lines(able)
        script.port = 1
        script.dead.set()
        response = await able.post("/api/chat", json=ask(stream=False))
        assert response.status_code == 500
        embed = await able.post("/api/embed", json={"model": "able:1b", "input": "x"})
        assert "an error was encountered" in embed.json()["error"]

    async def test_runner_that_speaks_no_http(self, able: httpx.AsyncClient, script: Scripted) -> None:
        async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"nonsense\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
            script.port = server.sockets[0].getsockname()[1]
            script.dead.set()
            response = await able.post("/api/chat", json=ask())
        assert response.status_code == 500

    async def test_client_that_leaves_is_hung_up_on_at_once(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(content="a"), None, END]
        async with able.stream("POST", "/api/chat", json=ask()) as response:
            assert b'"a"' in await anext(response.aiter_raw())
        await asyncio.wait_for(script.hung_up.wait(), 30)

    async def test_client_that_leaves_before_the_first_token(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [None, END]
        asking = asyncio.create_task(able.post("/api/chat", json=ask(stream=False)))
        await asyncio.wait_for(script.asked.wait(), 30)
        asking.cancel()
        await asyncio.wait_for(script.hung_up.wait(), 30)

    async def test_vectors_only_model_does_not_chat(self, able: httpx.AsyncClient) -> None:
        response = await able.post("/api/chat", json=ask(model="vectors"))
        assert (response.status_code, response.json()) == (400, {"error": '"vectors" does not support chat'})

    async def test_embedding_error(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.status, script.pieces = 501, [b'{"error": {"code": 501, "message": "no embeddings"}}']
        response = await able.post("/api/embed", json={"model": "vectors", "input": "x"})
        assert response.json() == {"error": "no embeddings"}

    async def test_embedding_nothing(self, able: httpx.AsyncClient, script: Scripted) -> None:
        response = await able.post("/api/embed", json={"model": "vectors", "input": []})
        assert response.json() == {"model": "vectors", "embeddings": []}
        script.pieces = [b'{"data": [{"embedding": [0.0, 0.0]}]}']
        response = await able.post("/api/embed", json={"model": "vectors", "input": "x", "keep_alive": "1m"})
        assert response.json()["embeddings"] == [[0.0, 0.0]]


class TestOpenAI:
    async def test_stream_with_usage(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(reasoning_content="hm"), delta(content="yes"), delta("length"), END]
        first, second, finish, usage, done = await events(able, stream_options={"include_usage": True})
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "reasoning": "hm"}
        assert second["choices"][0]["delta"] == {"content": "yes"}
        assert finish["choices"][0]["finish_reason"] == "length"
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == 20
        assert done == "[DONE]"

    async def test_no_usage_unless_asked(self, able: httpx.AsyncClient, script: Scripted) -> None:
        got = await events(able)
        assert all("usage" not in event for event in got[:-1])

    async def test_own_defaults_and_names(self, able: httpx.AsyncClient, script: Scripted) -> None:
        await events(able, max_tokens=5, stop="x", n=3, num_ctx=1, options={"top_k": 1})
        sent = script.requests[0]
        assert (sent["temperature"], sent["top_p"], sent["n_predict"], sent["stop"]) == (1.0, 1.0, 5, ["x"])
        assert sent["top_k"] == 3  # the model author's

    @pytest.mark.parametrize(
        ("limits", "predict"),
        [
            ({"max_completion_tokens": 4}, 4),
            ({"max_completion_tokens": 4, "max_tokens": 9}, 4),
            ({"max_completion_tokens": None, "max_tokens": 9}, 9),
        ],
    )
    async def test_the_newer_name_of_the_limit_wins(
        self, able: httpx.AsyncClient, script: Scripted, limits: dict[str, int | None], predict: int
    ) -> None:
        await events(able, **limits)
        assert script.requests[0]["n_predict"] == predict

    async def test_tool_calls(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(tool_calls=[CALL]), delta("tool_calls"), END]
        call, finish, _ = await events(able, tools=TOOLS)
        assert call["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
        assert finish["choices"][0]["finish_reason"] == "tool_calls"
        history = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ]
        await events(able, messages=history)
        assert script.requests[1]["messages"][2]["tool_calls"][0]["id"] == "c1"

    async def test_whole_answer_with_logprobs(self, able: httpx.AsyncClient, script: Scripted) -> None:
        chunk = delta(content="a")
        chunk["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -1, "bytes": [97]}]}
        script.pieces = [chunk, delta("stop"), END]
        body = ask(logprobs=True, response_format={"type": "json_object"}, reasoning_effort="none")
        whole = (await able.post("/v1/chat/completions", json=body)).json()
        assert whole["object"] == "chat.completion"
        assert whole["choices"][0]["message"] == {"role": "assistant", "content": "a"}
        assert whole["choices"][0]["logprobs"]["content"][0]["token"] == "a"
        assert whole["usage"]["total_tokens"] == 24
        assert script.requests[0]["response_format"] == {"type": "json_object"}
        assert script.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}

    async def test_parts_and_pictures(self, able: httpx.AsyncClient, script: Scripted) -> None:
        url = "data:image/png;base64,AAAA"
        parts = [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "image_url", "image_url": url},
        ]
        form = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
        await events(able, messages=[{"role": "user", "content": parts}], response_format=form)
        assert [part["type"] for part in script.requests[0]["messages"][1]["content"]] == ["text"] + ["image_url"] * 2

    async def test_completions(self, able: httpx.AsyncClient, script: Scripted) -> None:
        whole = (await able.post("/v1/completions", json={"model": "able:1b", "prompt": "x"})).json()
        assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", "hi")
        streamed = await able.post("/v1/completions", json={"model": "able:1b", "prompt": "x", "stream": True})
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert '"text":"hi"' in streamed.text

    async def test_error_on_the_way_has_no_done(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(content="a"), {"error": {"code": 500, "message": "no memory"}}]
        got = await events(able)
        assert got[-1]["error"] == {"message": "no memory", "type": "api_error", "param": None, "code": None}

    @pytest.mark.parametrize(
        ("change", "status", "kind"),
        [
            ({"messages": []}, 400, "invalid_request_error"),
            ({"model": ""}, 400, "invalid_request_error"),
            ({"model": "no"}, 404, "not_found_error"),
            ({"messages": [{"content": "x"}]}, 400, "invalid_request_error"),
            ({"messages": [{"role": "user", "content": 5}]}, 400, "invalid_request_error"),
            ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, "invalid_request_error"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x/y.png"}]}]},
                400,
                "invalid_request_error",
            ),
            ({"response_format": {"type": "yaml"}}, 400, "invalid_request_error"),
            ({"reasoning_effort": "hard"}, 400, "invalid_request_error"),
        ],
    )
    async def test_bad_request(self, able: httpx.AsyncClient, change: Any, status: int, kind: str) -> None:
        response = await able.post("/v1/chat/completions", json=ask(**change))
        assert (response.status_code, response.json()["error"]["type"]) == (status, kind)

    async def test_embeddings(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [b'{"data": [{"embedding": [3.0, 4.0]}], "usage": {"prompt_tokens": 2}}']
        body: dict[str, Any] = {"model": "vectors", "input": "x"}
        got = (await able.post("/v1/embeddings", json=body)).json()
        assert got["data"] == [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]
        assert got["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        packed = (await able.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()
        assert packed["data"][0]["embedding"] == "mpkZP83MTD8="
        for bad in ({**body, "encoding_format": "hex"}, {**body, "input": ""}):
            assert (await able.post("/v1/embeddings", json=bad)).status_code == 400


class TestGuard:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 200),
            ({"Host": "localhost:1"}, 200),
            ({"Host": "127.9.9.9"}, 200),
            ({"Host": "[::1]:80"}, 200),
            ({"Host": "arena.localhost"}, 200),
            ({"Host": "evil.example"}, 403),
            ({"Host": "127.0.0.1.evil.example"}, 403),
            ({"Host": "[::1"}, 403),
            ({"Host": ""}, 403),
            ({"Origin": "http://localhost:3000"}, 200),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
        ],
    )
    async def test_only_this_machine_by_its_own_name(
        self, able: httpx.AsyncClient, headers: dict[str, str], status: int
    ) -> None:
        response = await able.get("/api/tags", headers=headers)
        assert response.status_code == status
        assert "access-control-allow-origin" not in response.headers
        if status == 403:
            assert response.content == b""

    async def test_large_body(self, able: httpx.AsyncClient, script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("arena.engine.http.MAX_BODY_BYTES", 1000)
        assert (await able.post("/api/chat", json=ask())).status_code == 200
        response = await able.post("/api/chat", json=ask(x="x" * 1000))
        assert response.status_code == 413

    async def test_list_of_models_is_null_when_empty(self, tmp_path: Path) -> None:
        async with serving(config_for(tmp_path)) as client:
            assert (await client.get("/v1/models")).json() == {"object": "list", "data": None}
            assert (await client.get("/api/tags")).json() == {"models": []}
            assert (await client.get("/v1/models/a%20b")).status_code == 404
