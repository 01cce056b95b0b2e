"""The client libraries before an arena with three Ollamas: they cannot tell it from one that has everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
import requests
from msgspec import Struct

from arena.settings import load
from tests.api.served import served
from tests.fake_ollama import RunningFake, running_fake, text_said_by

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
GATED = "fx-gate:n-9_id-a"
HELD = {
    "one": ("tiny:latest", "llama3.2:3b"),
    "two": ("tiny:latest", "mistral:7b", GATED),
    "three": ("qwen2.5:7b",),
}
EVERYTHING = sorted({name for names in HELD.values() for name in names})


class Fleet(Struct, frozen=True):
    """The arena's address, and what is behind it. `stop` ends one of the hosts."""

    url: str
    hosts: dict[str, RunningFake]
    running: dict[str, ExitStack]

    def stop(self, name: str) -> None:
        """It is gone."""
        self.running[name].close()

    def ollama(self, **headers: str) -> ollama.Client:
        """Ollama's client."""
        return ollama.Client(f"{self.url}/olla/ollama", headers=headers)

    def asked(self, path: str) -> set[str]:
        """The hosts that were asked for something."""
        return {name for name, host in self.hosts.items() if any(record.path == path for record in host.log)}


@contextmanager
def fleets(folder: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        running = {name: stack.enter_context(ExitStack()) for name in HELD}
        hosts = {name: running[name].enter_context(running_fake(held)) for name, held in HELD.items()}
        endpoints = "".join(f"  - {{name: {name}, url: '{host.url}'}}\n" for name, host in hosts.items())
        file = folder / "fleet.yaml"
        file.write_text(f"endpoints:\n{endpoints}aliases:\n  fast: tiny\n", encoding="utf-8")
        settings = load(port=0, engine="off", data=folder, fleet=file, drain_s=0.2)
        port = stack.enter_context(served(settings))
        yield Fleet(f"http://127.0.0.1:{port}", hosts, running)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleets(tmp_path) as fleet:
        yield fleet


def names(client: ollama.Client) -> list[str]:
    return [str(model.model) for model in client.list().models]


def test_everything_is_where_it_is(fleet: Fleet) -> None:
    with fleet.ollama() as client:
        assert names(client) == sorted([*EVERYTHING, "fast"])
        for name, host in (("llama3.2:3b", "one"), ("mistral:7b", "two"), ("qwen2.5:7b", "three")):
            for running in fleet.hosts.values():
                running.call(running.fake.log.clear)
            assert client.chat(name, HELLO).message.content == text_said_by(name)
            assert client.show(name).details is not None
            assert len(client.embed(name, "x").embeddings) == 1
            for path in ("/api/chat", "/api/show", "/api/embed"):
                assert fleet.asked(path) == {host}
        loaded = requests.get(f"{fleet.url}/olla/ollama/api/ps", timeout=10).json()["models"]
        assert {(entry["name"], entry["host"]) for entry in loaded} >= {("mistral:7b", "two"), ("qwen2.5:7b", "three")}
        assert {"mistral:7b", "qwen2.5:7b"} <= {model.model for model in client.ps().models}
        assert client.chat("fast", HELLO).message.content == text_said_by("tiny")
    with openai.OpenAI(base_url=f"{fleet.url}/olla/openai/v1", api_key="none", max_retries=0) as gpt:
        assert sorted(model.id for model in gpt.models.list()) == sorted([*EVERYTHING, "fast"])
        answer = gpt.chat.completions.create(model="qwen2.5:7b", messages=HELLO)
        assert answer.choices[0].message.content == text_said_by("qwen2.5:7b")
    with anthropic.Anthropic(base_url=f"{fleet.url}/olla/anthropic", api_key="none", max_retries=0) as claude:
        assert sorted(model.id for model in claude.models.list()) == sorted([*EVERYTHING, "fast"])


def test_models_are_changed_where_they_are_or_everywhere(fleet: Fleet) -> None:
    with fleet.ollama() as client:
        client.pull("phi3")
        assert "phi3:latest" in fleet.hosts["one"].models  # the default host is the first
        client.copy("mistral:7b", "mine")
        client.create("pirate", from_="qwen2.5:7b", system="Arr.")
        held = {name: set(host.models) - set(HELD[name]) for name, host in fleet.hosts.items()}
        assert held == {"one": {"phi3:latest"}, "two": {"mine:latest"}, "three": {"pirate:latest"}}
        for name in ("phi3", "mine", "pirate"):
            assert client.delete(name).status == "success"
        assert names(client) == sorted([*EVERYTHING, "fast"])
        with pytest.raises(ollama.ResponseError, match="not found") as gone:
            client.delete("phi3")
        assert gone.value.status_code == 404

    with fleet.ollama(**{"X-Olla-Endpoint": "all"}) as client:
        told = list(client.pull("phi3", stream=True))
        assert told[-1].status == "success"
        assert all("phi3:latest" in host.models for host in fleet.hosts.values())
        assert client.delete("phi3").status == "success"
        assert not any("phi3:latest" in host.models for host in fleet.hosts.values())


def test_a_host_that_stops_in_the_middle(fleet: Fleet) -> None:
    fleet.hosts["two"].release("a", 2)
    with fleet.ollama() as client:
        stream = client.chat(GATED, HELLO, stream=True)
        assert all(next(stream).message.content for _ in range(2))
        fleet.stop("two")
        with pytest.raises(ollama.ResponseError, match="two"):  # what was said cannot be unsaid: an error, not an end
            list(stream)
        for _ in range(3):
            for name in ("tiny", "llama3.2:3b", "qwen2.5:7b"):
                assert client.chat(name, HELLO).message.content == text_said_by(name)
        assert {"tiny:latest", "llama3.2:3b", "qwen2.5:7b"} <= set(names(client))
        with pytest.raises(ollama.ResponseError) as lost:
            client.chat("mistral:7b", HELLO)
        assert lost.value.status_code in (502, 503)  # it was refused just now, or is known to be gone
