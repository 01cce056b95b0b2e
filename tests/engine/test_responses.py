"""OpenAI's Responses API: what becomes of its bodies, and of llama.cpp's answers, with a runner that plays a script."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.engine.scripted import END, TIMINGS, Scripted, delta

pytestmark = pytest.mark.anyio

PNG = "data:image/png;base64,iVBORw0KGgo="
TOOLS = [{"type": "function", "name": "add", "parameters": {"type": "object"}}, {"type": "function", "name": "cut"}]
CALL = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}


async def whole(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/responses", json={"model": "able:1b", "input": "x", **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def events(client: httpx.AsyncClient, **more: Any) -> list[dict[str, Any]]:
    body = {"model": "able:1b", "input": "x", "stream": True, **more}
    response = await client.post("/v1/responses", json=body)
    assert response.headers["content-type"] == "text/event-stream"
    told = []
    for number, event in enumerate(filter(None, response.text.split("\n\n"))):
        kind, data = event.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert (kind, number) == (f"event: {told[-1]['type']}", told[-1]["sequence_number"])
    return told


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in told]


class TestStream:
    async def test_text(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(content="a"), delta(content="b"), delta("stop"), END]
        told = await events(able)
        assert kinds(told) == [
            "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
            "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed",
        ]  # fmt: skip
        assert told[0]["response"]["status"] == "in_progress"
        assert [event["delta"] for event in told[4:6]] == ["a", "b"]
        assert told[6]["text"] == "ab"
        assert {event["item_id"] for event in told[3:8]} == {told[2]["item"]["id"]}
        response = told[-1]["response"]
        (item,) = response["output"]
        assert item["content"] == [{"type": "output_text", "text": "ab", "annotations": [], "logprobs": []}]
        assert (response["status"], item["status"]) == ("completed", "completed")
        assert response["usage"] == {
            "input_tokens": 4,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 24,
        }

    async def test_thoughts_text_and_calls_are_items(self, able: httpx.AsyncClient, script: Scripted) -> None:
        thought = {**delta(reasoning_content="hm"), "timings": {**TIMINGS, "predicted_n": 6}}
        script.pieces = [thought, delta(content="So"), delta(tool_calls=[CALL]), delta("tool_calls"), END]
        told = await events(able, tools=TOOLS, reasoning={"effort": "high"})
        assert [kind for kind in kinds(told) if "delta" in kind] == [
            "reasoning_text.delta",
            "output_text.delta",
            "function_call_arguments.delta",
        ]
        response = told[-1]["response"]
        assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call"]
        assert response["output"][0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
        call = response["output"][2]
        assert (call["call_id"], call["name"], call["arguments"]) == ("c1", "add", '{"a":1}')
        assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 6}
        assert script.requests[0]["chat_template_kwargs"] == {"enable_thinking": True, "reasoning_effort": "high"}

    async def test_failure_on_the_way(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [delta(content="a"), {"error": {"code": 500, "message": "no memory"}}]
        last = (await events(able))[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["error"] == {"code": "server_error", "message": "no memory"}

    async def test_failure_before_it_is_a_status(self, able: httpx.AsyncClient, script: Scripted) -> None:
        script.pieces = [{"error": {"code": 500, "message": "no memory"}}]
        response = await able.post("/v1/responses", json={"model": "able:1b", "input": "x", "stream": True})
        assert (response.status_code, response.json()["error"]["message"]) == (500, "no memory")


class TestWhole:
    async def test_what_was_asked_is_told_back(self, able: httpx.AsyncClient, script: Scripted) -> None:
        answer = await whole(able, instructions="Be brief.", tools=TOOLS, metadata={"a": "b"}, text={"format": {}})
        assert (answer["object"], answer["model"], answer["store"]) == ("response", "able:1b", False)
        assert (answer["instructions"], answer["metadata"]) == ("Be brief.", {"a": "b"})
        assert [tool["name"] for tool in answer["tools"]] == ["add", "cut"]
        assert answer["output"][0]["content"][0]["text"] == "hi"

    @pytest.mark.parametrize("pieces", [[], [delta(content="a")]])
    async def test_cut_by_the_limit(self, able: httpx.AsyncClient, script: Scripted, pieces: list[Any]) -> None:
        script.pieces = [*pieces, delta("length"), END]
        answer = await whole(able, max_output_tokens=5)
        assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert [item["status"] for item in answer["output"]] == ["incomplete"] * len(pieces)
        assert script.requests[0]["n_predict"] == 5


class TestBody:
    async def test_a_whole_conversation(self, able: httpx.AsyncClient, script: Scripted) -> None:
        await whole(
            able,
            instructions="Be brief.",
            tools=TOOLS,
            tool_choice={"type": "function", "name": "add"},
            text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
            input=[
                {"role": "developer", "content": "Be kind."},
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "See"}, {"type": "input_image", "image_url": PNG}],
                },
                {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "I "}, {"type": "refusal", "refusal": "add."}],
                },
                {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'},
                {"type": "function_call_output", "call_id": "c1", "output": "2"},
                {"type": "reasoning", "summary": [], "content": [{"text": "ho"}]},
                {"type": "function_call", "call_id": "c2", "name": "cut"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "3"}]},
            ],
        )
        sent = script.requests[0]
        roles = [message["role"] for message in sent["messages"]]
        assert roles == ["system", "system", "user", "assistant", "tool", "assistant", "tool"]
        assert sent["messages"][2]["content"][1] == {"type": "image_url", "image_url": {"url": PNG}}
        assert sent["messages"][3] == {
            "role": "assistant",
            "content": "I add.",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}],
        }
        assert sent["messages"][5]["reasoning_content"] == "ho"
        assert sent["messages"][6] == {"role": "tool", "content": "3", "tool_call_id": "c2"}
        assert [tool["function"]["name"] for tool in sent["tools"]] == ["add"]
        assert sent["tool_choice"] == "required"
        assert sent["response_format"]["json_schema"] == {"schema": {"type": "object"}}

    @pytest.mark.parametrize(
        ("text", "form"),
        [({"format": {"type": "text"}}, None), ({"format": {"type": "json_object"}}, {"type": "json_object"})],
    )
    async def test_forms(self, able: httpx.AsyncClient, script: Scripted, text: Any, form: Any) -> None:
        await whole(able, text=text, tools=TOOLS, tool_choice="none", temperature=0.5, top_p=0.8)
        sent = script.requests[0]
        assert sent.get("response_format") == form
        assert "tools" not in sent
        assert (sent["temperature"], sent["top_p"]) == (0.5, 0.8)

    @pytest.mark.parametrize(
        ("change", "status", "words"),
        [
            ({"model": ""}, 400, "model is required"),
            ({"model": "no"}, 404, "model 'no' not found"),
            ({"input": []}, 400, "input is required"),
            ({"previous_response_id": "resp_1"}, 400, "previous_response_id is not supported"),
            ({"background": True}, 400, "background is not supported"),
            ({"conversation": "c"}, 400, "conversation is not supported"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, 400, "input[0].type must be one of"),
            ({"input": [{"role": "robot", "content": "x"}]}, 400, "input[0]: Invalid enum value 'robot'"),
            ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, 400, "input[0]: Invalid value"),
            (
                {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x/y"}]}]},
                400,
                "only data URLs",
            ),
            ({"tools": [{"type": "web_search"}]}, 400, "only functions with a name"),
            ({"tools": TOOLS, "tool_choice": "often"}, 400, "tool_choice must be"),
            ({"tools": TOOLS, "tool_choice": {"name": "x"}}, 400, "no tool is called 'x'"),
            ({"reasoning": {"effort": "hard"}}, 400, "invalid reasoning value"),
        ],
    )
    async def test_bad_request(self, able: httpx.AsyncClient, change: Any, status: int, words: str) -> None:
        response = await able.post("/v1/responses", json={"model": "able:1b", "input": "x", **change})
        assert response.status_code == status
        assert words in response.json()["error"]["message"]
