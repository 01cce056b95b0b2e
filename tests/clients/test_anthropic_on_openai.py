"""anthropic, unmodified, before a host that only speaks OpenAI's chat: it cannot tell."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import anthropic
import pytest
from anthropic.types import (
    Message,
    MessageParam,
    TextBlock,
    ThinkingBlock,
    ThinkingConfigEnabledParam,
    ToolParam,
    ToolUseBlock,
)

from arena.settings import load
from tests.api.served import served
from tests.fake_ollama import RunningFake, running_fake, text_of

pytestmark = pytest.mark.anyio

HELLO: list[MessageParam] = [{"role": "user", "content": "Hello!"}]
WEATHER: ToolParam = {"name": "get_weather", "input_schema": {"type": "object"}}
MODELS = ("fx-ok:n-6", "fx-tools", "fx-think:think-2_n-3", "fx-status:c-503", "fx-eof:at-2")
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


@pytest.fixture(scope="module")
def host() -> Iterator[RunningFake]:
    with running_fake(MODELS) as fake:
        yield fake


@pytest.fixture(scope="module")
def url(host: RunningFake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("arena")
    file = folder / "fleet.yaml"
    file.write_text(f"endpoints: [{{name: vllm, url: '{host.url}', type: openai}}]\n", encoding="utf-8")
    with served(load(port=0, engine="off", data=folder, fleet=file, drain_s=0.2)) as port:
        yield f"http://127.0.0.1:{port}/olla/anthropic"


@pytest.fixture
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_messages(client: anthropic.Anthropic) -> None:
    answer = client.messages.with_raw_response.create(
        model="fx-ok:n-6", max_tokens=50, messages=HELLO, system="Be brief.", stop_sequences=["STOP"]
    )
    message = answer.parse()
    (block,) = message.content
    assert isinstance(block, TextBlock)
    assert block.text == text_of(6)
    assert (message.stop_reason, message.role, message.model) == ("end_turn", "assistant", "fx-ok:n-6")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 6)
    assert answer.headers["x-olla-endpoint"] == "vllm"
    assert "x-olla-mode" not in answer.headers
    assert message._request_id == answer.headers["x-olla-request-id"]


def test_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="fx-ok:n-6", max_tokens=50, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == text_of(6)
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 1, 6)


async def test_stream_async(url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        stream = await client.messages.create(model="fx-ok:n-6", max_tokens=50, messages=HELLO, stream=True)
        kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1], kinds.count("content_block_delta")) == ("message_start", "message_stop", 6)


@pytest.mark.parametrize("streams", [True, False])
def test_tools(client: anthropic.Anthropic, streams: bool) -> None:
    message: Message
    if streams:
        with client.messages.stream(model="fx-tools", max_tokens=50, messages=HELLO, tools=[WEATHER]) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(model="fx-tools", max_tokens=50, messages=HELLO, tools=[WEATHER])
    assert message.stop_reason == "tool_use"
    called = [block for block in message.content if isinstance(block, ToolUseBlock)]
    assert called
    assert all(isinstance(block.input, dict) and block.input for block in called)
    results: list[MessageParam] = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "21 C"} for block in called],
        },
    ]
    again = client.messages.create(model="fx-ok:n-6", max_tokens=50, messages=results, tools=[WEATHER])
    assert again.stop_reason == "end_turn"


def test_thoughts(client: anthropic.Anthropic) -> None:
    thinking: ThinkingConfigEnabledParam = {"type": "enabled", "budget_tokens": 1024}
    model = "fx-think:think-2_n-3"
    with client.messages.stream(model=model, max_tokens=2000, messages=HELLO, thinking=thinking) as stream:
        message = stream.get_final_message()
    thought, said = message.content
    assert isinstance(thought, ThinkingBlock)
    assert isinstance(said, TextBlock)
    assert thought.thinking
    assert said.text == text_of(3)


def test_pictures(client: anthropic.Anthropic, host: RunningFake) -> None:
    picture: MessageParam = {
        "role": "user",
        "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            {"type": "text", "text": "What is this?"},
        ],
    }
    client.messages.create(model="fx-ok:n-6", max_tokens=50, messages=[picture])
    shown, asked = host.log[-1].body["messages"][0]["content"]
    assert shown == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    assert asked == {"type": "text", "text": "What is this?"}


def test_count_tokens(client: anthropic.Anthropic) -> None:
    assert client.messages.count_tokens(model="fx-ok:n-6", messages=HELLO).input_tokens == 2


def test_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not found") as missing:
        client.messages.create(model="no-such-model", max_tokens=5, messages=HELLO)
    assert missing.value.request_id == missing.value.response.headers["x-olla-request-id"]
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.models.retrieve("no-such-model")
    assert missing.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model="fx-ok:n-6", max_tokens=0, messages=HELLO)
    with pytest.raises(anthropic.InternalServerError) as busy:
        client.messages.create(model="fx-status:c-503", max_tokens=5, messages=HELLO)
    assert busy.value.status_code == 503
    with (
        pytest.raises(anthropic.APIStatusError, match="vllm"),
        client.messages.stream(model="fx-eof:at-2", max_tokens=5, messages=HELLO) as stream,
    ):
        stream.get_final_message()
