"""POST /api/stream_chat: the lines, their ends, and what happens when the client leaves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from arena.api.answers import Lines
from arena.types import Delta, Finished, Metrics
from tests.api.asgi import Answer, Client, started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.fake_ollama import FakeOllama, text_of, text_said_by

pytestmark = pytest.mark.anyio


def legacy(*names: str) -> dict[str, Any]:
    return {"history": HELLO, "models": list(names)}


def instances(*items: dict[str, Any]) -> dict[str, Any]:
    return {"history": HELLO, "model_instances": list(items)}


def columns(answer: Answer) -> dict[str, list[dict[str, Any]]]:
    """The lines of each instance; checks what holds for every stream."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in answer.lines():
        assert {"instance_id", "model", "token", "done"} <= set(line)
        found.setdefault(line["instance_id"], []).append(line)
    for lines in found.values():
        assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
        assert lines[-1]["token"] == ""
        assert {"tokens", "duration_s", "tokens_per_sec"} <= set(lines[-1]["metrics"])
    return found


def text(lines: list[dict[str, Any]]) -> str:
    return "".join(line["token"] for line in lines)


async def test_headers_suit_a_stream(api: Client) -> None:
    answer = await api.post("/api/stream_chat", legacy("llama3.2:3b"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "no-" in answer.headers["cache-control"]


async def test_legacy_lines_carry_model_and_instance_id(api: Client) -> None:
    found = columns(await api.post("/api/stream_chat", legacy("llama3.2:3b", "qwen2.5:3b")))
    assert set(found) == {"llama3.2:3b", "qwen2.5:3b"}
    for name, lines in found.items():
        assert {line["model"] for line in lines} == {name}
        assert text(lines) == text_said_by(name)


async def test_instance_lines_carry_both_too(api: Client) -> None:
    items = ({"id": "cold", "model": "tiny", "temperature": 0.1}, {"id": "warm", "model": "tiny"})
    found = columns(await api.post("/api/stream_chat", instances(*items)))
    assert set(found) == {"cold", "warm"}
    assert all(line["model"] == "tiny" for lines in found.values() for line in lines)


async def test_keys_stand_in_the_documented_order(api: Client) -> None:
    lines = (await api.post("/api/stream_chat", legacy("fx-ok:n-1"))).body.split(b"\n")
    first = [key for key, _ in json.loads(lines[0], object_pairs_hook=list)]
    assert first == ["instance_id", "model", "token", "done"]
    last = [key for key, _ in json.loads(lines[1], object_pairs_hook=list)]
    assert last[:5] == ["instance_id", "model", "token", "done", "metrics"]


async def test_the_last_line_has_all_metrics_and_the_manifest(api: Client) -> None:
    await api.get("/api/models")
    found = columns(await api.post("/api/stream_chat", instances({"id": "a", "model": "tiny", "seed": 5})))
    last = found["a"][-1]
    assert last["metrics"]["tokens"] == 20
    assert last["metrics"]["tokens_per_sec"] == round(20 / last["metrics"]["duration_s"], 2)
    assert {"ttft_s", "total_s", "load_s", "queue_s", "prompt_tokens", "prompt_s", "done_reason"} <= set(
        last["metrics"]
    )
    assert last["manifest"]["digest"] == last["model_digest"]
    assert last["options_sent"]["seed"] == 5
    assert last["server"]
    assert "error" not in last


async def test_an_error_line_has_a_token_and_what_was_counted(api: Client) -> None:
    found = columns(await api.post("/api/stream_chat", legacy("fx-errline:at-2", "no-such-model")))
    failed = found["fx-errline:at-2"][-1]
    assert failed["token"] == ""
    assert "unexpected EOF" in failed["error"]
    assert failed["error_code"] == "upstream_error"
    assert text(found["fx-errline:at-2"]) == text_of(2)
    assert found["no-such-model"][-1]["error_code"] == "model_not_found"
    assert len(found["no-such-model"]) == 1


async def test_thoughts_come_with_an_empty_token(api: Client) -> None:
    (lines,) = columns(await api.post("/api/stream_chat", legacy("fx-think:think-3_n-4"))).values()
    thoughts = [line for line in lines if "thinking" in line]
    assert len(thoughts) == 3
    assert all(line["token"] == "" and line["thinking"] for line in thoughts)
    assert text(lines) == text_said_by("fx-think:think-3_n-4")


async def test_separators_and_control_characters_do_not_cut_lines(api: Client) -> None:
    answer = await api.post("/api/stream_chat", legacy("fx-unicode"))
    assert text(columns(answer)["fx-unicode"]) == text_said_by("fx-unicode")
    assert answer.body.count(b"\n") == len(answer.lines())


async def test_history_truncated_is_told_on_the_last_line(fake: FakeOllama) -> None:
    async with started(create_api(settings_for(fake.url, history_limit=1))) as api:
        answer = await api.post("/api/stream_chat", {"history": HELLO * 3, "models": ["tiny"]})
    assert answer.lines()[-1]["history_truncated"] is True
    assert "history_truncated" not in answer.lines()[0]


async def test_every_write_holds_whole_lines(api: Client, fake: FakeOllama) -> None:
    async with api.open(
        "/api/stream_chat", legacy("fx-manytokens:n-3000", "fx-slicer:n-30", "fx-split:n-5")
    ) as exchange:
        while (chunk := await exchange.chunk()) is not None:
            assert chunk.endswith(b"\n")
            for line in chunk.split(b"\n")[:-1]:
                json.loads(line)


async def test_the_last_write_ends_the_answer(api: Client) -> None:
    async with api.open("/api/stream_chat", legacy("tiny")) as exchange:
        last = b""
        while (chunk := await exchange.chunk()) is not None:
            last = chunk
            ended = exchange.ended
        assert ended
        assert json.loads(last.split(b"\n")[-2])["done"] is True


async def test_nothing_is_said_before_the_endpoint_answers(api: Client, fake: FakeOllama) -> None:
    async with api.open("/api/stream_chat", legacy("fx-gate:n-2_id-x")) as exchange:
        await fake.arrived(1, path="/api/chat")
        assert exchange.outgoing.empty()
        fake.release("x", 1)
        first = await exchange.chunk()
        assert exchange.start is not None
        assert exchange.start["status"] == 200
        assert first is not None
        fake.release("x", 2)
        await exchange.answer()


async def test_one_stalled_model_does_not_delay_another(api: Client, fake: FakeOllama) -> None:
    async with api.open("/api/stream_chat", legacy("fx-gate:n-1_id-x", "llama3.2:3b")) as exchange:
        lines: list[dict[str, Any]] = []
        while not any(line["done"] for line in lines):
            chunk = await exchange.chunk()
            assert chunk is not None
            lines += [json.loads(line) for line in chunk.split(b"\n")[:-1]]
        assert {line["instance_id"] for line in lines} == {"llama3.2:3b"}
        fake.release("x", 9)
        await exchange.answer()


LEAVING = ["fx-hang", "fx-halfhead", "fx-stall:at-0", "fx-stall:at-2", "fx-endless", "fx-slowclose"]


@pytest.mark.parametrize("model", LEAVING)
async def test_hanging_up_frees_the_endpoint_in_every_phase(api: Client, fake: FakeOllama, model: str) -> None:
    async with api.open("/api/stream_chat", legacy(model)) as exchange:
        await fake.arrived(1, path="/api/chat")
        if model in LEAVING[3:5]:
            await exchange.chunk()
        exchange.leave()
        if model != "fx-slowclose":
            await fake.closed(1)
        await fake.idle()


async def test_hanging_up_while_the_client_does_not_read_frees_the_endpoint(api: Client, fake: FakeOllama) -> None:
    async with api.open("/api/stream_chat", legacy("fx-endless")) as exchange:
        exchange.blocked = asyncio.Event()
        await fake.arrived(1, path="/api/chat")
        exchange.leave()
        await fake.closed(1)


async def test_leaving_before_anything_ran_is_harmless(api: Client, fake: FakeOllama) -> None:
    async with api.open("/api/stream_chat", legacy("fx-hang")) as exchange:
        exchange.leave()
    await fake.idle()


async def test_lines_hold_the_models_of_open_instances_only() -> None:
    lines = Lines({"a": "m", "b": "m"}, msgspec.json.Encoder(), history_truncated=False)
    assert lines.encoded([Delta("a", "x"), Delta("b", "", "y"), Finished("a", Metrics())]).count(b"\n") == 3
    assert lines.open == 1
    assert lines.encoded([Delta("b", "", "")]) == b""
