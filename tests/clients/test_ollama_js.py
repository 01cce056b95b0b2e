"""The ollama client of npm, unmodified, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import MODEL, QUESTION, WORD

HERE = Path(__file__).parent
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None or not (HERE / "node_modules" / "ollama").is_dir(),
    reason="needs Node and the ollama package of npm: npm install --prefix tests/clients",
)
pytestmark = [pytest.mark.engine, needs_node]


def test_everything_a_client_asks(ollama_url: str) -> None:
    command = [str(NODE), str(HERE / "client.mjs"), ollama_url, MODEL, QUESTION]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=50).stdout)
    assert WORD in told["whole"]
    assert "".join(told["pieces"]) == told["whole"]
    assert len(told["pieces"]) > 1
    assert WORD in told["generated"]
    assert 0 < told["tokens"] <= 12
    assert told["sizes"] == [576, 576]
    assert MODEL in told["models"]
    assert MODEL in told["running"]
    assert told["family"] == "llama"
    assert (told["missing"]["status"], "not found" in told["missing"]["message"]) == (404, True)
