"""A fake Ollama for tests: the model's name chooses how each request goes, well or badly."""

from __future__ import annotations

from tests.fake_ollama.catalogue import DEFAULT_MODELS
from tests.fake_ollama.exchange import Record
from tests.fake_ollama.oracle import checksum, text_of, tokens_of
from tests.fake_ollama.plan import parse
from tests.fake_ollama.scenarios import SCENARIOS
from tests.fake_ollama.server import FakeOllama, Faults, Late
from tests.fake_ollama.texts import said_by
from tests.fake_ollama.threaded import RunningFake, running_fake

__all__ = [
    "DEFAULT_MODELS",
    "SCENARIOS",
    "FakeOllama",
    "Faults",
    "Late",
    "Record",
    "RunningFake",
    "checksum",
    "running_fake",
    "text_of",
    "text_said_by",
    "tokens_of",
]


def text_said_by(model: str, canary_url: str = "http://127.0.0.1:9") -> str:
    """The whole text that a request to `model` is answered with when nothing limits or cuts it."""
    return "".join(said_by(parse(model, SCENARIOS), canary_url))
