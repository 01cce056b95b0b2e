"""Children that are not what they should be: deaf, silent or talkative ones, played by a shell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arena.engine import launch, process
from arena.engine.launch import Launcher, Patience
from arena.engine.models import LocalModel
from arena.engine.options import Loading
from arena.engine.places import Found
from arena.engine.process import EngineFailed, EngineProcess
from arena.errors import ArenaError
from tests.engine.conftest import config_for, until
from tests.engine.test_process import environment, settings_for

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="a shell script")]
TALK = "head -c 200000 /dev/zero | tr '\\0' x >&2; echo >&2"


Play = Callable[[str], object]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Call it with the lines of a shell script: whatever is started as a child runs that."""
    program = tmp_path / "played"
    program.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return lambda script: program.write_text(f"#!/bin/sh\n{script}\n")


async def load(data: Path, patience: Patience | None = None) -> launch.Runner:
    return await Launcher(config_for(data), patience)(LocalModel(Found("m:1", data), 1, 1, None), Loading(context=512))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("""echo '{"port": 1}'; exec cat""", "its process does not answer: the runner is not reachable"),
        (f"{TALK}; exit 3", "its process ended while loading: unexpected EOF"),
        ("kill -37 $$", "was ended by signal 37"),
        ("echo '[New LWP 7]'; echo; kill -6 $$", "was ended by SIGABRT"),  # as a debugger speaks of a crash
    ],
)
async def test_runner_that_does_not_come_up(play: Play, tmp_path: Path, script: str, reason: str) -> None:
    play(script)
    with pytest.raises(ArenaError, match=reason) as caught:
        await load(tmp_path)
    assert caught.value.code == "load_failed"


async def test_watchdog_leaves_alone_what_ends_by_itself(play: Play, tmp_path: Path) -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"default_generation_settings": {"n_ctx": 256}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()
        server.close()

    server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    play(f"echo '{{\"port\": {port}}}'\nexec cat")
    runner = await load(tmp_path, Patience(every_s=0.0))
    assert runner.context == 256
    assert (runner.memory_bytes() or 1) > 0
    assert runner._watching is not None
    await asyncio.wait({runner._watching}, timeout=10)
    await runner.kill()
    assert runner.cause().startswith("unexpected EOF (its process was ended by SIGKILL")
    assert runner.memory_bytes() is None


async def test_engine_that_hears_nothing_is_ended_by_force(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "arena.engine.process")
    monkeypatch.setattr(process, "STOP_LIMIT_S", 0.05)
    play(f"trap '' TERM; {TALK}; echo ready >&2; echo '{{\"port\": 1}}'; while :; do sleep 1; done")
    engine = EngineProcess(settings_for(tmp_path), environment(), fetch=False)
    await engine.start()
    await until(lambda: "ready" in caplog.messages)
    await engine.stop()
    assert not engine.running


async def test_lines_of_the_engine_keep_their_level(
    play: Play, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "arena.engine.process")
    play(
        "echo 'WARNING arena.engine.runners: the runner of m ended: EOF' >&2; echo 'NOISE a.b: c' >&2; echo words >&2\n"
        "echo '{\"port\": 1}'; exec cat"
    )
    engine = EngineProcess(settings_for(tmp_path), environment(), fetch=False)
    await engine.start()
    await until(lambda: "words" in caplog.messages)
    await engine.stop()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the runner of m ended: EOF"),
        ("INFO", "NOISE a.b: c"),
        ("INFO", "words"),
    ]


async def test_engine_that_says_why_it_does_not_start(play: Play, tmp_path: Path) -> None:
    play("echo 'ERROR uvicorn.error: no port is free' >&2; exit 3")
    with pytest.raises(EngineFailed, match="did not start: no port is free"):
        await EngineProcess(settings_for(tmp_path), environment(), fetch=False).start()


async def test_engine_that_says_nothing(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_LIMIT_S", 0.05)
    play("exec cat")
    engine = EngineProcess(settings_for(tmp_path), environment(), fetch=False)
    with pytest.raises(EngineFailed, match="it did not say why"):
        await engine.start()
    await engine.stop()
