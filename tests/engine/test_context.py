"""A conversation as token ids: what /api/generate tells at its end, and how it goes on from them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine.conftest import KEYS, config_for, serving
from tests.engine.files import gguf_bytes, write_tiny
from tests.engine.scripted import END, Scripted, delta

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

REAL, TINY, BEGUN = "real:1", "tiny:1", "begun:1"
BEGINNING = 1
"""The token that `begun` puts before every text, and its template once more."""
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "


@pytest.fixture(scope="module")
async def engine(real: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """One engine with a real model, a tiny one, and a tiny one whose texts have a token of their own to begin with."""
    data = tmp_path_factory.mktemp("context")
    for name in ("real", "tiny", "begun"):
        (data / "models" / name).mkdir(parents=True)
    (data / "models" / "real" / "1.gguf").symlink_to(real)
    (data / "models" / "tiny" / "1.gguf").symlink_to(tiny)
    changes = {"tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": TEMPLATE}
    write_tiny(real, data / "models" / "begun" / "1.gguf", changes)
    async with serving(config_for(data, context_length=512)) as client:
        yield client


async def generated(engine: httpx.AsyncClient, prompt: str, *, status: int = 200, **more: Any) -> dict[str, Any]:
    """The whole answer, or the error."""
    body = {"model": REAL, "prompt": prompt, "stream": False, **more}
    body["options"] = {"temperature": 0, "num_predict": 8, **more.get("options", {})}
    response = await engine.post("/api/generate", json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


class TestConversation:
    @pytest.mark.parametrize("model", [REAL, BEGUN])
    @pytest.mark.parametrize("system", [None, "You are a pirate."])
    async def test_goes_on_as_chat_does(self, engine: httpx.AsyncClient, model: str, system: str | None) -> None:
        """Word by word, with as many tokens; a system text that comes with every question is heard once."""
        context: list[int] = []
        talk = [{"role": "system", "content": system}] if system else []
        for question in ("My name is Ada. Say hello.", "What is my name?", "And the capital of France?"):
            got = await generated(engine, question, model=model, context=context, system=system)
            talk.append({"role": "user", "content": question})
            body = {"model": model, "messages": talk, "stream": False}
            chatted = await engine.post("/api/chat", json=body | {"options": {"temperature": 0, "num_predict": 8}})
            other = chatted.json()
            assert got["response"] == other["message"]["content"]
            assert got["prompt_eval_count"] == other["prompt_eval_count"]
            assert got["context"][: len(context)] == context
            context = got["context"]
            talk.append(other["message"])
        assert context.count(BEGINNING) == (1 if model == BEGUN else context.count(BEGINNING))
        assert context[0] == BEGINNING

    async def test_another_system_text_is_heard_in_the_middle(self, engine: httpx.AsyncClient) -> None:
        context = (await generated(engine, "Hello", system="Be kind."))["context"]
        same, other = [
            await generated(engine, "Hello", system=text, context=context) for text in ("Be kind.", "Rhyme.")
        ]
        assert other["prompt_eval_count"] > same["prompt_eval_count"]

    async def test_stream_tells_it_on_the_last_line(self, engine: httpx.AsyncClient) -> None:
        whole = await generated(engine, "Hello")
        body = {"model": REAL, "prompt": "Hello", "options": {"temperature": 0, "num_predict": 8}}
        response = await engine.post("/api/generate", json=body)
        *pieces, last = [json.loads(line) for line in response.text.splitlines()]
        assert last["context"] == whole["context"]
        assert (last["response"], last["done"]) == ("", True)
        assert "".join(piece["response"] for piece in pieces) == whole["response"]
        assert not any("context" in piece for piece in pieces)

    async def test_options_and_format_hold_as_without(self, engine: httpx.AsyncClient) -> None:
        context = (await generated(engine, "Hello"))["context"]
        got = await generated(engine, "Colour?", context=context, format={"type": "string", "enum": ["red", "blue"]})
        assert got["response"] in ('"red"', '"blue"')
        got = await generated(engine, "Count to ten.", context=context, options={"num_predict": 3})
        assert (got["eval_count"], got["done_reason"]) == (3, "length")

    async def test_raw_and_loads_tell_none(self, engine: httpx.AsyncClient) -> None:
        assert "context" not in await generated(engine, "Hello", raw=True)
        loaded = await generated(engine, "", context=[1])
        assert (loaded["done_reason"], "context" in loaded) == ("load", False)


class TestTooLong:
    async def test_the_newest_stays(self, engine: httpx.AsyncClient) -> None:
        """Half of num_ctx is left for the answer, as in Ollama; and the next context is no longer."""
        context = [*range(100, 900)]
        got = await generated(engine, "Hello", model=TINY, context=context, options={"num_keep": 2})
        assert got["prompt_eval_count"] == 256
        assert got["context"][:2] == [100, 101]
        assert got["context"][2] > 600
        assert len(got["context"]) < 300

    @pytest.mark.parametrize(
        "more", [{"truncate": False}, {"options": {"num_keep": 900}}, {"prompt": "word " * 2000, "context": [5] * 9}]
    )
    async def test_or_is_refused(self, engine: httpx.AsyncClient, more: dict[str, Any]) -> None:
        got = await generated(engine, **{"prompt": "Hello", "context": [*range(100, 900)], **more}, status=400)
        assert "exceeds the context length" in got["error"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"context": [-1]}, "context: token ids are from 0"),
        ({"context": [2**32 + 1]}, "context: token ids are from 0"),
        ({"context": [1.5]}, "$.context[0]"),
        ({"context": ["1"]}, "$.context[0]"),
        ({"context": "1"}, "$.context"),
        ({"context": [1, 49152]}, f'context: "{REAL}" does not have all its tokens'),
        ({"context": [1, 49152], "system": "Be kind."}, f'context: "{REAL}" does not have all its tokens'),
        ({"context": [1], "raw": True}, "raw mode does not support template, system, or context"),
        ({"context": [1], "images": ["AAAA"]}, "context: pictures cannot follow one"),
    ],
)
async def test_what_is_no_context(engine: httpx.AsyncClient, more: dict[str, Any], text: str) -> None:
    assert text in (await generated(engine, "Hello", **more, status=400))["error"]
    assert (await generated(engine, "Hello"))["response"]


BODY: dict[str, Any] = {"model": "plain:1b", "prompt": "x"}


class TestScripted:
    @pytest.fixture
    async def plain(self, actor: Scripted, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
        """An engine whose only model neither thinks nor sees, and is played by the script."""
        folder = tmp_path / "models" / "plain"
        folder.mkdir(parents=True)
        (folder / "1b.gguf").write_bytes(gguf_bytes({**KEYS, "tokenizer.chat_template": "{{ messages }}"}))
        (folder / "1b.json").write_bytes(b'{"system": "Be kind."}')
        async with serving(config_for(tmp_path), actor) as client:
            yield client

    @pytest.mark.parametrize(
        "counted", [[b"cut"], [b"{}"], [b'{"error": {"code": 500, "message": "no"}}'], [None]], ids=repr
    )
    async def test_an_answer_is_whole_where_its_tokens_cannot_be_counted(
        self, plain: httpx.AsyncClient, script: Scripted, counted: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("arena.engine.tokens.COUNTING_S", 0.05 if counted == [None] else 5)
        script.asides = {"/apply-template": [b'{"prompt": "p"}'], "/tokenize": counted}
        got = (await plain.post("/api/generate", json={**BODY, "stream": False})).json()
        assert (got["response"], got["done_reason"], "context" in got) == ("hi", "stop", False)

    async def test_all_words_are_told_before_tokens_are_counted_and_who_leaves_then_is_waited_for_no_more(
        self, plain: httpx.AsyncClient, script: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("arena.engine.tokens.COUNTING_S", 600)
        script.pieces = [b"".join(b"data: " + json.dumps(x).encode() + b"\n\n" for x in (delta(content="hi"), END))]
        script.asides = {"/apply-template": [b'{"prompt": "p"}'], "/tokenize": [None]}
        async with asyncio.timeout(20), plain.stream("POST", "/api/generate", json=BODY) as response:
            async for line in response.aiter_lines():
                assert json.loads(line)["response"] == "hi"
                await script.aside.wait()
                break
        await asyncio.wait_for(script.hung_up.wait(), 10)
        script.reset()
        script.asides = {"/apply-template": [b'{"prompt": "p"}'], "/tokenize": [b'{"tokens": [7]}']}
        got = (await plain.post("/api/generate", json={**BODY, "stream": False})).json()
        assert got["context"] == [7]

    async def test_a_template_that_cannot_go_on_is_told(self, plain: httpx.AsyncClient, script: Scripted) -> None:
        error = b'{"error": {"code": 500, "message": "roles"}}'
        for script.aside_status, written in ((200, b'{"prompt": "without the answer"}'), (500, error)):
            script.asides = {"/apply-template": [written]}
            response = await plain.post("/api/generate", json={**BODY, "context": [1]})
            assert response.status_code == 400
            assert "cannot go on from a context: send the conversation to /api/chat" in response.json()["error"]

    async def test_the_models_own_system_text_stands_at_the_beginning_alone(
        self, plain: httpx.AsyncClient, script: Scripted
    ) -> None:
        script.asides = {"/apply-template": [b'{"prompt": "p"}']}
        for context in ([], [1]):
            await plain.post("/api/generate", json={**BODY, "context": context})
        first, second = [request["messages"] for request in script.requests if request.get("messages")][0::2]
        assert [message["role"] for message in first] == ["system", "user"]
        assert [message["role"] for message in second] == ["user", "assistant", "user"]

    async def test_a_model_that_thinks_tells_none_and_takes_none(
        self, able: httpx.AsyncClient, script: Scripted
    ) -> None:
        script.asides = {"/apply-template": [b'{"prompt": "p"}'], "/tokenize": [b'{"tokens": [7]}']}
        body = {**BODY, "model": "able:1b", "stream": False}
        assert "context" not in (await able.post("/api/generate", json=body)).json()
        refused = await able.post("/api/generate", json={**body, "context": [1]})
        assert (refused.status_code, "thinks" in refused.json()["error"]) == (400, True)
