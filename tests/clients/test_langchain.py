"""langchain-ollama, unmodified; only the clients that it never closes are closed for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM

from tests.clients.conftest import MODEL, QUESTION, WORD

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@asynccontextmanager
async def closing(model: ChatOllama | OllamaLLM | OllamaEmbeddings) -> AsyncIterator[None]:
    """Close the model's two clients in the end."""
    try:
        yield
    finally:
        if model._client is not None:
            model._client.close()  # type: ignore[no-untyped-call]
        if model._async_client is not None:
            await model._async_client.close()  # type: ignore[no-untyped-call]


async def test_chat(ollama_url: str) -> None:
    model = ChatOllama(model=MODEL, base_url=ollama_url, temperature=0, num_predict=12, validate_model_on_init=True)
    async with closing(model):
        answer = model.invoke(QUESTION)
        assert WORD in str(answer.content)
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["input_tokens"] == 37
        assert "".join(str(piece.content) for piece in model.stream(QUESTION)) == answer.content
        assert (await model.ainvoke(QUESTION)).content == answer.content


async def test_llm(ollama_url: str) -> None:
    model = OllamaLLM(model=MODEL, base_url=ollama_url, temperature=0, num_predict=12)
    async with closing(model):
        assert WORD in model.invoke(QUESTION)


async def test_embeddings(ollama_url: str) -> None:
    model = OllamaEmbeddings(model=MODEL, base_url=ollama_url)
    async with closing(model):
        one, two = model.embed_documents(["one", "two"])
        assert len(one) == len(two) == 576
