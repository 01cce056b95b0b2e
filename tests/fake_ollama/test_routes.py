"""Ollama's routes besides a good chat: lists, keeping models, rejections, embeddings, OpenAI's shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fake_ollama import DEFAULT_MODELS, FakeOllama, text_of
from tests.fake_ollama.raw import Answer, ask, ask_chat, chat, connect, exchange, request

pytestmark = pytest.mark.anyio


# facts and lists


async def test_liveness_version_and_plain_text_errors(fake: FakeOllama) -> None:
    root = await ask(fake, "GET", "/")
    assert (root.status, root.body) == (200, b"Ollama is running")
    head = await ask(fake, "HEAD", "/api/tags")
    assert (head.status, head.framed, int(head.headers["content-length"]) > 100) == (200, b"", True)
    assert (await ask(fake, "GET", "/api/version")).json == {"version": "0.32.15"}
    for method, path, status, text in (
        ("GET", "/api/nope", 404, b"404 page not found"),
        ("GET", "/api/chat", 405, b"405 method not allowed"),
        ("DELETE", "/api/blobs/sha256:aa", 405, b"405 method not allowed"),
    ):
        answer = await ask(fake, method, path)
        assert (answer.status, answer.body, answer.headers["content-type"][:10]) == (status, text, "text/plain")
    assert (await ask(fake, "POST", "/api/blobs/sha256:aa", b"GGUF")).status == 404
    assert fake.log[-1].body == b"GGUF"


async def test_tags_have_ollamas_shape(fake: FakeOllama) -> None:
    models = (await ask(fake, "GET", "/api/tags")).json["models"]
    assert [model["name"] for model in models] == list(DEFAULT_MODELS)
    item = models[2]
    assert set(item) == {"name", "model", "modified_at", "size", "digest", "details", "capabilities"}
    assert len(item["digest"]) == 64
    assert 1_500_000_000 < item["size"] < 2_500_000_000
    assert item["details"]["family"] == "llama"
    assert item["details"]["context_length"] == 8192
    openai = (await ask(fake, "GET", "/v1/models")).json
    assert [item["id"] for item in openai["data"]] == list(DEFAULT_MODELS)
    fake.state(models=[])
    assert (await ask(fake, "GET", "/api/tags")).json == {"models": []}
    assert (await ask(fake, "GET", "/v1/models")).json["data"] is None


async def test_show(fake: FakeOllama) -> None:
    for name in ("tiny", "TINY:latest", "fx-status:c-500", "fx-hang"):
        assert (await ask(fake, "POST", "/api/show", {"model": name})).status == 200
    shown = (await ask(fake, "POST", "/api/show", {"name": "fx-think"})).json
    assert shown["capabilities"] == ["completion", "thinking"]
    assert "/home/secret/" in shown["modelfile"]
    assert [value for key, value in shown["model_info"].items() if key.endswith(".context_length")] == [8192]
    for model, status, text in (
        ("nosuch", 404, "model 'nosuch:latest' not found"),
        ("", 400, "model is required"),
        ("a b", 400, "invalid model name"),
        ("fx-status:c-500_on-show", 500, "an error was encountered while running the model: unexpected EOF"),
    ):
        answer = await ask(fake, "POST", "/api/show", {"model": model})
        assert (answer.status, answer.json) == (status, {"error": text})
    assert (await ask_chat(fake, "fx-status:c-500_on-show")).status == 200


async def test_loading_unloading_and_ps(fake: FakeOllama) -> None:
    assert (await ask(fake, "GET", "/api/ps")).json == {"models": []}
    loaded = await ask(fake, "POST", "/api/chat", {"model": "tiny", "keep_alive": -1})
    assert (loaded.json["done_reason"], loaded.json["message"]["content"]) == ("load", "")
    await ask_chat(fake, "fx-ok:n-1", options={"num_ctx": 2048})
    tiny, ok = (await ask(fake, "GET", "/api/ps")).json["models"]
    assert (tiny["name"], tiny["context_length"], tiny["expires_at"] > "2300") == ("tiny:latest", 8192, True)
    assert (ok["name"], ok["context_length"]) == ("fx-ok:n-1", 2048)
    unloaded = await ask(fake, "POST", "/api/generate", {"model": "tiny:latest", "keep_alive": 0})
    assert (unloaded.json["done_reason"], unloaded.json["response"]) == ("unload", "")
    assert len((await ask(fake, "GET", "/api/ps")).json["models"]) == 1


async def test_a_model_that_still_loads_is_not_in_ps(fake: FakeOllama) -> None:
    _, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-load:load-60000")))
    await fake.arrived()
    assert (await ask(fake, "GET", "/api/ps")).json == {"models": []}
    writer.close()
    await fake.closed(1)


async def test_delete_copy_create_push(fake: FakeOllama) -> None:
    deleted = await ask(fake, "DELETE", "/api/delete", {"model": "tiny"})
    assert (deleted.status, deleted.body) == (200, b"")
    assert "tiny:latest" not in fake.models
    for model, status, text in (
        ("tiny", 404, "model 'tiny' not found"),
        ("a b", 400, 'name "a b" is invalid'),
        ("fx-status:c-500", 500, "an error was encountered while running the model: unexpected EOF"),
    ):
        answer = await ask(fake, "DELETE", "/api/delete", {"name": model})
        assert (answer.status, answer.json) == (status, {"error": text})
    copied = await ask(fake, "POST", "/api/copy", {"source": "mistral:7b", "destination": "mine"})
    assert (copied.status, copied.body, fake.models[0]) == (200, b"", "mine:latest")
    for source, destination, status in (("nosuch", "b", 404), ("a b", "b", 400), ("tiny", "", 400)):
        answer = await ask(fake, "POST", "/api/copy", {"source": source, "destination": destination})
        assert (answer.status, "error" in answer.json) == (status, True)
    made = await ask(fake, "POST", "/api/create", {"model": "made", "from": "mistral:7b"})
    assert made.lines[-1] == {"status": "success"}
    assert (await ask(fake, "POST", "/api/create", {"model": "made"})).status == 400
    assert (await ask(fake, "POST", "/api/push", {"model": "made"})).lines[-1] == {"status": "success"}
    assert (await ask(fake, "POST", "/api/push", {"model": "nosuch", "stream": False})).status == 500


async def test_generate(fake: FakeOllama) -> None:
    lines = (await ask(fake, "POST", "/api/generate", {"model": "fx-think:n-2_think-1", "prompt": "hi"})).lines
    assert [line["response"] for line in lines] == [
        "",
        *(text_of(2).partition(" ")[0::2][:1]),
        lines[2]["response"],
        "",
    ]
    assert "".join(line["response"] for line in lines) == text_of(2)
    assert lines[0]["thinking"]
    assert lines[-1]["context"]
    missing = await ask(fake, "POST", "/api/generate", {"prompt": "hi"})
    assert (missing.status, missing.json) == (404, {"error": "model '' not found"})
    assert (await ask(fake, "POST", "/api/generate", {"model": "nosuch", "prompt": "hi"})).status == 404


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"options": {"num_predict": "5"}}, 500, 'option "num_predict" must be of type integer'),
        ({"options": {"temperature": True}}, 500, 'option "temperature" must be of type float32'),
        ({"options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
        ({"options": {"top_k": None, "unknown": "x", "stop": ["a"]}}, 200, ""),
        ({"think": True}, 400, '"tiny" does not support thinking'),
        ({"think": False}, 200, ""),
        ({"think": "LOW"}, 400, 'invalid think value: "LOW"'),
        ({"messages": [{"role": "user", "content": ["x"]}]}, 400, "json: cannot unmarshal array"),
        ({"messages": [{"role": "user", "content": "x", "images": ["data:x"]}]}, 400, "illegal base64 data"),
        ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, 400, "does not support multimodal"),
        ({"keep_alive": "-1"}, 400, 'time: missing unit in duration "-1"'),
        ({"keep_alive": True}, 400, "json: cannot unmarshal bool"),
        ({"keep_alive": "5m", "unknown": {"x": 1}}, 200, ""),
    ],
)
async def test_what_ollama_rejects(fake: FakeOllama, fields: dict[str, Any], status: int, text: str) -> None:
    answer = await ask_chat(fake, "tiny", **fields)
    assert answer.status == status
    assert text in answer.json["error"] if status != 200 else answer.lines


async def test_more_that_ollama_rejects(fake: FakeOllama) -> None:
    for body, status in ((None, 400), (b"{", 400), ({"messages": []}, 400)):
        assert (await ask(fake, "POST", "/api/chat", body)).status == status
    assert (await ask_chat(fake, "fx-ok", tools=[{}])).status == 400
    seen = await ask_chat(fake, "fx-vision:n-1", messages=[{"role": "user", "content": "x", "images": ["aGk="]}])
    assert seen.text == text_of(1)


async def test_embeddings(fake: FakeOllama) -> None:
    many = (await ask(fake, "POST", "/api/embed", {"model": "tiny", "input": ["a", "b"]})).json
    assert len(many["embeddings"]) == 2
    assert many["embeddings"][0] != many["embeddings"][1]
    assert sum(x * x for x in many["embeddings"][0]) == pytest.approx(1)
    one = (await ask(fake, "POST", "/api/embeddings", {"model": "tiny", "prompt": "a"})).json
    assert one == {"embedding": many["embeddings"][0]}
    openai = (await ask(fake, "POST", "/v1/embeddings", {"model": "tiny", "input": "a"})).json
    assert openai["data"][0]["embedding"] == many["embeddings"][0]
    assert (await ask(fake, "POST", "/api/embed", {"model": "tiny"})).json["embeddings"] == []
    for path in ("/api/embed", "/api/embeddings", "/v1/embeddings"):
        answer = await ask(fake, "POST", path, {"model": "nosuch", "input": "a"})
        assert answer.status == 404
        assert 'model "nosuch" not found, try pulling it first' in answer.body.decode().replace("\\", "")


def events(answer: Answer) -> list[Any]:
    """The events of an event stream; its mark of the end is left as text."""
    parts = [part.removeprefix("data: ") for part in answer.body.decode().split("\n\n") if part]
    return [part if part == "[DONE]" else json.loads(part) for part in parts]


async def test_openai_chat(fake: FakeOllama) -> None:
    body = chat("fx-ok:n-2", stream=True, stream_options={"include_usage": True})
    answer = await ask(fake, "POST", "/v1/chat/completions", body)
    assert answer.headers["content-type"] == "text/event-stream"
    *chunks, finish, usage, end = events(answer)
    assert end == "[DONE]"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == text_of(2)
    assert ["role" in chunk["choices"][0]["delta"] for chunk in chunks] == [True, False]
    assert (finish["choices"][0]["finish_reason"], usage["choices"]) == ("stop", [])
    assert usage["usage"]["completion_tokens"] == 2
    whole = (await ask(fake, "POST", "/v1/chat/completions", chat("fx-tools:n-3", max_tokens=2))).json
    assert whole["choices"][0]["message"]["content"] == text_of(2)
    assert json.loads(whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])["days"] == 2
    thought = (await ask(fake, "POST", "/v1/chat/completions", chat("fx-think:n-1_think-1"))).json
    assert thought["choices"][0]["message"]["reasoning"]


async def test_openai_completion_and_errors(fake: FakeOllama) -> None:
    body = {"model": "fx-ok:n-2", "prompt": "hi", "stream": True}
    *chunks, _finish, end = events(await ask(fake, "POST", "/v1/completions", body))
    assert ("".join(chunk["choices"][0]["text"] for chunk in chunks), end) == (text_of(2), "[DONE]")
    whole = (await ask(fake, "POST", "/v1/completions", {"model": "tiny", "prompt": "hi"})).json
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", text_of(20))
    for path, payload, status in (
        ("/v1/chat/completions", {"model": "nosuch", "messages": [{"role": "user", "content": "x"}]}, 404),
        ("/v1/chat/completions", {"model": "tiny", "messages": []}, 400),
        ("/v1/completions", {"model": "nosuch"}, 404),
    ):
        answer = await ask(fake, "POST", path, payload)
        assert (answer.status, set(answer.json["error"])) == (status, {"message", "type", "param", "code"})
    broken = events(await ask(fake, "POST", "/v1/chat/completions", chat("fx-errline:n-1", stream=True)))
    assert (broken[-1]["error"]["type"], "[DONE]" in broken) == ("api_error", False)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Host: 127.0.0.1:11434", 200),
        ("Host: [::1]:1", 200),
        ("Host: 192.168.1.5", 200),
        ("Host: box.local", 200),
        ("Host: evil.example", 403),
        ("Host: 127.evil.example", 403),
        ("Host: 8.8.8.8", 403),
        ("Host: localhost\r\nOrigin: http://localhost:3000", 200),
        ("Host: localhost\r\nOrigin: vscode-webview://x", 200),
        ("Host: localhost\r\nOrigin: http://evil.example", 403),
        ("Host: localhost\r\nOrigin: null", 403),
        ("Host: localhost\r\nHost: localhost", 400),
        ("X-No: host", 400),
    ],
)
async def test_foreign_hosts_and_origins_are_refused(fake: FakeOllama, header: str, status: int) -> None:
    data = f"GET /api/version HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n".encode()
    answer = await exchange(fake.port, data)
    assert answer.status == status
    assert (answer.body == b"") == (status == 403)
