"""One arena for the real client libraries: `python arena_app.py` with the embedded engine and SmolLM2 behind it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.files import smollm2

ROOT = Path(__file__).resolve().parents[2]
MODEL = "smollm2:135m"
QUESTION = "Count: one, two, three"
WORD = "two"
END_S = 60
READY = "running on "


@pytest.fixture(scope="session")
def arena_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The arena's address, without a slash at its end. The model is loaded once for all tests."""
    weights = smollm2()
    if weights is None:
        pytest.skip("SmolLM2 is not here: run `python -m arena.engine setup`")
    data = tmp_path_factory.mktemp("data")
    link = data / "models" / "smollm2" / "135m.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(weights)
    settings = {"ARENA_PORT": "0", "ARENA_ENGINE": "on", "ARENA_DATA": str(data), "ARENA_DRAIN": "0.2"}
    with subprocess.Popen(
        [sys.executable, ROOT / "arena_app.py"],
        env={**os.environ, **settings},
        cwd=data,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            log: list[str] = []
            while READY not in (line := process.stdout.readline()):
                assert line, f"the arena ended before it listened:\n{''.join(log)}"
                log.append(line)
            url = line.partition(READY)[2].split()[0].rstrip("/")
            # a log that nobody reads would stop the server
            rest = threading.Thread(target=deque, args=(process.stdout, 0))
            rest.start()
            yield url
        finally:
            process.terminate()
            process.wait(END_S)
        rest.join(END_S)


@pytest.fixture(scope="session")
def ollama_url(arena_url: str) -> str:
    """The base URL for Ollama's clients."""
    return f"{arena_url}/olla/ollama"


@pytest.fixture(scope="session")
def openai_url(arena_url: str) -> str:
    """The base URL for OpenAI's clients."""
    return f"{arena_url}/olla/openai/v1"


@pytest.fixture(scope="session")
def anthropic_url(arena_url: str) -> str:
    """The base URL for Anthropic's clients."""
    return f"{arena_url}/olla/anthropic"
