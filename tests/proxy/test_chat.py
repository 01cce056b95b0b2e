"""Anthropic's messages in the words of OpenAI's chat, and its answers back: values only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arena.anthropic import MessagesBody, MessageWriter
from arena.errors import BadRequest, UpstreamBroken, UpstreamError
from arena.openai import COMMON
from arena.proxy.chat import ChatReader, chat_body, read_body

PNG = "iVBORw0KGgo="
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
SHOWN = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
ADD = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}
CUT = {"name": "cut", "input_schema": {}}
FURTHER = COMMON | {"top_k", "chat_template_kwargs"}
HI = {"role": "user", "content": "Hi"}


def asked(*messages: Any, keys: frozenset[str] = COMMON, **more: Any) -> dict[str, Any]:
    """What a server is sent for a body with these messages."""
    body = {"model": "m", "max_tokens": 9, "messages": list(messages) or [HI], **more}
    return chat_body(read_body(json.dumps(body).encode(), MessagesBody), keys)


def test_the_simplest() -> None:
    assert asked() == {"model": "m", "max_tokens": 9, "messages": [HI]}


def test_instructions_settings_and_stream() -> None:
    sent = asked(
        system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        temperature=0,
        top_p=0.5,
        top_k=7,
        stop_sequences=["END"],
        stream=True,
        metadata={"user_id": "u"},
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {key: sent[key] for key in ("temperature", "top_p", "stop", "stream", "stream_options")} == {
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert sent["response_format"]["json_schema"] == {"name": "answer", "schema": {"type": "object"}}
    assert not sent.keys() & {"top_k", "chat_template_kwargs", "metadata"}


@pytest.mark.parametrize(("mode", "sent"), [("enabled", True), ("disabled", False), ("adaptive", None)])
def test_keys_that_the_server_knows(mode: str, sent: bool | None) -> None:
    body = asked(top_k=7, thinking={"type": mode}, keys=FURTHER)
    assert body["top_k"] == 7
    assert body.get("chat_template_kwargs") == (None if sent is None else {"enable_thinking": sent})
    assert "stream_options" not in asked(stream=True, keys=frozenset())


def test_pictures_stand_where_they_stood() -> None:
    elsewhere = {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}}
    sent = asked({"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE, elsewhere]})
    assert sent["messages"][0]["content"] == [
        {"type": "text", "text": "a"},
        SHOWN,
        {"type": "image_url", "image_url": {"url": "https://h/a.png"}},
    ]


def test_calls_their_results_and_earlier_thoughts() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}}
    turns = [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "So"},
                call,
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "3"}, PICTURE]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "4", "is_error": True},
                {"type": "tool_result", "tool_use_id": "t3"},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    assistant = {
        "role": "assistant",
        "content": "So",
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}],
    }
    assert asked(*turns)["messages"] == [
        assistant,
        {"role": "tool", "tool_call_id": "t1", "content": "3"},
        {"role": "tool", "tool_call_id": "t2", "content": "4"},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": [SHOWN, {"type": "text", "text": "And?"}]},
    ]
    assert asked(*turns, keys=FURTHER)["messages"][0] == {**assistant, "reasoning_content": "hm"}
    only_results = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "3"}]}
    assert len(asked(only_results)["messages"]) == 1


@pytest.mark.parametrize(
    ("choice", "names", "sent"),
    [
        (None, ["add", "cut"], None),
        ({"type": "auto"}, ["add", "cut"], "auto"),
        ({"type": "any"}, ["add", "cut"], "required"),
        ({"type": "tool", "name": "cut"}, ["cut"], {"type": "function", "function": {"name": "cut"}}),
        ({"type": "none"}, None, None),
    ],
)
def test_tools(choice: Any, names: list[str] | None, sent: Any) -> None:
    body = asked(tools=[ADD, CUT], tool_choice=choice)
    assert (names and [tool["function"]["name"] for tool in body["tools"]]) == names
    assert body.get("tool_choice") == sent
    alone = asked(tools=[ADD], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert alone["parallel_tool_calls"] is False
    assert alone["tools"] == [
        {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
    ]


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": blocks}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"messages": [said({"type": "robot"})]}, "messages[0].content[0].type"),
        ({"messages": [said({"type": "document"})]}, "messages.0: documents cannot be read here"),
        (
            {"messages": [said({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "document"}]})]},
            "messages.0: documents cannot be read here",
        ),
        ({"messages": [said({"type": "server_tool_use"})]}, "messages.0: tools that run at Anthropic do not exist"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "input_schema"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "x"}}, "'x'"),
    ],
)
def test_what_has_no_such_form_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        asked(**change)
    assert words in refused.value.message
    with pytest.raises(BadRequest, match="invalid request body"):
        read_body(b"{", MessagesBody)


# answers


def chunk(reason: str | None = None, choice: Any = None, **delta: Any) -> bytes:
    found = {"index": 0, "delta": delta, "finish_reason": reason, **(choice or {})}
    return b"data: " + json.dumps({"choices": [found]}).encode() + b"\n\n"


def usage(prompt: int, completion: int, cached: int | None = None) -> bytes:
    details = None if cached is None else {"cached_tokens": cached}
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return b"data: " + json.dumps({"choices": [], "usage": told}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def call(index: int | None, name: str | None = None, arguments: Any = None, call_id: str | None = None) -> Any:
    return [{"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}]


def read(*parts: bytes, stops: tuple[str, ...] = ()) -> tuple[list[Any], dict[str, Any], ChatReader]:
    """The events, the whole message, and the reader."""
    writer = MessageWriter("m")
    reader = ChatReader("h", writer, stops)
    for part in parts:
        reader.feed(part)
    reader.over()
    events = [event.split(b"\n") for event in writer.events().split(b"\n\n")[:-1]]
    told = [json.loads(data.removeprefix(b"data: ")) for _, data in events]
    assert [kind.removeprefix(b"event: ").decode() for kind, _ in events] == [event["type"] for event in told]
    return told, writer.message() if told else {}, reader


def test_text_is_a_block_and_the_cost_comes_at_the_end() -> None:
    told, message, reader = read(chunk(role="assistant", content=""), chunk(content="a"), chunk(content="b"),
                                 chunk("stop"), usage(10, 2, 4), DONE)  # fmt: skip
    kinds = ["message_start", "content_block_start", *["content_block_delta"] * 2, "content_block_stop"]
    assert [event["type"] for event in told] == [*kinds, "message_delta", "message_stop"]
    assert told[0]["message"]["usage"]["output_tokens"] == 0
    cost = {"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 2}
    assert told[-2]["usage"] == message["usage"] == cost
    assert message["content"] == [{"type": "text", "text": "ab"}]
    assert (message["stop_reason"], message["stop_sequence"], message["role"]) == ("end_turn", None, "assistant")
    assert (reader.counted, reader.done) == (True, True)


def test_without_a_word_of_the_cost_the_pieces_are_counted() -> None:
    _, message, reader = read(chunk(content="a"), chunk(content="b"), chunk("length"))
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"], reader.counted) == (0, 2, False)
    assert message["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("figure", ["-5", "1e308", "true", '"7"', "9" * 400, "[]", "null"])
def test_what_is_no_count_of_tokens_is_told_as_none(figure: str) -> None:
    told = f'"prompt_tokens":{figure},"completion_tokens":{figure},"prompt_tokens_details":{{"cached_tokens":{figure}}}'
    cost = f'data: {{"choices":[],"usage":{{{told}}}}}\n\n'.encode()
    _, message, reader = read(chunk(content="a"), chunk("stop"), cost, DONE)
    assert message["content"] == [{"type": "text", "text": "a"}]
    assert (set(message["usage"].values()), reader.done) == ({0}, True)


@pytest.mark.parametrize("word", ["reasoning_content", "reasoning"])
def test_thoughts_and_calls_are_blocks_of_their_own(word: str) -> None:
    told, message, _ = read(
        chunk(**{word: "hm"}),
        chunk(content="So"),
        chunk(tool_calls=call(0, "add", "", "c1")),
        chunk(tool_calls=call(0, None, '{"a":')),
        chunk(tool_calls=call(0, None, " 1}")),
        chunk(tool_calls=call(1, "cut", {"b": 2})),
        chunk(tool_calls=call(2, "cut")),
        chunk("tool_calls"),
        DONE,
    )
    assert message["content"][:3] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "So"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
    ]
    assert [block["input"] for block in message["content"][3:]] == [{"b": 2}, {}]
    assert message["stop_reason"] == "tool_use"
    starts = [event for event in told if event["type"] == "content_block_start"]
    assert [event["index"] for event in starts] == [0, 1, 2, 3, 4]
    pieces = [event["delta"].get("partial_json") for event in told if event["type"] == "content_block_delta"]
    assert pieces == [None, None, '{"a":', " 1}", '{"b":2}']


def test_a_whole_answer() -> None:
    writer = MessageWriter("m")
    called = {"id": "c", "function": {"name": "add", "arguments": "{}"}}
    said = {"role": "assistant", "content": "Hi", "tool_calls": [called]}
    ChatReader("h", writer, ()).whole(
        json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": None}).encode()
    )
    message = writer.message()
    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
    assert message["stop_reason"] == "tool_use"  # some servers say "stop" all the same


def test_a_whole_answer_says_why_it_ended() -> None:
    with pytest.raises(UpstreamBroken, match="why it ended"):
        ChatReader("h", MessageWriter("m"), ()).whole(b'{"choices": [{"message": {"content": "a"}}]}')


@pytest.mark.parametrize(
    ("reason", "choice", "expected"),
    [
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": 128001}, ("end_turn", None)),
        ("content_filter", {}, ("refusal", None)),
        ("eos", {}, ("end_turn", None)),
    ],
)
def test_why_it_ended(reason: str, choice: Any, expected: tuple[str, str | None]) -> None:
    _, message, _ = read(chunk(content="a"), chunk(reason, choice), stops=("END",))
    assert (message["stop_reason"], message["stop_sequence"]) == expected


def test_other_choices_and_what_comes_after_the_end_are_left_out() -> None:
    other = b'data: {"choices": [{"index": 1, "delta": {"content": "no"}}]}\n\n'
    _, message, _ = read(b": ping\n\n", other, chunk(content="a"), chunk("stop"), DONE, chunk(content="no"))
    assert message["content"] == [{"type": "text", "text": "a"}]


def test_the_last_event_may_lack_its_empty_line() -> None:
    assert read(chunk(content="a"), chunk("stop"), DONE[:-2])[2].done


def test_an_answer_without_an_end_stays_open() -> None:
    told, _, reader = read(chunk(content="a"), DONE)
    assert (told[-1]["type"], reader.done) == ("content_block_delta", False)
    assert read(b"data: [DONE]\n\n")[0] == []


def test_half_a_character_does_no_harm() -> None:
    _, message, _ = read(b'data: {"choices": [{"delta": {"content": "a\\ud800b"}}]}\n\n', chunk("stop"))
    assert message["content"] == [{"type": "text", "text": "a\ufffdb"}]


@pytest.mark.parametrize(
    ("part", "kind", "words"),
    [
        (b'data: {"error": {"message": "no memory"}}\n\n', UpstreamError, "no memory"),
        (b"data: nonsense\n\n", UpstreamBroken, "JSON"),
        (chunk("stop") + b'data: {"choices": [], "usa', UpstreamBroken, "JSON"),
        (b'data: {"choices": "x"}\n\n', UpstreamBroken, "does not know"),
        (b'data: {"choices": [{"delta": {"content": 5}}]}\n\n', UpstreamBroken, "does not know"),
        (chunk(tool_calls=call(0, None, "{}")), UpstreamBroken, "does not know"),
    ],
)
def test_what_is_no_answer(part: bytes, kind: type[UpstreamError], words: str) -> None:
    with pytest.raises(kind, match=words):
        read(chunk(content="a"), part)


def test_a_call_with_what_is_no_object_cannot_be_told_as_a_whole() -> None:
    with pytest.raises(UpstreamError, match="called add"):
        read(chunk(tool_calls=call(0, "add", "[1")), chunk("tool_calls"))
