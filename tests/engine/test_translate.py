"""From calls to llama.cpp's requests, and from its streams back to events, however the bytes are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.engine import translate
from arena.engine.calls import Call, Message, ToolCall, ToolFunction
from arena.engine.translate import Decoder, Ending, Event, Piece, Timings, Trouble, request_body, trouble_of

TIMINGS = {"cache_n": 3, "prompt_n": 4, "prompt_ms": 5.5, "predicted_n": 6, "predicted_ms": 7.5, "more": 1}


def sse(*chunks: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks)


def delta(finish: str | None = None, **content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": finish, "delta": content}], "object": "chat.completion.chunk"}


END = {"choices": [], "timings": TIMINGS, "usage": {}}


def decode(data: bytes) -> list[Event]:
    return Decoder().feed(data)


def test_chat_stream() -> None:
    data = b": ping\n\n" + sse(
        delta(role="assistant", content=None),
        delta(reasoning_content="hm"),
        delta(content="a\u0085b"),
        delta("length"),
        END,
    )
    assert decode(data + b"data: [DONE]\n\n") == [
        Piece(thinking="hm"),
        Piece("a\u0085b"),
        Ending("length", Timings(3, 4, 5.5, 6, 7.5)),
    ]


@given(st.lists(st.integers(1, 60), max_size=40))
def test_any_cut_gives_the_same_events(cuts: list[int]) -> None:
    data = sse(delta(content="Grüße 🦙\u2028"), delta(content="\u0085 x"), delta("stop"), END)
    decoder, events, position = Decoder(), [], 0
    for cut in [*cuts, len(data)]:
        events += decoder.feed(data[position : position + cut])
        position += cut
    assert events == decode(data)


def test_tool_calls_come_whole_before_the_end() -> None:
    def part(**call: Any) -> dict[str, Any]:
        return delta(tool_calls=[call])

    data = sse(
        part(index=0, id="c1", function={"name": "add", "arguments": ""}),
        part(index=0, function={"arguments": '{"a": '}),
        part(index=0, function={"arguments": "1}"}),
        part(index=1, id="c2", function={"name": "cut", "arguments": '{"b"'}),
        delta("tool_calls"),
        END,
    )
    piece, ending = decode(data)
    assert isinstance(piece, Piece)
    assert piece.tool_calls == (
        ToolCall(ToolFunction("add", {"a": 1}, 0), "c1"),
        ToolCall(ToolFunction("cut", {}, 1), "c2"),
    )
    assert isinstance(ending, Ending)
    assert ending.reason == "tool_calls"


def test_logprobs_keep_only_what_ollama_sends() -> None:
    token = {"id": 1, "token": "a", "logprob": -0.5, "bytes": [97]}
    entry = {**token, "top_logprobs": [token]}
    chunk = delta(content="a")
    chunk["choices"][0]["logprobs"] = {"content": [entry]}
    (piece,) = decode(sse(chunk))
    kept = {"token": "a", "logprob": -0.5, "bytes": [97]}
    assert isinstance(piece, Piece)
    assert piece.logprobs == ({**kept, "top_logprobs": [kept]},)


def test_completion_stream() -> None:
    data = sse({"content": "x", "stop": False}, {"content": "", "stop": True, "stop_type": "limit", "timings": TIMINGS})
    assert decode(data) == [Piece("x"), Ending("length", Timings(3, 4, 5.5, 6, 7.5))]
    assert decode(sse({"content": "", "stop": True, "stop_type": "eos"})) == [Ending("stop", Timings())]


def test_trouble() -> None:
    error = {"message": "too long", "code": 400, "type": "exceed", "n_prompt_tokens": 9, "n_ctx": 4}
    expected = Trouble("too long", 400, "exceed", 9, 4)
    assert decode(sse({"error": error})) == [expected]
    assert trouble_of(400, json.dumps({"error": error}).encode()) == expected
    assert trouble_of(502, b"<html>").message == "the runner answered with status 502"
    assert trouble_of(500, b"{}").status == 500


def body_of(call: Call) -> tuple[str, dict[str, Any]]:
    path, body = request_body(call, 512)
    return path, json.loads(body)


def test_chat_request() -> None:
    path, body = body_of(Call(model="m", messages=[Message("User", "x")], options={"seed": 5, "stop": ["a"]}))
    assert path == translate.CHAT_PATH
    assert body["messages"] == [{"role": "user", "content": "x"}]
    assert (body["seed"], body["stop"], body["stream_options"]) == (5, ["a"], {"include_usage": True})
    assert "tools" not in body
    assert "chat_template_kwargs" not in body


@pytest.mark.parametrize(
    ("think", "kwargs"),
    [
        (True, {"enable_thinking": True}),
        (False, {"enable_thinking": False}),
        ("low", {"enable_thinking": True, "reasoning_effort": "low"}),
        ("max", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_think(think: Any, kwargs: Any) -> None:
    assert body_of(Call(model="m", messages=[Message("user", "x")], think=think))[1]["chat_template_kwargs"] == kwargs


def test_formats() -> None:
    schema = {"type": "object"}
    messages = [Message("user", "x")]
    assert body_of(Call(model="m", messages=messages, format="json"))[1]["response_format"] == {"type": "json_object"}
    got = body_of(Call(model="m", messages=messages, format=schema))[1]["response_format"]
    assert got == {"type": "json_schema", "json_schema": {"schema": schema}}
    path, raw = body_of(Call(model="m", prompt="x", format=schema, top_logprobs=0))
    assert (path, raw["json_schema"], raw["n_probs"]) == (translate.COMPLETION_PATH, schema, 1)
    assert body_of(Call(model="m", prompt="x", format="json"))[1]["json_schema"] == {}


def test_history_with_tools_thoughts_and_pictures() -> None:
    calls = [ToolCall(ToolFunction("f", {"a": 1})), ToolCall(ToolFunction("g", "{}"), "id2")]
    call = Call(
        model="m",
        messages=[
            Message("user", "look", images=["iVBORw0KGgoAAAA", "/9j/4AAQ", "AAAA"]),
            Message("assistant", None, thinking="hm", tool_calls=calls),
            Message("tool", "2", tool_name="f", tool_call_id="c9"),
            Message("tool", "3"),
        ],
        tools=[{"type": "function", "function": {"name": "f"}}],
        top_logprobs=4,
    )
    body = body_of(call)[1]
    user, assistant, first, second = body["messages"]
    kinds = [part.get("image_url", {}).get("url", "")[:16] for part in user["content"]]
    assert kinds == ["", "data:image/png;b", "data:image/jpeg;", "data:image/png;b"]
    assert assistant["reasoning_content"] == "hm"
    assert [c["function"]["arguments"] for c in assistant["tool_calls"]] == ['{"a":1}', "{}"]
    assert [c["id"] for c in assistant["tool_calls"]] == ["call_0", "id2"]
    assert (first["tool_call_id"], first["name"]) == ("c9", "f")
    assert second["tool_call_id"] == "call_0"
    assert (body["tool_choice"], body["logprobs"], body["top_logprobs"]) == ("auto", True, 4)
