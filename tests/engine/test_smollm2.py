"""The real SmolLM2 and the same weights stored in 8 bits: two contestants that answer, side by side."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from arena.engine import prepare
from arena.engine.digests import Digests, sha256_of
from arena.engine.header import TENSOR_TYPES, read_header
from arena.engine.models import Models
from tests.engine.conftest import config_for, serving

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

Q4, Q8 = "smollm2:135m", "smollm2:135m-q8_0"


@pytest.fixture(scope="module")
def data(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with SmolLM2, and its sister if `setup` has left it beside: to make it takes ten seconds."""
    folder = tmp_path_factory.mktemp("smollm2")
    own = folder / "models" / "smollm2"
    own.mkdir(parents=True)
    (own / "135m.gguf").symlink_to(real)
    if (sister := real.with_name("135m-q8_0.gguf").resolve()).exists():
        (own / sister.name).symlink_to(sister)
    return folder


@pytest.fixture(scope="module")
async def engine(data: Path) -> AsyncIterator[httpx.AsyncClient]:
    out = io.StringIO()
    assert await prepare.setup(config_for(data), out)
    assert f"{Q8}  145 MB  Q8_0\n" in out.getvalue()
    async with serving(config_for(data)) as client:
        yield client


async def say(engine: httpx.AsyncClient, model: str, **options: Any) -> dict[str, Any]:
    question = {"role": "user", "content": "What is the capital of France?"}
    body = {"model": model, "messages": [question], "stream": False, "options": {"num_predict": 16, **options}}
    answer: dict[str, Any] = (await engine.post("/api/chat", json=body)).json()
    return answer


async def test_both_answer_side_by_side(engine: httpx.AsyncClient) -> None:
    tasks = [asyncio.create_task(say(engine, model, temperature=0)) for model in (Q4, Q8)]
    await asyncio.wait(tasks)
    for task in tasks:
        answer = task.result()
        assert answer["message"]["content"].strip()
        assert 1 < answer["eval_count"] <= 16
        parts = ("load_duration", "prompt_eval_duration", "eval_duration")
        assert 0 < sum(answer[part] for part in parts) <= answer["total_duration"]
        assert answer["prompt_eval_count"] == 37
    assert {item["name"] for item in (await engine.get("/api/ps")).json()["models"]} == {Q4, Q8}


async def test_seed_repeats(engine: httpx.AsyncClient) -> None:
    first, second = [await say(engine, Q4, seed=42, temperature=1.2) for _ in range(2)]
    assert first["message"] == second["message"]


async def test_keep_alive_zero(engine: httpx.AsyncClient) -> None:
    for model in (Q4, Q8):
        await engine.post("/api/chat", json={"model": model, "keep_alive": 0})
    assert (await engine.get("/api/ps")).json() == {"models": []}


async def test_digests_are_worked_out_in_the_background(engine: httpx.AsyncClient, data: Path, real: Path) -> None:
    digests = Digests(data / "engine" / "digests.json")
    models = Models(config_for(data))
    await digests.keep(models)
    found = models.find(Q4)
    assert found is not None
    assert digests.of(found) == sha256_of(real)
    assert Digests(data / "engine" / "digests.json").of(found) == digests.of(found)


async def test_sister_has_the_same_shape_in_eight_bits(engine: httpx.AsyncClient, data: Path, real: Path) -> None:
    sister, first = read_header(data / "models" / "smollm2" / "135m-q8_0.gguf"), read_header(real)
    assert {TENSOR_TYPES[tensor.type][0] for tensor in sister.tensors} == {"Q8_0", "F32"}
    assert [(t.name, t.shape) for t in sister.tensors] == [(t.name, t.shape) for t in first.tensors]
    assert sister.chat_template == first.chat_template
    assert sister.quantization == "Q8_0"
