"""Anthropic's routes: what becomes of their bodies, and of llama.cpp's answers, with a runner that plays a script."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.engine.stops import Stops
from arena.engine.translate import Ending, Event, Piece, Timings
from tests.engine.scripted import END, TIMINGS, Scripted, delta

pytestmark = pytest.mark.anyio

PNG = "iVBORw0KGgo="
TOOLS = [
    {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}},
    {"name": "cut", "input_schema": {}},
]
CALL = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "able:1b", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}], **more}


def counted(tokens: int, **content: Any) -> dict[str, Any]:
    """A chunk that tells what the answer has cost so far."""
    return {**delta(**content), "timings": {**TIMINGS, "cache_n": 3, "predicted_n": tokens}}


async def whole(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/messages", json=ask(**more))
    assert response.status_code == 200, response.text
    message: dict[str, Any] = response.json()
    return message


async def events(client: httpx.AsyncClient, **more: Any) -> list[dict[str, Any]]:
    response = await client.post("/v1/messages", json=ask(stream=True, **more))
    assert response.headers["content-type"] == "text/event-stream"
    told = []
    for event in filter(None, response.text.split("\n\n")):
        kind, data = event.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {told[-1]['type']}"
    return told


class TestStream:
    async def test_text(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [counted(1, content="a"), counted(2, content="b"), delta("stop"), END]
        start, *blocks, last, stop = await events(able)
        assert start["message"] | {"id": ""} == {
            "id": "", "type": "message", "role": "assistant", "model": "able:1b", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": {"input_tokens": 4, "cache_creation_input_tokens": 0,
                                             "cache_read_input_tokens": 3, "output_tokens": 0},
        }  # fmt: skip
        assert blocks == [
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}},
            {"type": "content_block_stop", "index": 0},
        ]
        assert last["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
        assert last["usage"]["output_tokens"] == 20
        assert stop == {"type": "message_stop"}
        assert script.requests[0]["timings_per_token"] is True

    async def test_thoughts_text_and_tools_are_blocks(self, able: httpx.AsyncClient, script: Scripted) -> None:
        pieces = [counted(1, reasoning_content="hm"), counted(2, content="So"), delta(tool_calls=[CALL]), delta("stop")]
        script.pieces = [*pieces, END]
        told = await events(able, tools=TOOLS, thinking={"type": "enabled", "budget_tokens": 1024})
        kinds = [(event["type"], event.get("index")) for event in told]
        block = ["content_block_start", "content_block_delta", "content_block_stop"]
        assert kinds == [
            ("message_start", None),
            *((kind, index) for index in range(3) for kind in block),
            ("message_delta", None),
            ("message_stop", None),
        ]
        assert told[7]["content_block"] == {"type": "tool_use", "id": "c1", "name": "add", "input": {}}
        assert told[8]["delta"] == {"type": "input_json_delta", "partial_json": '{"a":1}'}
        assert told[10]["delta"]["stop_reason"] == "tool_use"
        assert script.requests[0]["chat_template_kwargs"] == {"enable_thinking": True}
        script.pieces = [*pieces, END]
        message = await whole(able, tools=TOOLS)
        assert message["content"] == [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "So"},
            {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
        ]
        assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("tool_use", 20)

    async def test_an_answer_of_nothing_is_an_answer(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta("length"), END]
        assert [event["type"] for event in await events(able)] == ["message_start", "message_delta", "message_stop"]
        script.pieces = [delta("length"), END]
        message = await whole(able)
        assert (message["content"], message["stop_reason"]) == ([], "max_tokens")

    async def test_error_on_the_way(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [counted(1, content="a"), {"error": {"code": 500, "message": "no memory"}}]
        assert (await events(able))[-1] == {"type": "error", "error": {"type": "api_error", "message": "no memory"}}


class TestStops:
    async def test_the_sequence_that_ended_it_is_told(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [counted(1, content="a E"), counted(2, content="ND b"), None]
        message = await whole(able, stop_sequences=["STOP", "END"])
        await script.hung_up.wait()
        assert message["content"] == [{"type": "text", "text": "a "}]
        assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
        assert message["usage"]["output_tokens"] == 2
        assert script.requests[0]["stop"] == []

    async def test_what_looked_like_one_is_told_in_the_end(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [counted(1, content="a E"), delta(tool_calls=[CALL]), delta("stop"), END]
        message = await whole(able, stop_sequences=["END"], tools=TOOLS)
        assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
        assert (message["content"][0]["text"], message["stop_sequence"]) == ("a E", None)

    @given(st.lists(st.text("abc", min_size=1), max_size=8), st.lists(st.text("abc", max_size=3), max_size=3))
    def test_any_cut_ends_at_the_first_of_them(self, texts: list[str], words: list[str]) -> None:
        stops, said, ended = Stops(words), "", False
        events: list[Event] = [Piece(text, timings=Timings()) for text in texts]
        for event in [*events, Ending("stop", Timings())]:
            for told in stops.cut([event]):
                assert not ended
                said += told.text if isinstance(told, Piece) else ""
                ended = isinstance(told, Ending)
            if stops.found is not None:
                break
        assert ended
        text = "".join(texts)
        places = [at for word in words if word and (at := text.find(word)) >= 0]
        assert said == text[: min(places)] if places else said == text
        assert (stops.found is not None) == bool(places)


class TestBody:
    async def test_a_whole_conversation(self, able: httpx.AsyncClient, script: Scripted) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        said = [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
        ]
        await whole(
            able,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            tools=TOOLS,
            messages=[
                {"role": "user", "content": [{"type": "text", "text": "See"}, image]},
                {"role": "assistant", "content": said},
            ],
        )
        seen = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        call = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
        assert script.requests[0]["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "See"}, seen]},
            {"role": "assistant", "content": "I add.", "reasoning_content": "hm", "tool_calls": [call]},
        ]

    async def test_results_of_tools_come_before_what_is_said_with_them(
        self, able: httpx.AsyncClient, script: Scripted
    ) -> None:
        results = [
            {"type": "text", "text": "And?"},
            {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "3"}]},
            {"type": "tool_result", "tool_use_id": "t3"},
        ]
        await whole(
            able,
            messages=[
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "2"}]},
                {"role": "user", "content": results},
            ],
        )
        assert script.requests[0]["messages"][1:] == [
            {"role": "tool", "content": "2", "tool_call_id": "t1"},
            {"role": "tool", "content": "3", "tool_call_id": "t2"},
            {"role": "tool", "content": "", "tool_call_id": "t3"},
            {"role": "user", "content": "And?"},
        ]

    async def test_settings_of_the_request(self, able: httpx.AsyncClient, script: Scripted) -> None:
        await whole(
            able,
            temperature=0.5,
            top_p=0.8,
            top_k=7,
            tools=TOOLS,
            tool_choice={"type": "tool", "name": "add"},
            thinking={"type": "adaptive"},
            output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
            metadata={"user_id": "u"},
        )
        sent = script.requests[0]
        assert [tool["function"]["name"] for tool in sent["tools"]] == ["add"]
        assert sent["tool_choice"] == "required"
        assert sent["response_format"]["json_schema"] == {"schema": {"type": "object"}}
        assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["n_predict"]) == (0.5, 0.8, 7, 50)
        assert "chat_template_kwargs" not in sent

    async def test_the_models_own_settings_hold(self, able: httpx.AsyncClient, script: Scripted) -> None:
        await whole(able, tools=TOOLS, tool_choice={"type": "none"}, thinking={"type": "disabled"})
        sent = script.requests[0]
        assert sent["messages"][0] == {"role": "system", "content": "Be kind."}
        assert (sent["top_k"], sent["temperature"]) == (3, 0.8)
        assert "tools" not in sent
        assert sent["chat_template_kwargs"] == {"enable_thinking": False}

    @pytest.mark.parametrize(
        ("change", "status", "kind", "words"),
        [
            ({"model": ""}, 400, "invalid_request_error", "model: Field required"),
            ({"model": "no"}, 404, "not_found_error", "model 'no' not found"),
            ({"messages": []}, 400, "invalid_request_error", "at least one message"),
            ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens: Field required"),
            ({"max_tokens": 0}, 400, "invalid_request_error", "greater than or equal to 1"),
            ({"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_request_error", "messages[0].role"),
            (
                {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text"}}]}]},
                400,
                "invalid_request_error",
                "messages.0: documents cannot be read here; send their text in a block of type text",
            ),
            (
                {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}]},
                400,
                "invalid_request_error",
                "not fetched",
            ),
            ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, 400, "invalid_request_error", "input_schema"),
            ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "x"}}, 400, "invalid_request_error", "'x'"),
            ({"stop_sequences": ["x"] * 65}, 400, "invalid_request_error", "at most 64"),
        ],
    )
    async def test_bad_request(self, able: httpx.AsyncClient, change: Any, status: int, kind: str, words: str) -> None:
        response = await able.post("/v1/messages", json=ask(**change))
        assert response.status_code == status
        error = response.json()
        assert (error["type"], error["error"]["type"]) == ("error", kind)
        assert words in error["error"]["message"]


class TestCount:
    async def test_the_model_counts(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [b'{"input_tokens": 12}']
        response = await able.post("/v1/messages/count_tokens", json={**ask(tools=TOOLS), "max_tokens": None})
        assert response.json() == {"input_tokens": 12}
        assert len(script.requests[0]["tools"]) == 2

    async def test_trouble_is_told(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.status, script.pieces = 400, [b'{"error": {"code": 400, "message": "bad template"}}']
        response = await able.post("/v1/messages/count_tokens", json=ask())
        assert (response.status_code, response.json()["error"]["message"]) == (400, "bad template")
        script.pieces = [b"cut"]
        response = await able.post("/v1/messages/count_tokens", json=ask())
        assert (response.status_code, response.json()["error"]["type"]) == (500, "api_error")
