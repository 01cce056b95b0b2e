"""What the engine's tests share: a tiny model, a data folder that holds it, and an engine that answers."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from arena.engine.config import Config
from arena.engine.runners import Launch
from arena.engine.server import create_app, create_server
from tests.engine.files import gguf_bytes, smollm2, write_tiny
from tests.engine.scripted import Scripted

TEMPLATE = "{% if tools %}{{ tools }}{% endif %}{% if enable_thinking %}x{% endif %}"
KEYS = {"general.architecture": "llama", "llama.context_length": 4096, "tokenizer.chat_template": TEMPLATE}


@pytest.fixture(scope="session")
def real() -> Path:
    """The real SmolLM2's file."""
    path = smollm2()
    if path is None:
        pytest.skip("SmolLM2 is not here: run `python -m arena.engine setup`")
    return path


@pytest.fixture(scope="session")
def tiny(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of random weights."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny(real, path)
    return path


@pytest.fixture(scope="session")
def tiny_data(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two models, tiny:one and tiny:two, that nobody changes."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "models" / "tiny"
    folder.mkdir(parents=True)
    for tag in ("one", "two"):
        shutil.copyfile(tiny, folder / f"{tag}.gguf")
    return data


def config_for(data: Path, **changes: object) -> Config:
    """Settings that look nowhere but into `data`, with one thread, which shares a busy machine best."""
    return Config(data=data, threads=1, package="no_such_package", fetch=False, **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def serving(config: Config, launch: Launch | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """An engine on a real port in this process, and a client for it."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = create_server(create_app(config, launch), "127.0.0.1", 0, port.set_result)
    running = asyncio.create_task(server.serve())
    try:
        address = f"http://127.0.0.1:{await asyncio.wait_for(port, 60)}"
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        await asyncio.wait({running})


@pytest.fixture(scope="module")
async def engine(tiny_data: Path) -> AsyncIterator[httpx.AsyncClient]:
    """One engine with the tiny models for the tests of a module."""
    async with serving(config_for(tiny_data, parallel=2, context_length=512)) as client:
        yield client


@pytest.fixture(scope="module")
async def actor() -> AsyncIterator[Scripted]:
    """One script for the tests of a module."""
    async with Scripted().running() as scripted:
        yield scripted


@pytest.fixture
def script(actor: Scripted, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """The script, begun anew."""
    monkeypatch.setattr(actor, "port", actor.port)
    monkeypatch.setattr("arena.engine.core.LAST_WORDS_S", 0.01)  # its last words are scripted, too
    actor.reset()
    return actor


@pytest.fixture(scope="module")
async def able(actor: Scripted, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """An engine whose only model thinks, uses tools and sees, and is played by the script."""
    tmp_path = tmp_path_factory.mktemp("able")
    folder = tmp_path / "models" / "able"
    folder.mkdir(parents=True)
    (folder / "1b.gguf").write_bytes(gguf_bytes(KEYS))
    (folder / "1b.json").write_bytes(b'{"system": "Be kind.", "parameters": {"top_k": 3}}')
    (folder / "mmproj.gguf").write_bytes(gguf_bytes())
    (folder.parent / "vectors.gguf").write_bytes(gguf_bytes({"general.architecture": "bert"}))
    async with serving(config_for(tmp_path), actor) as client:
        yield client


async def until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    """Wait for something in another process, which no event of ours can tell. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(limit_s):
        while not condition():
            tick = loop.create_future()
            loop.call_later(0.01, tick.set_result, None)
            await tick


def children(pid: int | None = None) -> set[int]:
    """The process ids of the runners that `pid` (this process) has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = stat.with_name("cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if int(fields[1]) == (pid or os.getpid()) and b"arena.engine.runner" in command and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found
