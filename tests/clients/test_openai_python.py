"""openai, unmodified."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.clients.conftest import MODEL, QUESTION, WORD

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

MESSAGES = [ChatCompletionUserMessageParam(role="user", content=QUESTION)]


@pytest.fixture
def client(openai_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=openai_url, api_key="none", max_retries=0) as client:
        yield client


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=12)
    assert WORD in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (37, 37 + answer.usage.completion_tokens)


def test_chat_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            temperature=0,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert WORD in text
    assert chunks[-1].usage is not None
    assert 0 < chunks[-1].usage.completion_tokens <= 12


async def test_chat_stream_async(openai_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=openai_url, api_key="none") as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, max_tokens=12, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert WORD in text


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=QUESTION, temperature=0, max_tokens=12)
    assert WORD in answer.choices[0].text
    stream = client.completions.create(model=MODEL, prompt=QUESTION, temperature=0, max_tokens=12, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=["one", "two"])
    assert [len(item.embedding) for item in answer.data] == [576, 576]
    assert answer.usage.prompt_tokens > 0


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=12)
    assert WORD in answer.output_text
    assert answer.usage is not None
    assert answer.usage.total_tokens == 37 + answer.usage.output_tokens
    assert answer.status in ("completed", "incomplete")


def test_responses_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=QUESTION, instructions="Be brief.", temperature=0) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") > 1
    assert answer.output_text


def test_models(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.models.retrieve("no-such-model")


@pytest.mark.parametrize("prefix", ["ollama", "proxy"])
def test_other_addresses(arena_url: str, prefix: str) -> None:
    with openai.OpenAI(base_url=f"{arena_url}/olla/{prefix}/v1", api_key="none", max_retries=0) as client:
        assert MODEL in [model.id for model in client.models.list()]
        assert client.models.retrieve(MODEL).id == MODEL
        stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2, stream=True)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        assert client.completions.create(model=MODEL, prompt=QUESTION, max_tokens=8, temperature=0).choices[0].text
        assert len(client.embeddings.create(model=MODEL, input="one").data[0].embedding) == 576
        assert client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=1).status == "incomplete"
        with pytest.raises(openai.NotFoundError, match="not found"):
            client.chat.completions.create(model="no-such-model", messages=MESSAGES)


def test_what_no_server_here_can_serve_is_asked_once(openai_url: str) -> None:
    asked: list[object] = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [asked.append]})
    with openai.OpenAI(base_url=openai_url, api_key="none", max_retries=2, http_client=http) as client:
        with pytest.raises(openai.InternalServerError, match="type openai"):
            client.images.generate(model="any", prompt="A cat")
        assert len(asked) == 1


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=[])
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
