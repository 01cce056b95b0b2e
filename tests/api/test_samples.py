"""Every curl, Python and JavaScript sample of both clients' documents, run as it stands. Only the port is another."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import settings_for
from tests.api.served import served
from tests.fake_ollama import DEFAULT_MODELS, RunningFake, text_said_by

SEEDS = Path(__file__).parent / "seeds"
V2 = (SEEDS / "arena-api-v2.txt").read_text(encoding="utf-8")
V3 = (SEEDS / "arena-api-v3.txt").read_text(encoding="utf-8")
TOKEN = "your-token"
SAID = text_said_by("llama3.2:3b")
RELATIVE = "const far = fetch; globalThis.fetch = (path, options) => far(process.env.BASE + path, options);\n"


def fenced(language: str) -> list[str]:
    """The code blocks of the older document."""
    return re.findall(rf"```{language}\n(.*?)```", V2, re.DOTALL)


def between(start: str, end: str) -> str:
    """What the newer document says between two of its lines; its blocks have no fences."""
    return V3.partition("\nList models:\n")[2].partition(start)[2].partition(end)[0]


def curls() -> dict[str, str]:
    """All curl samples by name."""
    old = dict(zip(("list", "chat", "stream"), fenced("bash"), strict=True))
    new = {
        "list": V3.partition("\nList models:\n")[2].partition("Chat with authentication:\n")[0],
        "chat": between("Chat with authentication:\n", "Stream chat:\n"),
        "stream": between("Stream chat:\n", "import requests"),
    }
    return {f"v2 {name}": text for name, text in old.items()} | {f"v3 {name}": text for name, text in new.items()}


def python_v3() -> str:
    return "import requests" + between("import requests", "// List models")


def scripts() -> dict[str, str]:
    """The JavaScript samples, one by one: each declares `response` anew."""
    found: dict[str, str] = {}
    for name, text in (("v2", fenced("javascript")[0]), ("v3", "// List models" + between("// List models", "\0"))):
        parts = re.split(r"^// ", text, flags=re.MULTILINE)[1:]
        assert [part.partition("\n")[0] for part in parts] == ["List models", "Chat", "Stream chat"]
        found |= {f"{name} {part.partition(chr(10))[0]}": part.partition("\n")[2] for part in parts}
    return found


@pytest.fixture(scope="module")
def port(fake_session: RunningFake) -> Iterator[int]:
    fake_session.reset()
    with served(settings_for(fake_session.url, port=0)) as port:
        yield port


def stripped(code: str) -> list[str]:
    return [line.strip() for line in code.splitlines() if line.strip()]


def curl(sample: str, port: int) -> str:
    """What a curl sample prints."""
    command = (
        sample.strip().replace("localhost:7860", f"localhost:{port}").replace("curl ", "curl -sS --max-time 20 ", 1)
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_stream(lines: list[dict[str, Any]]) -> None:
    assert "".join(line["token"] for line in lines) == SAID
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert {line["model"] for line in lines} == {"llama3.2:3b"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("name", curls())
def test_curl(name: str, port: int) -> None:
    said = curl(curls()[name], port)
    if name.endswith("list"):
        assert json.loads(said)["models"] == sorted(DEFAULT_MODELS)
    elif name.endswith("chat"):
        assert json.loads(said)["response"] == SAID
    else:
        check_stream([json.loads(line) for line in said.split("\n")[:-1]])


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("name", ["v2 chat", "v3 chat"])
def test_curl_with_a_token(name: str, fake_session: RunningFake) -> None:
    with served(settings_for(fake_session.url, port=0, token=TOKEN)) as port:
        assert json.loads(curl(curls()[name], port))["response"] == SAID
        refused = json.loads(curl(curls()[name].replace(TOKEN, "another"), port))
        assert refused["error"] == "Invalid authorization token"


def test_python(port: int) -> None:
    (sample,) = fenced("python")
    assert stripped(sample) == stripped(python_v3()), "both documents show the same program"
    printed = StringIO()
    names: dict[str, Any] = {"json": json}  # the samples forget to import it
    with redirect_stdout(printed):
        exec(compile(sample.replace(":7860", f":{port}"), "sample", "exec"), names)
    assert names["models"] == sorted(DEFAULT_MODELS)
    assert names["result"]["response"] == SAID
    assert printed.getvalue().replace("llama3.2:3b ", "") == SAID


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("name", scripts())
def test_javascript(name: str, port: int) -> None:
    result = {"List models": "models", "Chat": "result.response"}.get(name[3:])
    tail = f"\nconsole.log(JSON.stringify({result}));" if result else ""
    done = subprocess.run(
        ["node", "--input-type=module", "-"],
        input=RELATIVE + scripts()[name] + tail,
        env={"BASE": f"http://localhost:{port}", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if name.endswith("List models"):
        assert json.loads(done.stdout) == sorted(DEFAULT_MODELS)
    elif result:
        assert json.loads(done.stdout) == SAID
    else:
        printed = done.stdout.replace("llama3.2:3b ", "").split("\n")[:-2]
        assert "".join(printed) == SAID
