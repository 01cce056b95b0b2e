"""One server for the real client libraries: the base URL of an Ollama-speaking server that has SmolLM2.

For now it is the embedded engine itself; whatever serves Ollama's, OpenAI's and Anthropic's routes below one base URL
can stand here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.files import smollm2

MODEL = "smollm2:135m"
QUESTION = "Count: one, two, three"
WORD = "two"
END_S = 20


@pytest.fixture(scope="session")
def olla_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL, without a slash at its end. The model is loaded once for all tests."""
    weights = smollm2()
    if weights is None:
        pytest.skip("SmolLM2 is not here: run `python -m arena.engine setup`")
    data = tmp_path_factory.mktemp("data")
    link = data / "models" / "smollm2" / "135m.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(weights)
    yield from _engine(data)


def _engine(data: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "arena.engine", "--port", "0", "--data", str(data), "--no-fetch", "--watch-parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.stdin.close()  # it ends with its standard input
            process.wait(END_S)
