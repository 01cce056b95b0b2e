"""Runner processes in the flesh: they crash, hang, are left, cannot load; the engine lives on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from arena.engine.launch import Launcher, Patience
from arena.engine.models import Models
from arena.engine.options import Loading
from arena.engine.runner import Orders
from tests.engine.conftest import children, config_for, serving, until
from tests.fake_ollama.stopwatch import Stopwatch

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.skipif(sys.platform != "linux", reason="uses /proc")]


def ask(model: str = "tiny:one", **more: Any) -> dict[str, Any]:
    options = {"num_predict": 4000, "temperature": 1.5, **more.pop("options", {})}
    return {"model": model, "messages": [{"role": "user", "content": "x"}], "options": options, **more}


SHORT = {"num_predict": 2}


@pytest.fixture(scope="module")
async def engine(tiny_data: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(config_for(tiny_data)) as client:
        yield client


async def running(engine: httpx.AsyncClient) -> tuple[Any, AsyncIterator[bytes]]:
    """An answer on its way, with its first piece taken."""
    stream = engine.stream("POST", "/api/chat", json=ask())
    response = await stream.__aenter__()
    pieces = response.aiter_raw()
    await anext(pieces)
    return stream, pieces


async def last_line(pieces: AsyncIterator[bytes]) -> dict[str, Any]:
    data = b"".join([piece async for piece in pieces])
    line: dict[str, Any] = json.loads(data.split(b"\n")[-2])
    return line


async def test_killed_runner_is_one_answers_error_and_loads_again(engine: httpx.AsyncClient) -> None:
    deadline, error, answers = asyncio.get_running_loop().time() + 60, None, 0
    while error is None:  # on a busy machine an answer may be over before the signal comes
        assert asyncio.get_running_loop().time() < deadline, f"{answers} answers ended before their runner was killed"
        answers += 1
        async with asyncio.timeout(30):
            await engine.post("/api/chat", json=ask(stream=False, options=SHORT))
            (pid,) = children()
            stream, pieces = await running(engine)
            os.kill(pid, signal.SIGKILL)
            error = (await last_line(pieces)).get("error")
            await stream.__aexit__(None, None, None)
            # the engine learns of the end after the system does: until then an answer would be the dead runner's error
            while (await engine.get("/api/ps")).json() != {"models": []}:
                pass
        assert not children()
    assert error.startswith("an error was encountered while running the model: unexpected EOF")
    assert "SIGKILL" in error
    again = await engine.post("/api/chat", json=ask(stream=False, options=SHORT))
    assert again.json()["eval_count"] == 2
    assert children() != {pid}


async def test_end_of_a_runner_is_seen_before_the_event_loop_hears_of_it(tiny_data: Path) -> None:
    config = config_for(tiny_data)
    model = Models(config).find("tiny:one")
    assert model is not None
    runner = await Launcher(config)(model, Loading(context=256))
    assert not runner.gone
    os.kill(runner.pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # the event loop's own waiting, in a thread, may be the first
        os.waitid(os.P_PID, runner.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop is not to hear of it
    assert runner.gone
    await runner.kill()
    assert runner.gone


async def test_hanging_runner_is_ended_by_the_watchdog(tiny_data: Path) -> None:
    """By one of its own, since so short a patience may end runners that only wait for a core."""
    config, before = config_for(tiny_data), children()
    async with serving(config, Launcher(config, Patience(every_s=0.2, health_s=1.0))) as engine:
        await engine.post("/api/chat", json=ask(stream=False, options=SHORT))
        (pid,) = children() - before
        os.kill(pid, signal.SIGSTOP)  # before it is asked: an answer under way might be over by then
        async with asyncio.timeout(60):
            response = await engine.post("/api/chat", json=ask())
        assert "did not answer any more" in response.text
        assert pid not in children()


async def test_leaving_frees_the_slot_at_once(engine: httpx.AsyncClient) -> None:
    await engine.post("/api/chat", json=ask(stream=False, options=SHORT))
    stream, _ = await running(engine)
    watch = Stopwatch(*children())
    await stream.__aexit__(None, None, None)
    response = await engine.post("/api/chat", json=ask(stream=False, options=SHORT))
    assert watch.own_s() < 2
    assert response.json()["eval_count"] == 2


async def test_load_is_abandoned_when_the_client_leaves(engine: httpx.AsyncClient) -> None:
    await engine.post("/api/chat", json={"model": "tiny:one", "keep_alive": 0})
    asking = asyncio.create_task(engine.post("/api/chat", json={"model": "tiny:two"}))
    await until(lambda: bool(children()))
    asking.cancel()
    await until(lambda: not children())
    assert (await engine.get("/api/ps")).json() == {"models": []}


async def test_runner_ends_with_its_input(tiny: Path) -> None:
    """So it goes with an engine that was killed, on every system."""
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arena.engine.runner", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert runner.stdin is not None
    assert runner.stdout is not None
    runner.stdin.write(msgspec.json.encode(Orders(str(tiny), "tiny", "secret", context=256)) + b"\n")
    async with asyncio.timeout(30):
        port = json.loads(await runner.stdout.readline())["port"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/props")).status_code == 401
            assert (await client.get("/props", headers={"Authorization": "Bearer secret"})).status_code == 200
        runner.stdin.close()
        assert await runner.wait() == 0


async def test_bad_options_never_reach_the_runner(engine: httpx.AsyncClient) -> None:
    await engine.post("/api/chat", json=ask(stream=False, options=SHORT))
    before = children()
    for bad in ({"num_keep": -(2**31)}, {"num_ctx": 2**40}, {"repeat_last_n": -2}, {"num_batch": -1}, {"top_k": -9}):
        response = await engine.post("/api/chat", json=ask(stream=False, options=bad))
        assert response.status_code == 400
    assert children() == before


async def test_load_that_takes_too_long(tiny_data: Path) -> None:
    async with serving(config_for(tiny_data, load_timeout_s=0.01)) as client:
        response = await client.post("/api/chat", json={"model": "tiny:one"})
    assert response.status_code == 500
    assert "timed out waiting for llama runner to start" in response.json()["error"]


def damage(tiny: Path, folder: Path) -> list[str]:
    source = random.Random(11)
    folder.mkdir()
    good = tiny.read_bytes()
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "page.gguf").write_bytes(b"<html>not a model</html>")
    (folder / "cut.gguf").write_bytes(good[: len(good) // 2])
    names = ["empty", "page", "cut"]
    for number in range(6):
        data = bytearray(good)
        for _ in range(3):
            data[source.randrange(150_000)] ^= 1 << source.randrange(8)  # in keys and vocabulary
        names.append(f"bent{number}")
        (folder / f"bent{number}.gguf").write_bytes(data)
    return names


async def test_damaged_files_are_refused_and_the_engine_lives_on(tiny: Path, tmp_path: Path) -> None:
    """Cut and bit-flipped files: a reason, or an answer (not every bit matters); never an end of the engine."""
    names = damage(tiny, tmp_path / "models")
    async with serving(config_for(tmp_path, load_timeout_s=20.0)) as client:
        for name in names:
            response = await client.post("/api/chat", json=ask(name, stream=False, options=SHORT, keep_alive=0))
            assert response.status_code in (200, 400, 500)
            if name in ("empty", "page", "cut"):
                error = response.json()["error"]
                assert error.startswith(f"model '{name}:latest' cannot be loaded: the file ")
                assert str(tmp_path) not in error
        assert (await client.get("/")).status_code == 200


async def test_llamas_own_reason_is_told_without_paths(tmp_path: Path) -> None:
    from tests.engine.files import gguf_bytes

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "odd.gguf").write_bytes(gguf_bytes({"general.architecture": "no-such-thing"}))
    async with serving(config_for(tmp_path)) as client:
        response = await client.post("/api/chat", json={"model": "odd"})
    error = response.json()["error"]
    assert response.status_code == 500
    assert "model 'odd:latest' cannot be loaded" in error
    assert "no-such-thing" in error
    assert str(tmp_path) not in error
