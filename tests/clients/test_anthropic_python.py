"""anthropic, unmodified. Its newest version has no word for temperature; it goes along as an extra."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest
from anthropic.types import MessageParam, TextBlock

from tests.clients.conftest import MODEL, QUESTION, WORD

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

MESSAGES: list[MessageParam] = [{"role": "user", "content": QUESTION}]
COLD = {"temperature": 0}


@pytest.fixture
def client(anthropic_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=anthropic_url, api_key="none", max_retries=0) as client:
        yield client


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


def test_messages(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=12, messages=MESSAGES, extra_body=COLD)
    assert WORD in text_of(message)
    assert message.stop_reason in ("end_turn", "max_tokens")
    cached = message.usage.cache_read_input_tokens or 0
    assert message.usage.input_tokens + cached == 37
    assert 0 < message.usage.output_tokens <= 12


def test_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model=MODEL, max_tokens=12, messages=MESSAGES, extra_body=COLD) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == text_of(message)
    assert message.usage.output_tokens > 0


async def test_stream_async(anthropic_url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=anthropic_url, api_key="none") as client:
        stream = await client.messages.create(
            model=MODEL, max_tokens=12, messages=MESSAGES, system="Be brief.", stream=True, extra_body=COLD
        )
        kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


def test_stop_sequence(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=MODEL, max_tokens=30, messages=MESSAGES, stop_sequences=["two", "three"], extra_body=COLD
    )
    assert message.stop_reason == "stop_sequence"
    assert message.stop_sequence == "two"
    assert message.stop_sequence not in text_of(message)


def test_count_tokens(client: anthropic.Anthropic) -> None:
    assert client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens == 37


def test_models(client: anthropic.Anthropic) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).display_name == MODEL
    with pytest.raises(anthropic.NotFoundError, match="not found"):
        client.models.retrieve("no-such-model")


@pytest.mark.parametrize("prefix", ["ollama", "openai", "proxy"])
def test_other_addresses(arena_url: str, prefix: str) -> None:
    with anthropic.Anthropic(base_url=f"{arena_url}/olla/{prefix}", api_key="none", max_retries=0) as client:
        assert client.messages.create(model=MODEL, max_tokens=1, messages=MESSAGES).stop_reason == "max_tokens"
        beta = client.beta.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": QUESTION}])
        assert beta.stop_reason == "max_tokens"
        assert client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens == 37


def test_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not found"):
        client.messages.create(model="no-such-model", max_tokens=5, messages=MESSAGES)
    with pytest.raises(anthropic.BadRequestError, match="does not support tools"):
        client.messages.create(
            model=MODEL, max_tokens=5, messages=MESSAGES, tools=[{"name": "add", "input_schema": {"type": "object"}}]
        )
