"""Every curl sample of the proxy's document, run as it stands but for the port, and the answers it shows.

Once with a fake Ollama behind, which says what Ollama says, and once with the embedded engine.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from msgspec import Struct

from tests.api.conftest import settings_for
from tests.api.served import served
from tests.clients.conftest import MODEL
from tests.fake_ollama import RunningFake, running_fake

SEED = (Path(__file__).parent / "seeds" / "olla-ollama-api.txt").read_text(encoding="utf-8")
MODELS = ("llama3.2:latest", "mistral:latest", "nomic-embed-text")
SAMPLES = {
    found[1]: (found[2], json.loads(found[3].replace(", ...]", "]")), found[4])
    for found in re.finditer(
        r"^(?:GET|POST) (/olla/ollama/\S+)\n\n[^\n]+\n\nRequest\n\n(curl .*?)\n\nResponse\n\n(\{.*?^\})$"
        r"(.*?)(?=\n\n(?:GET|POST|Model) )",
        SEED,
        re.MULTILINE | re.DOTALL,
    )
}
"""The curl, the answer and what follows it, by path."""
STREAMED = [path for path, (_, _, rest) in SAMPLES.items() if '"stream": true' in rest]
ROUTES = re.findall(r"^ *(?:• )?(GET|POST|DELETE) (/olla/ollama/\S*) (?:- )?[A-Z]", SEED, re.MULTILINE)
ANSWER_HEADERS = re.findall(r"• (X-\S+)", SEED.partition("Response Headers")[2])
REQUEST_HEADERS = re.findall(r"• (X-\S+)", SEED.partition("Request Headers")[2].partition("Response Headers")[0])

# What the document says otherwise than Ollama itself, whose bytes are passed on; the engine sends most of it
NOT_OLLAMAS = {
    "general.file_type: int instead of str",
    *(f"{field} is missing" for field in ("model", "total_duration", "load_duration", "prompt_eval_count")),
    "logprobs is missing",
    "general.quantization_version is missing",
}
# A number in every Ollama
NOT_THE_ENGINES = {"general.file_type: int instead of str"}

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
]


class Got(Struct, frozen=True):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: str


def curl(command: str, url: str) -> Got:
    """Run a sample."""
    command = command.replace("http://localhost:40114", url).replace(
        "curl ", "curl -sS -D /dev/stderr --max-time 40 ", 1
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stderr.partition("\n\n")[0].split("\n")
    return Got(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), done.stdout)


def asked(method: str, path: str, url: str, **body: Any) -> Got:
    """A request in the manner of the samples."""
    sent = f" -H 'Content-Type: application/json' -d '{json.dumps(body)}'" if body else ""
    return curl(f"curl -X {method} http://localhost:40114/olla/ollama{path}{sent}", url)


def differences(documented: Any, got: Any, name: str = "the answer") -> Iterator[str]:
    """What is not as documented: a field that is missing, a value of another type."""
    if documented is None:
        return
    if isinstance(documented, float) and isinstance(got, int):
        got = float(got)
    if type(documented) is not type(got):
        yield f"{name}: {type(got).__name__} instead of {type(documented).__name__}"
    elif isinstance(documented, dict):
        for key, value in documented.items():
            if key in got:
                yield from differences(value, got[key], key)
            else:
                yield f"{key} is missing"
    elif isinstance(documented, list) and documented:
        if not got:
            yield f"{name} is empty"
        for item in got:
            yield from differences(documented[0], item, name)


@pytest.fixture(scope="module")
def fake() -> Iterator[RunningFake]:
    with running_fake(MODELS) as fake:
        yield fake


@pytest.fixture(scope="module")
def fake_url(fake: RunningFake) -> Iterator[str]:
    """An arena with a fake Ollama behind."""
    with served(settings_for(f"local-ollama={fake.url}", port=0)) as port:
        yield f"http://localhost:{port}"


@pytest.fixture(scope="module")
def engine_url(arena_url: str) -> Iterator[str]:
    """The arena with the engine, where the document's models are other names of ours."""
    with ollama.Client(f"{arena_url}/olla/ollama") as client:
        for name in MODELS:
            client.create(name, from_=MODEL, parameters={"num_predict": 4, "top_p": 0.9, "stop": ["."]})
        yield arena_url
        for name in MODELS:
            client.delete(name)


@pytest.fixture(params=["fake", "engine"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


def test_the_document_was_read() -> None:
    assert len(SAMPLES) == SEED.count("curl ") == 6
    assert STREAMED == ["/olla/ollama/api/generate", "/olla/ollama/v1/chat/completions"]
    assert (len(ROUTES), len(ANSWER_HEADERS), len(REQUEST_HEADERS)) == (22, 4, 4)


@pytest.mark.parametrize("path", SAMPLES)
def test_sample(path: str, url: str) -> None:
    command, documented, _ = SAMPLES[path]
    got = curl(command, url)
    assert got.status == 200, got.body
    found = set(differences(documented, json.loads(got.body)))
    assert found <= (NOT_OLLAMAS if "localhost" in url else NOT_THE_ENGINES)
    for name in ANSWER_HEADERS:
        assert got.headers[name.lower()]
    assert got.headers["x-olla-backend-type"] == "ollama"
    if '"model"' in command:
        assert got.headers["x-olla-model"] == re.findall(r'"model": "(.*?)"', command)[0]


@pytest.mark.parametrize("path", STREAMED)
def test_sample_streamed(path: str, url: str) -> None:
    command, _, rest = SAMPLES[path]
    command = command.replace('"stream": false', '"stream": true').replace('"max_tokens": 100', '"max_tokens": 5')
    got = curl(command, url)
    documented = [line for line in rest.split("\n") if line.startswith(("{", "data: "))]
    told = [line for line in got.body.split("\n") if line]
    if path.endswith("completions"):
        assert (documented.pop(), told.pop()) == ("data: [DONE]", "data: [DONE]")
        assert not [*differences(json.loads(documented[0][6:]), json.loads(told[0][6:]))]
        assert json.loads(told[-1][6:])["choices"][0]["finish_reason"] in ("stop", "length")
        return
    first, *_, last = [json.loads(line) for line in documented]
    assert len(told) > 1
    for line in told[:-1]:
        assert not [*differences(first, json.loads(line))]
    assert not [*differences(last, json.loads(told[-1]))]


@pytest.mark.parametrize("path", [path for path in SAMPLES if not path.endswith(("tags", "show"))])
def test_what_an_ollama_is_told_of_the_request(path: str, fake: RunningFake, fake_url: str) -> None:
    fake.reset()
    curl(SAMPLES[path][0], fake_url)
    (record,) = [record for record in fake.log if record.path == path.removeprefix("/olla/ollama")]
    sent = {name.lower(): value for name, value in record.headers.items()}
    assert all(sent[name.lower()] for name in REQUEST_HEADERS)
    assert (sent["x-forwarded-for"], sent["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert sent["x-forwarded-host"] == fake_url.removeprefix("http://")


@pytest.mark.parametrize(("method", "path"), dict.fromkeys(ROUTES))
def test_every_documented_route_is_there(method: str, path: str, fake_url: str) -> None:
    got = asked(method, path.removeprefix("/olla/ollama"), fake_url, model="nowhere")
    assert got.status not in (405, 500, 501, 502, 503)
    assert got.status != 404 or "nowhere" in got.body
    for name in ANSWER_HEADERS:
        assert got.headers[name.lower()]


def test_managing_models_in_the_manner_of_the_samples(fake_url: str) -> None:
    def ask(method: str, path: str, **body: Any) -> list[Any]:
        got = asked(method, path, fake_url, **body)
        assert got.status == 200, got.body
        assert got.headers["x-olla-endpoint"] in ("local-ollama", "none")
        return [json.loads(line) for line in got.body.split("\n") if line]

    def names() -> set[str]:
        return {entry["name"] for entry in ask("GET", "/api/tags")[0]["models"]}

    before = names()
    pulled = ask("POST", "/api/pull", model="phi3")
    assert pulled[-1] == {"status": "success"}
    assert any(line.get("completed") for line in pulled)
    assert ask("POST", "/api/pull", name="phi3", stream=False) == [{"status": "success"}]
    assert ask("POST", "/api/copy", source="phi3", destination="me/mine") == []
    assert ask("POST", "/api/create", model="pirate", **{"from": "phi3"}, system="Arr.")[-1] == {"status": "success"}
    assert names() == before | {"phi3:latest", "me/mine:latest", "pirate:latest"}
    assert ask("POST", "/api/push", model="me/mine")[-1] == {"status": "success"}
    ask("POST", "/api/generate", model="phi3")
    running = [entry for entry in ask("GET", "/api/ps")[0]["models"] if entry["name"] == "phi3:latest"]
    assert [entry["host"] for entry in running] == ["local-ollama"]
    for name in ("phi3", "me/mine", "pirate"):
        ask("DELETE", "/api/delete", model=name)
    assert names() == before
    gone = asked("POST", "/api/show", fake_url, model="phi3")
    assert (gone.status, "not found" in json.loads(gone.body)["error"]) == (404, True)
