"""The engine's API on a real llama.cpp with a tiny model: what Ollama does, case by case."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from arena import __version__
from arena.engine.server import OLLAMA_API
from arena.ollama import OllamaClient

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

ONE, TWO = "tiny:one", "tiny:two"


def ask(model: str = ONE, text: str = "Hello", **more: Any) -> dict[str, Any]:
    options = {"num_predict": 8, "temperature": 0, **more.pop("options", {})}
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "stream": False, "options": options, **more}


async def answer(engine: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    response = await engine.post("/api/chat", json=ask(**more))
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


async def lines(engine: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = await engine.post(path, json=body)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.content.split(b"\n") if line]


class TestLiveness:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_root(self, engine: httpx.AsyncClient, method: str) -> None:
        response = await engine.request(method, "/")
        assert (response.status_code, response.text) == (200, "Ollama is running" if method == "GET" else "")

    async def test_version(self, engine: httpx.AsyncClient) -> None:
        told = (await engine.get("/api/version")).json()
        assert told == {"version": OLLAMA_API, "engine": __version__}
        assert tuple(map(int, OLLAMA_API.split("."))) > (0, 6, 4), "editors ask for this at least"
        client = OllamaClient(str(engine.base_url).rstrip("/"), name="engine")
        assert await client.version() == __version__, "what a manifest must tell"
        await client.aclose()

    async def test_unknown_path_is_plain_text(self, engine: httpx.AsyncClient) -> None:
        response = await engine.get("/api/nothing")
        assert (response.status_code, response.text) == (404, "404 page not found")

    async def test_wrong_method_is_plain_text(self, engine: httpx.AsyncClient) -> None:
        response = await engine.get("/api/chat")
        assert (response.status_code, response.text) == (405, "405 method not allowed")


class TestChat:
    async def test_stream_ends_with_done_and_metrics(self, engine: httpx.AsyncClient) -> None:
        got = await lines(engine, "/api/chat", {**ask(), "stream": True})
        *pieces, last = got
        assert [line["done"] for line in got] == [False] * len(pieces) + [True]
        assert (last["done_reason"], last["eval_count"]) == ("length", 8)
        parts = [last[f"{name}_duration"] for name in ("load", "prompt_eval", "eval")]
        assert all(isinstance(part, int) and part >= 0 for part in parts)
        assert sum(parts) <= last["total_duration"]
        whole = await answer(engine)
        assert "".join(line["message"]["content"] for line in pieces) == whole["message"]["content"]

    async def test_stream_is_the_default(self, engine: httpx.AsyncClient) -> None:
        body = ask(stream=None)
        response = await engine.post("/api/chat", json=body)
        assert response.headers["content-type"] == "application/x-ndjson"

    async def test_cached_prompt_is_told(self, engine: httpx.AsyncClient) -> None:
        first = await answer(engine, text="a question about the cache")
        again = await answer(engine, text="a question about the cache")
        assert again["prompt_eval_cached_count"] == again["prompt_eval_count"] - 1
        assert again["prompt_eval_count"] == first["prompt_eval_count"]

    async def test_name_is_echoed_and_case_ignored(self, engine: httpx.AsyncClient) -> None:
        assert (await answer(engine, model="Tiny:ONE"))["model"] == "Tiny:ONE"

    async def test_seed_decides(self, engine: httpx.AsyncClient) -> None:
        async def say(**options: Any) -> str:
            text: str = (await answer(engine, options={"temperature": 1.5, "num_predict": 16, **options}))["message"][
                "content"
            ]
            return text

        assert await say(seed=0) == await say(seed=0)
        assert await say(seed=-7) == await say(seed=-7) != await say(seed=3)
        assert await say() != await say()

    async def test_temperature_zero_ignores_the_seed(self, engine: httpx.AsyncClient) -> None:
        texts = {(await answer(engine, options={"seed": seed}))["message"]["content"] for seed in (1, 2)}
        assert len(texts) == 1

    async def test_stop_is_taken_out(self, engine: httpx.AsyncClient) -> None:
        whole = (await answer(engine))["message"]["content"]
        word = whole.split()[2]
        cut = await answer(engine, options={"stop": [word]})
        assert word not in cut["message"]["content"]
        assert cut["done_reason"] == "stop"

    async def test_unknown_option_is_ignored(self, engine: httpx.AsyncClient) -> None:
        before = await answer(engine)
        after = await answer(engine, options={"n_discard": -1, "max_tokens": 1, "grammar": "x"})
        assert after["message"] == before["message"]

    @pytest.mark.parametrize(
        ("options", "status", "text"),
        [
            ({"temperature": "hot"}, 500, 'option "temperature" must be of type float32'),
            ({"num_ctx": True}, 500, 'option "num_ctx" must be of type integer'),
            ({"stop": "x"}, 500, 'option "stop" must be of type array'),
            ({"stop": [1]}, 500, 'option "stop" must be of an array of strings'),
            ({"repeat_penalty": 0}, 400, "repeat_penalty"),
            ({"num_ctx": 0}, 400, "num_ctx"),
            ({"num_keep": -5}, 400, "num_keep"),
            ({"top_k": 10**12}, 400, "top_k"),
        ],
    )
    async def test_bad_option(self, engine: httpx.AsyncClient, options: Any, status: int, text: str) -> None:
        response = await engine.post("/api/chat", json=ask(options=options))
        assert response.status_code == status
        assert text in response.json()["error"]

    async def test_too_long_a_prompt_is_refused_with_sizes(self, engine: httpx.AsyncClient) -> None:
        response = await engine.post("/api/chat", json=ask(text="word " * 2000, truncate=False))
        error = response.json()["error"]
        assert response.status_code == 400
        assert "the input length exceeds the context length" in error
        assert "512 (num_ctx)" in error

    async def test_oldest_messages_are_dropped_when_allowed(self, engine: httpx.AsyncClient) -> None:
        messages = [{"role": "system", "content": "Be brief."}]
        for _ in range(20):
            messages += [{"role": "user", "content": "word " * 60}, {"role": "assistant", "content": "yes"}]
        messages.append({"role": "user", "content": "The last question?"})
        body = {**ask(), "messages": messages}
        assert (await engine.post("/api/chat", json=body)).json()["prompt_eval_count"] <= 512
        refused = await engine.post("/api/chat", json={**body, "truncate": False})
        assert refused.status_code == 400

    async def test_answer_may_outgrow_the_context(self, engine: httpx.AsyncClient) -> None:
        grown = await answer(engine, options={"num_ctx": 256, "num_predict": 400, "temperature": 1.0, "seed": 4})
        assert grown["eval_count"] == 400 or grown["done_reason"] == "stop"

    async def test_schema_is_obeyed(self, engine: httpx.AsyncClient) -> None:
        schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
        got = await answer(engine, format=schema, options={"num_predict": 300})
        assert isinstance(json.loads(got["message"]["content"])["yes"], bool)

    async def test_logprobs(self, engine: httpx.AsyncClient) -> None:
        got = await answer(engine, logprobs=True, top_logprobs=2, options={"num_predict": 3})
        assert len(got["logprobs"]) >= 2
        assert set(got["logprobs"][0]) == {"token", "logprob", "bytes", "top_logprobs"}

    @pytest.mark.parametrize(
        ("change", "status", "text"),
        [
            ({"model": ""}, 400, "model is required"),
            ({"model": "no:such"}, 404, "model 'no:such' not found"),
            ({"model": "a b"}, 400, "invalid model name"),
            ({"think": True}, 400, f'"{ONE}" does not support thinking'),
            ({"think": "LOW"}, 400, "invalid think value"),
            ({"think": 3}, 400, "think must be a boolean or string"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "does not support tools"),
            ({"format": "yaml"}, 500, "invalid format"),
            ({"format": {"type": "nonsense"}}, 400, "nonsense"),
            ({"keep_alive": "-1"}, 400, "missing unit in duration"),
            ({"keep_alive": True}, 400, "keep_alive"),
            ({"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "invalid request body"),
            ({"messages": [{"role": "user", "content": "x", "images": ["%%%"]}]}, 400, "illegal base64 data"),
            ({"messages": [{"role": "user", "content": "x", "images": ["AAAA"]}]}, 400, "does not support images"),
        ],
    )
    async def test_bad_request(self, engine: httpx.AsyncClient, change: Any, status: int, text: str) -> None:
        response = await engine.post("/api/chat", json={**ask(), **change})
        assert response.status_code == status, response.text
        assert text in response.json()["error"]

    @pytest.mark.parametrize(
        "content", [b"", b"  ", b"{", b"[]", b'{"model": NaN}', b'{"model":"\xff"}', b"[" * 100_000]
    )
    async def test_bad_json(self, engine: httpx.AsyncClient, content: bytes) -> None:
        response = await engine.post("/api/chat", content=content)
        assert response.status_code == 400
        assert response.json()["error"]

    async def test_thinking_off_is_accepted(self, engine: httpx.AsyncClient) -> None:
        assert (await answer(engine, think=False))["done"]


class TestGenerate:
    async def test_prompt_goes_through_the_template(self, engine: httpx.AsyncClient) -> None:
        chatted = await answer(engine)
        body = {"model": ONE, "prompt": "Hello", "stream": False, "options": {"num_predict": 8, "temperature": 0}}
        generated = (await engine.post("/api/generate", json=body)).json()
        assert generated["response"] == chatted["message"]["content"]
        assert generated["prompt_eval_count"] == chatted["prompt_eval_count"]

    async def test_raw_goes_as_it_is(self, engine: httpx.AsyncClient) -> None:
        body = {"model": ONE, "prompt": "Hello", "raw": True, "options": {"num_predict": 4}, "format": "json"}
        got = await lines(engine, "/api/generate", body)
        assert got[-1]["prompt_eval_count"] < 5
        assert "response" in got[0]

    async def test_system_is_used(self, engine: httpx.AsyncClient) -> None:
        body = {"model": ONE, "prompt": "Hello", "system": "word " * 50, "stream": False, "options": {"num_predict": 1}}
        assert (await engine.post("/api/generate", json=body)).json()["prompt_eval_count"] > 50

    @pytest.mark.parametrize(
        ("change", "status", "text"),
        [
            ({"model": None}, 500, "model '' not found"),
            ({"suffix": "}"}, 400, "does not support insert"),
            ({"template": "{{ x }}"}, 400, "template is not supported"),
            ({"raw": True, "system": "x"}, 400, "raw mode does not support"),
            ({"raw": True, "prompt": "word " * 2000}, 400, "exceeds the context length"),
        ],
    )
    async def test_bad_request(self, engine: httpx.AsyncClient, change: Any, status: int, text: str) -> None:
        response = await engine.post("/api/generate", json={"model": ONE, "prompt": "x", **change})
        assert response.status_code == status, response.text
        assert text in response.json()["error"]


class TestMemory:
    async def test_load_and_unload(self, engine: httpx.AsyncClient) -> None:
        loaded = await engine.post("/api/chat", json={"model": TWO})
        assert loaded.headers["content-type"].startswith("application/json")
        assert loaded.json()["done_reason"] == "load"
        inside = {item["name"]: item for item in (await engine.get("/api/ps")).json()["models"]}
        assert inside[TWO]["context_length"] == 512
        assert inside[TWO]["size"] > 0
        gone = await engine.post("/api/generate", json={"model": TWO, "keep_alive": 0})
        assert gone.json()["done_reason"] == "unload"
        assert TWO not in {item["name"] for item in (await engine.get("/api/ps")).json()["models"]}
        again = await engine.post("/api/chat", json={"model": TWO, "keep_alive": "0"})
        assert again.json()["done_reason"] == "unload"

    async def test_keep_alive_zero_unloads_after_the_answer(self, engine: httpx.AsyncClient) -> None:
        assert (await answer(engine, model=TWO, keep_alive=0))["done"]
        assert TWO not in {item["name"] for item in (await engine.get("/api/ps")).json()["models"]}

    async def test_other_context_loads_again(self, engine: httpx.AsyncClient) -> None:
        await answer(engine, options={"num_ctx": 256})
        inside = {item["name"]: item for item in (await engine.get("/api/ps")).json()["models"]}
        assert inside[ONE]["context_length"] == 256
        await answer(engine, options={"num_ctx": 10**6})
        inside = {item["name"]: item for item in (await engine.get("/api/ps")).json()["models"]}
        assert inside[ONE]["context_length"] == 1024  # never more than the model was trained for


class TestEmbeddings:
    async def test_vectors_have_length_one(self, engine: httpx.AsyncClient) -> None:
        got = (await engine.post("/api/embed", json={"model": ONE, "input": ["a", "b c"]})).json()
        assert [len(vector) for vector in got["embeddings"]] == [64, 64]
        assert sum(value * value for value in got["embeddings"][0]) == pytest.approx(1, abs=1e-4)
        assert got["prompt_eval_count"] >= 3

    async def test_older_form(self, engine: httpx.AsyncClient) -> None:
        got = (await engine.post("/api/embeddings", json={"model": ONE, "prompt": "a"})).json()
        assert set(got) == {"embedding", "model", "total_duration", "load_duration", "prompt_eval_count"}
        empty = (await engine.post("/api/embeddings", json={"model": ONE})).json()
        assert empty == {"embedding": [], "model": ONE}

    async def test_long_text_is_cut_or_refused(self, engine: httpx.AsyncClient) -> None:
        body = {"model": ONE, "input": "word " * 3000, "dimensions": 8}
        got = (await engine.post("/api/embed", json=body)).json()
        assert (len(got["embeddings"][0]), got["prompt_eval_count"]) == (8, 512)
        refused = await engine.post("/api/embed", json={**body, "truncate": False})
        assert refused.status_code == 400

    async def test_tokens_count_not_bytes(self, engine: httpx.AsyncClient) -> None:
        text = "the " * 200
        got = await engine.post("/api/embed", json={"model": ONE, "input": text, "truncate": False})
        assert got.status_code == 200
        assert got.json()["prompt_eval_count"] < 512 < len(text)

    async def test_unknown_model(self, engine: httpx.AsyncClient) -> None:
        for body in ({"model": "no", "input": "x"}, {"input": "x"}):
            response = await engine.post("/api/embed", json=body)
            assert response.status_code == 404
            assert "try pulling it first" in response.json()["error"]

    async def test_too_many_inputs(self, engine: httpx.AsyncClient) -> None:
        response = await engine.post("/api/embed", json={"model": ONE, "input": ["x"] * 3000})
        assert response.status_code == 400


class TestInventory:
    async def test_tags(self, engine: httpx.AsyncClient) -> None:
        models = (await engine.get("/api/tags")).json()["models"]
        assert {item["name"] for item in models} == {ONE, TWO}
        item = models[0]
        assert item["name"] == item["model"]
        assert item["capabilities"] == ["completion"]
        assert item["details"]["quantization_level"] == "F16"
        assert item["details"]["context_length"] == 1024

    async def test_show_takes_both_spellings_and_tells_no_path(self, engine: httpx.AsyncClient, tiny_data: Any) -> None:
        by_model = await engine.post("/api/show", json={"model": ONE})
        by_name = await engine.post("/api/show", json={"name": ONE})
        assert by_model.json() == by_name.json()
        assert str(tiny_data) not in by_model.text
        assert ".gguf" not in by_model.text
        assert by_model.json()["model_info"]["llama.context_length"] == 1024
        assert by_model.json()["model_info"]["general.parameter_count"] > 300_000
        assert by_model.json()["template"].startswith("{%")

    async def test_show_unknown(self, engine: httpx.AsyncClient) -> None:
        response = await engine.post("/api/show", json={"model": "no"})
        assert (response.status_code, response.json()) == (404, {"error": "model 'no:latest' not found"})
        response = await engine.post("/api/show", json={})
        assert (response.status_code, response.json()) == (400, {"error": "model is required"})

    async def test_openai_listing(self, engine: httpx.AsyncClient) -> None:
        listed = (await engine.get("/v1/models")).json()
        assert {item["id"] for item in listed["data"]} == {ONE, TWO}
        assert (await engine.get(f"/v1/models/{ONE}")).json()["id"] == ONE
        missing = await engine.get("/v1/models/no/such/thing/here")
        assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
