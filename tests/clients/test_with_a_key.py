"""The client libraries before an arena with a token and keys: how they bring them, how refusals reach them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
import requests
from anthropic.types import MessageParam
from langchain_ollama import ChatOllama
from openai.types.chat import ChatCompletionUserMessageParam

from arena.keys import FILE, add
from tests.api.conftest import settings_for
from tests.api.served import served
from tests.clients.test_langchain import closing
from tests.clients.test_ollama_js import HERE, NODE, needs_node
from tests.fake_ollama import RunningFake, text_said_by

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-more-than-16-characters"
MODEL = "tiny"
SAID = text_said_by("tiny")
HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
OPENAI_HELLO = [ChatCompletionUserMessageParam(role="user", content="Hello!")]
ANTHROPIC_HELLO: list[MessageParam] = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the arena keeps what it keeps."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def secrets(folder: Path) -> dict[str, str]:
    """The token, and keys that may chat, may not, and may once a minute."""
    path = folder / FILE
    return {
        "token": TOKEN,
        "chatter": add(path, "chatter", scopes=("chat",)),
        "embedder": add(path, "embedder", scopes=("embed",)),
        "once": add(path, "once", scopes=("chat",), per_minute=1),
    }


@pytest.fixture(scope="module")
def url(folder: Path, secrets: dict[str, str], fake_session: RunningFake) -> Iterator[str]:
    """The arena before a fake Ollama."""
    fake_session.reset()
    with served(settings_for(f"fake={fake_session.url}", port=0, token=TOKEN, data=folder)) as port:
        yield f"http://127.0.0.1:{port}/olla"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def openais(url: str, secret: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/openai/v1", api_key=secret, max_retries=0)


def anthropics(url: str, **secret: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=f"{url}/anthropic", max_retries=0, **secret)  # type: ignore[arg-type]


@pytest.mark.parametrize("secret", ["token", "chatter"])
async def test_ollamas_clients_bring_it_in_a_header(url: str, secrets: dict[str, str], secret: str) -> None:
    headers = bearer(secrets[secret])
    with ollama.Client(f"{url}/ollama", headers=headers) as client:
        assert client.chat(MODEL, HELLO).message.content == SAID
        assert "".join(part.message.content or "" for part in client.chat(MODEL, HELLO, stream=True)) == SAID
        assert client.list().models
    model = ChatOllama(model=MODEL, base_url=f"{url}/ollama", client_kwargs={"headers": headers})
    async with closing(model):
        assert model.invoke("Hello!").content == SAID


@needs_node
def test_npms_client_brings_it_in_a_header(url: str, secrets: dict[str, str]) -> None:
    script = (
        'import { Ollama } from "ollama"; const [host, headers] = process.argv.slice(1).map((it) => JSON.parse(it));'
        'const messages = [{ role: "user", content: "Hello!" }];'
        f'const told = await new Ollama({{ host, headers }}).chat({{ model: "{MODEL}", messages }});'
        "console.log(told.message.content);"
        'const refused = await new Ollama({ host, headers }).pull({ model: "x" }).catch((error) => error);'
        "console.log(refused.status_code, refused.message);"
    )
    sent = [json.dumps(f"{url}/ollama"), json.dumps(bearer(secrets["chatter"]))]
    command = [str(NODE), "--input-type=module", "-e", script, *sent]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True, timeout=50)
    told, refused = done.stdout.strip().rsplit("\n", 1)
    assert told == SAID
    assert refused.startswith("403 ")
    assert "needs manage" in refused


@pytest.mark.parametrize("secret", ["token", "chatter"])
def test_the_others_bring_it_as_their_api_key(url: str, secrets: dict[str, str], secret: str) -> None:
    key = secrets[secret]
    with openais(url, key) as client:
        answer = client.chat.completions.create(model=MODEL, messages=OPENAI_HELLO)
        assert answer.choices[0].message.content == SAID
        assert [model.id for model in client.models.list()]
    for way in ("api_key", "auth_token"):  # x-api-key, and Authorization
        with anthropics(url, **{way: key}) as claude:
            assert [model.id for model in claude.models.list()]
            assert claude.models.retrieve(MODEL).id == f"{MODEL}:latest"


def test_a_wrong_token_is_refused_in_the_clients_own_words(url: str) -> None:
    with ollama.Client(f"{url}/ollama", headers=bearer("wrong")) as client:
        with pytest.raises(ollama.ResponseError, match="Invalid authorization token") as told:
            client.chat(MODEL, HELLO)
        assert told.value.status_code == 401
    with openais(url, "wrong") as client_:
        with pytest.raises(openai.AuthenticationError, match="Invalid authorization token") as refused:
            client_.chat.completions.create(model=MODEL, messages=OPENAI_HELLO)
        assert (refused.value.type, refused.value.code) == ("authentication_error", "unauthorized")
        assert refused.value.response.headers["x-olla-request-id"] == refused.value.request_id
    with anthropics(url, api_key="wrong") as claude:
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            claude.messages.create(model=MODEL, max_tokens=5, messages=ANTHROPIC_HELLO)
        assert unknown.value.body == {
            "type": "error",
            "error": {"type": "authentication_error", "message": "Invalid authorization token"},
            "request_id": unknown.value.request_id or unknown.value.response.headers["x-request-id"],
        }


def test_what_a_key_may_not_do_is_refused_in_the_clients_own_words(url: str, secrets: dict[str, str]) -> None:
    with ollama.Client(f"{url}/ollama", headers=bearer(secrets["chatter"])) as client:
        for change in (client.pull, client.push, client.delete):
            with pytest.raises(ollama.ResponseError, match="needs manage") as told:
                change("tiny")
            assert told.value.status_code == 403
    with openais(url, secrets["chatter"]) as client_:
        with pytest.raises(openai.PermissionDeniedError, match="needs embed") as refused:
            client_.embeddings.create(model=MODEL, input="x")
        assert refused.value.type == "permission_error"
    with anthropics(url, api_key=secrets["embedder"]) as claude:
        with pytest.raises(anthropic.PermissionDeniedError) as denied:
            claude.messages.create(model=MODEL, max_tokens=5, messages=ANTHROPIC_HELLO)
        assert denied.value.body["error"]["type"] == "permission_error"  # type: ignore[index]


def test_one_request_too_many_is_refused_in_the_clients_own_words(url: str, secrets: dict[str, str]) -> None:
    with openais(url, secrets["once"]) as client:
        client.chat.completions.create(model=MODEL, messages=OPENAI_HELLO)
        with pytest.raises(openai.RateLimitError, match="1 requests a minute") as refused:
            client.chat.completions.create(model=MODEL, messages=OPENAI_HELLO)
        assert refused.value.type == "rate_limit_error"
        assert int(refused.value.response.headers["retry-after"]) > 50
    with anthropics(url, api_key=secrets["once"]) as claude:
        with pytest.raises(anthropic.RateLimitError) as limited:
            claude.messages.create(model=MODEL, max_tokens=5, messages=ANTHROPIC_HELLO)
        assert limited.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/ollama/api/chat", "native"),
        ("/ollama/api/nothing", "native"),
        ("/ollama/v1/completions", "openai"),
        ("/openai/v1/nothing", "openai"),
        ("/openai/rerank", "openai"),
        ("/proxy/v1/responses", "openai"),
        ("/ollama/v1/messages", "anthropic"),
        ("/anthropic/v1/messages", "anthropic"),
        ("/anthropic/v1/nothing", "anthropic"),
    ],
)
def test_refusals_by_path(url: str, path: str, form: str) -> None:
    told = requests.post(f"{url}{path}", timeout=10)
    body = told.json()
    number = told.headers["x-request-id"]
    text = "Missing or invalid Authorization header"
    assert told.status_code == 401
    if form == "anthropic":
        error = {"type": "authentication_error", "message": text}
        assert body == {"type": "error", "error": error, "request_id": number}
    elif form == "openai":
        error = {"type": "authentication_error", "message": text, "code": "unauthorized", "request_id": number}
        assert body == {"error": {**error, "param": None}}
    else:
        assert body == {"error": text, "code": "unauthorized", "request_id": number}
    assert told.headers["x-olla-request-id"] == number
    assert told.headers["x-olla-backend-type"] == ("ollama" if path.startswith("/ollama/") else "openai")
    assert told.headers["x-olla-routing-reason"] == "unauthorized"


def test_the_apis_own_refusals_stay_as_they_are(url: str) -> None:
    told = requests.post(f"{url.removesuffix('/olla')}/api/chat", timeout=10)
    assert told.json() == {"error": "Missing or invalid Authorization header", "code": "unauthorized"}
    assert "x-olla-request-id" not in told.headers
