"""The engine as a child of the arena: started, found again after a crash, ended with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from arena.engine import process
from arena.engine.process import EngineFailed, EngineProcess, orders
from arena.settings import Settings, load
from tests.engine.conftest import until
from tests.engine.files import gguf_bytes

pytestmark = pytest.mark.anyio


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OLLAMA_MODELS": "/none", "HF_HUB_CACHE": "/none", **more}


def settings_for(data: Path, **more: Any) -> Settings:
    """Settings of an arena whose engine takes one thread, which shares a busy machine best."""
    return load(data=data, engine_threads=1, **more)


async def alive(url: str) -> bool:
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).text == "Ollama is running"


async def test_start_crash_restart_stop(tmp_path: Path) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    engine = EngineProcess(settings_for(tmp_path), environment(), fetch=False, sleep=sleep)
    assert (engine.url, engine.running, engine.pid) == (None, False, None)
    url = await engine.start()
    assert await alive(url)
    assert await engine.start() == url
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: engine.restarts == 1)
    assert engine.url == url
    assert await alive(url)
    assert waits == [0.5]
    await engine.stop()
    assert not engine.running
    with pytest.raises(httpx.ConnectError):
        await alive(url)
    await engine.stop()


async def test_where_its_port_was_taken_meanwhile_it_comes_back_on_another(tmp_path: Path) -> None:
    waits = 0

    async def sleep(_: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 1:
            taken.bind(("127.0.0.1", urlsplit(url).port))
            taken.listen()

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        engine = EngineProcess(settings_for(tmp_path), environment(), fetch=False, sleep=sleep)
        url = await engine.start()
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.restarts == 1)
        assert waits == 2
        assert engine.url not in (None, url)
        assert await alive(str(engine.url))
        await engine.stop()


async def test_orders_of_the_settings_reach_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more").mkdir()
    for file in (tmp_path / "more" / "far.gguf", tmp_path / "-near.gguf"):
        file.write_bytes(gguf_bytes())
    monkeypatch.setenv("ARENA_MODELS", os.pathsep.join([str(tmp_path / "more"), str(tmp_path / "-near.gguf")]))
    settings = settings_for(tmp_path / "data")
    assert orders(settings)[-1] == "--threads=1"
    assert orders(load(data=Path("d"), engine_models=())) == ["--data", "d"]
    engine = EngineProcess(settings, environment(), fetch=False)
    async with httpx.AsyncClient(base_url=await engine.start()) as client:
        listed = (await client.get("/api/tags")).json()["models"]
    await engine.stop()
    assert {model["name"] for model in listed} >= {"far:latest", "near:latest"}


ARENA = """
import asyncio, sys
from pathlib import Path
from arena.engine.process import EngineProcess
from arena.settings import load

async def main():
    engine = EngineProcess(load(data=Path(sys.argv[1])), fetch=False)
    print(await engine.start(), engine.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="process groups")
async def test_ctrl_c_of_a_shell_passes_it_by_and_no_death_of_the_arena_leaves_it(tmp_path: Path) -> None:
    arena = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ARENA, str(tmp_path),
        env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert arena.stdout is not None
        url, pid = (await asyncio.wait_for(arena.stdout.readline(), 60)).decode().split()
        assert os.getpgid(int(pid)) == int(pid) != os.getpgid(arena.pid)  # a shell's signal goes to the arena's group
        assert await alive(url)
    finally:
        arena.kill()
        await arena.wait()
    await until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


async def test_wrong_setting_is_told(tmp_path: Path) -> None:
    engine = EngineProcess(settings_for(tmp_path), environment(OLLAMA_NUM_PARALLEL="many"), fetch=False)
    with pytest.raises(EngineFailed, match="OLLAMA_NUM_PARALLEL must be a whole number"):
        await engine.start()
    assert not engine.running
    await engine.stop()


async def test_start_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    engine = EngineProcess(settings_for(tmp_path), environment(), fetch=False)
    starting = asyncio.create_task(engine.start())
    await until(lambda: engine.pid is not None)
    starting.cancel()
    await asyncio.wait({starting})
    assert not engine.running
    await engine.stop()


@pytest.mark.parametrize(("calm_s", "expected"), [(60.0, [0.5, 1.0, 2.0]), (-1.0, [0.5, 0.5, 0.5])])
async def test_waits_grow_while_it_keeps_failing_but_not_after_it_was_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm_s: float, expected: list[float]
) -> None:
    monkeypatch.setattr(process, "CALM_S", calm_s)
    waits: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            enough.set()
            await asyncio.Event().wait()

    env = environment()
    engine = EngineProcess(settings_for(tmp_path), env, fetch=False, sleep=sleep)
    await engine.start()
    env["OLLAMA_NUM_PARALLEL"] = "many"
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await asyncio.wait_for(enough.wait(), 60)
    await engine.stop()
    assert waits == expected


def run(*arguments: str, data: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "arena.engine", *arguments, "--data", str(data)],
        env=environment(**env), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_ends_when_its_input_is_closed(tmp_path: Path) -> None:
    ended = run("--port", "0", "--watch-parent", "--no-fetch", data=tmp_path)
    assert ended.returncode == 0
    assert '"port"' in ended.stdout


def test_taken_port_is_an_exit_status(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run("--port", str(taken.getsockname()[1]), "--no-fetch", data=tmp_path)
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert "address already in use" in ended.stderr


def test_wrong_setting_is_an_exit_status(tmp_path: Path) -> None:
    ended = run("serve", data=tmp_path, OLLAMA_MAX_QUEUE="x")
    assert (ended.returncode, ended.stderr) == (2, "OLLAMA_MAX_QUEUE must be a whole number, 0 or more.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_sigterm_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "arena.engine", "--port", "0", "--no-fetch", "--data", str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert '"version"' in process.stdout.readline()
        process.terminate()
        process.wait(60)


def test_broken_own_file_is_said_by_setup(tmp_path: Path) -> None:
    (tmp_path / "models" / "smollm2").mkdir(parents=True)
    (tmp_path / "models" / "smollm2" / "135m.gguf").write_bytes(gguf_bytes()[:10])
    ended = run("setup", data=tmp_path)
    assert "smollm2:135m  0 MB  the file has only 10 bytes" in ended.stdout
