"""ollama-python, unmodified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from tests.clients.conftest import MODEL, QUESTION, WORD
from tests.engine.files import gguf_bytes

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

MESSAGES = [{"role": "user", "content": QUESTION}]
SHORT = {"temperature": 0, "num_predict": 12}


@pytest.fixture
def client(ollama_url: str) -> Iterator[ollama.Client]:
    with ollama.Client(ollama_url) as client:
        yield client


def test_chat(client: ollama.Client) -> None:
    answer = client.chat(MODEL, MESSAGES, options=SHORT)
    assert WORD in (answer.message.content or "")
    assert answer.done
    assert answer.eval_count
    assert answer.prompt_eval_count == 37


def test_chat_stream(client: ollama.Client) -> None:
    whole = client.chat(MODEL, MESSAGES, options=SHORT).message.content
    *pieces, last = client.chat(MODEL, MESSAGES, stream=True, options=SHORT)
    assert len(pieces) > 1
    assert "".join(piece.message.content or "" for piece in pieces) == whole
    assert last.done_reason in ("stop", "length")


async def test_chat_stream_async(ollama_url: str) -> None:
    async with ollama.AsyncClient(ollama_url) as client:
        pieces = [piece async for piece in await client.chat(MODEL, MESSAGES, stream=True, options=SHORT)]
    assert WORD in "".join(piece.message.content or "" for piece in pieces)


def test_generate(client: ollama.Client) -> None:
    answer = client.generate(MODEL, QUESTION, options=SHORT)
    assert WORD in (answer.response or "")
    pieces = list(client.generate(MODEL, QUESTION, stream=True, options=SHORT))
    assert "".join(piece.response or "" for piece in pieces) == answer.response
    assert pieces[-1].context == answer.context
    again = client.generate(MODEL, "And of Italy?", context=answer.context, options=SHORT)
    assert answer.context
    assert again.context
    assert again.context[: len(answer.context)] == answer.context


def test_schema(client: ollama.Client) -> None:
    schema = {"type": "string", "enum": ["Paris", "Rome"]}
    answer = client.chat(MODEL, MESSAGES, format=schema, options={"temperature": 0})
    assert answer.message.content in ('"Paris"', '"Rome"')


def test_embed(client: ollama.Client) -> None:
    vectors = client.embed(MODEL, ["one", "two"]).embeddings
    assert len(vectors) == 2
    assert sum(value * value for value in vectors[0]) == pytest.approx(1, abs=1e-4)
    assert client.embeddings(MODEL, "one").embedding == pytest.approx(vectors[0], abs=1e-4)


def test_what_there_is(client: ollama.Client) -> None:
    assert MODEL in [model.model for model in client.list().models]
    shown = client.show(MODEL)
    assert shown.details is not None
    assert shown.details.family == "llama"
    assert "completion" in (shown.capabilities or [])
    client.generate(MODEL)  # loads
    assert MODEL in [model.model for model in client.ps().models]


def test_another_address(arena_url: str) -> None:
    with ollama.Client(f"{arena_url}/olla/proxy") as client:
        assert MODEL in [model.model for model in client.list().models]
        answer = client.chat(MODEL, MESSAGES, options={"num_predict": 1})
        assert (answer.done_reason, answer.eval_count) == ("length", 1)
        assert len(client.embed(MODEL, "one").embeddings[0]) == 576


def test_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        client.chat("no-such-model", MESSAGES)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="does not support tools"):
        client.chat(MODEL, MESSAGES, tools=[{"type": "function", "function": {"name": "a", "parameters": {}}}])


def test_create_copy_delete(client: ollama.Client) -> None:
    assert client.create("pirate", from_=MODEL, system="You are a pirate.", parameters=SHORT).status == "success"
    assert client.show("pirate").modelfile is not None
    client.copy("pirate", "corsair")
    names = [model.model for model in client.list().models]
    assert {"pirate:latest", "corsair:latest"} <= set(names)
    for name in ("pirate", "corsair"):
        assert client.delete(name).status == "success"
    assert not [model for model in client.list().models if model.model in ("pirate:latest", "corsair:latest")]


def test_create_from_a_file(client: ollama.Client, tmp_path: Path) -> None:
    file = tmp_path / "sent.gguf"
    file.write_bytes(gguf_bytes({"general.architecture": "llama", "general.name": "sent"}))
    digest = client.create_blob(file)
    assert digest == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    statuses = [line.status for line in client.create("sent", files={"sent.gguf": digest}, stream=True)]
    assert statuses[-1] == "success"
    assert (client.show("sent").modelinfo or {})["general.name"] == "sent"
    client.delete("sent")


def test_push_is_refused(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="cannot be pushed"):
        client.push(MODEL)
