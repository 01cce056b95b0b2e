"""Every way a server can fail, as with OllamaClient: one failure that is told, the text kept, nobody else harmed."""

from __future__ import annotations

import pytest

from arena.openai import OpenAIClient
from arena.wire import Timeouts
from tests import asking
from tests.asking import SOUND, Fault, answers_exactly, ask, client_at, fails_alone, stops
from tests.fake_ollama import FakeOllama, text_of

pytestmark = pytest.mark.anyio

FAULTS: dict[str, Fault] = asking.FAULTS | {
    "fx-status:c-404_kind-text": ("not_openai", "does not know this address", 0),
    "fx-html": ("not_openai", "answered with a web page", 0),
    "fx-html:c-502": ("not_openai", "answered with a web page", 0),
    "fx-badjson:n-5": ("malformed", "not the JSON of OpenAI's API", 5),
    "fx-deep:n-5": ("malformed", "not the JSON of OpenAI's API", 0),
    "fx-bigline:mb-9": ("line_too_long", "an event of more than 8 MiB", 0),
}


@pytest.mark.parametrize("model", FAULTS)
async def test_a_fault_is_one_columns_failure_and_nothing_else(fake: FakeOllama, model: str) -> None:
    await fails_alone(OpenAIClient, fake, model, FAULTS[model])


@pytest.mark.parametrize("model", SOUND)
async def test_an_odd_but_sound_answer_is_exact(fake: FakeOllama, model: str) -> None:
    await answers_exactly(OpenAIClient, fake, model)


async def test_limits_of_bytes_and_of_time(fake: FakeOllama) -> None:
    async with client_at(OpenAIClient, fake, max_bytes=50_000) as client:
        (reply,) = await ask(client, "fx-endless")
        assert reply.error is not None
        assert (reply.error.code, reply.error.message) == ("budget_exceeded", "The answer was cut at 50000 bytes.")
    async with client_at(OpenAIClient, fake, timeouts=Timeouts(total_s=0.3)) as client:
        (reply,) = await ask(client, "fx-stall:n-2")
        assert reply.error is not None
        assert reply.error.code == "budget_exceeded"
        assert reply.text == text_of(2)


@pytest.mark.parametrize("model", ["fx-hang", "fx-stall:n-2"])
async def test_stopping_frees_the_server_at_once(fake: FakeOllama, model: str) -> None:
    await stops(OpenAIClient, fake, model)
