"""Starting and stopping: which endpoints there are, and when the embedded engine comes in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arena.arena import FIRST_MODEL, Arena, child_environment
from arena.engine.process import EngineFailed, EngineProcess
from arena.settings import Settings, load
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio
NOBODY = "http://127.0.0.1:9"


class StandIn(EngineProcess):
    """An engine process whose address is a fake server's, or that fails to start."""

    def __init__(self, address: str | None, gate: asyncio.Event | None = None) -> None:
        super().__init__(load(data=Path("unused")))
        self.address = address
        self.gate = gate
        self.alive = False
        self.calls: list[str] = []

    @property
    def running(self) -> bool:
        return self.alive

    async def start(self) -> str:
        self.calls.append("start")
        if self.gate is not None:
            await self.gate.wait()
        if self.address is None:
            raise EngineFailed("no such thing here")
        self.alive = True
        return self.address

    async def stop(self) -> None:
        self.calls.append("stop")


def settings(**values: Any) -> Settings:
    return load(**values)


async def test_what_keeps_votes_and_models_away_is_told_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, missing, there = tmp_path / "data", tmp_path / "x.gguf", tmp_path / "y.gguf"
    data.symlink_to(tmp_path / "disk that is not mounted")
    there.touch()
    arena = Arena(settings(data=data, endpoints=(NOBODY,), engine_models=(missing, there)), engine=StandIn(None))
    async with arena.running():
        assert [text for name, _, text in caplog.record_tuples if not name.startswith("arena.fleet")] == [
            f"ARENA_MODELS names what is not there: {missing}",
            f"no store can be made in {data}: No such file or directory; "
            "let this user write there, or set ARENA_DATA to another folder",
            "no votes until this is mended: The store cannot be used now: its folder cannot be used. "
            "Nothing was saved; it is safe to try again.",
        ]


async def test_a_store_is_made_where_there_is_none_and_what_keeps_it_away_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arena = Arena(settings(data=tmp_path / "data", endpoints=(NOBODY,)), engine=StandIn(None))
    await arena.begin_store()
    assert arena.store.exists
    arena.store.close()
    await arena.begin_store()
    assert not arena.store.database.opened, "it is there"
    (tmp_path / "link").symlink_to(tmp_path / "disk that is not mounted")
    await Arena(settings(data=tmp_path / "link"), engine=StandIn(None)).begin_store()
    assert "no store could be made: The store cannot be used now: its folder cannot be used." in caplog.text


async def test_a_fleet_that_is_read_again_in_the_background_tells_what_is_wrong(
    tmp_path: Path, fake: FakeOllama, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    file = tmp_path / "fleet.yaml"
    file.write_text(f"endpoints: [{{name: one, url: {fake.url}}}]")
    arena = Arena(settings(fleet=file, data=tmp_path), engine=StandIn(None))

    async def reload() -> str:
        caplog.clear()
        arena.reload_soon()
        first = arena.reloading
        arena.reload_soon()
        assert first is not None
        assert arena.reloading is first, "one at a time"
        await asyncio.wait_for(first, 10)
        return " ".join(endpoint.name for endpoint in arena.fleet.endpoints)

    async with arena.running():
        file.write_text(f"endpoints: [{{name: one, url: {fake.url}}}, {{name: two, url: {fake.url}/two}}]")
        assert await reload() == "one two"
        assert "the fleet was read again: one, two" in caplog.text
        file.write_text("endpoints: 5")
        assert await reload() == "one two"
        assert "the fleet stays as it was: " in caplog.text
        assert f"{file}:1: endpoints" in caplog.text
        file.write_text(f"endpoints: [{{name: one, url: {fake.url}}}]")

        def refuse(spec: object) -> None:
            raise ValueError("no such address")

        monkeypatch.setattr(arena.fleet, "apply", refuse)
        assert await reload() == "one two"
        assert "the fleet stays as it was: no such address" in caplog.text


async def test_who_has_not_begun_waits_for_nothing() -> None:
    await asyncio.wait_for(Arena(settings(endpoints=(NOBODY,)), engine=StandIn(None)).started(), 10)


async def test_named_endpoints_are_used_and_the_engine_stays_off(fake: FakeOllama) -> None:
    engine = StandIn(fake.url)
    arena = Arena(settings(endpoints=(f"gpu={fake.url}", f"other={NOBODY}")), engine=engine)
    async with arena.running():
        await arena.started()
        assert [endpoint.name for endpoint in arena.fleet.endpoints] == ["gpu", "other"]
        assert arena.engine_state == "off"
    assert engine.calls == ["stop"]


async def test_without_settings_the_local_ollama_is_found(fake: FakeOllama) -> None:
    engine = StandIn(None)
    arena = Arena(settings(), engine=engine, local_ollama=fake.url)
    async with arena.running():
        await arena.started()
        (status,) = await arena.fleet.statuses()
        assert (status.name, status.kind, status.reachable) == ("ollama", "ollama", True)
    assert "start" not in engine.calls


async def test_where_no_ollama_answers_the_engine_starts_and_the_log_says_so(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    arena = Arena(settings(), engine=StandIn(fake.url), local_ollama=NOBODY)
    async with arena.running():
        await arena.started()
        (endpoint,) = arena.fleet.endpoints
        assert (endpoint.name, endpoint.kind) == ("engine", "engine")
        assert arena.engine_state == "running"
        assert arena.catalog.jobs() == ()
        assert [(record.levelname, record.message) for record in caplog.records] == [
            ("INFO", f"no Ollama answers at {NOBODY}: the embedded engine is started instead"),
            ("INFO", f"the embedded engine answers at {fake.url}"),
        ]


async def test_where_nothing_answers_the_log_tells_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    async with Arena(settings(engine="off"), engine=StandIn(None), local_ollama=NOBODY).running() as arena:
        await arena.started()
    assert [record.message for record in caplog.records if record.name == "arena.arena"] == [
        f"no Ollama answers at {NOBODY}: start it, or name your servers in ARENA_ENDPOINTS"
    ]


async def test_an_engine_that_crashed_is_starting_again(fake: FakeOllama) -> None:
    engine = StandIn(fake.url)
    arena = Arena(settings(engine="on"), engine=engine, local_ollama=NOBODY)
    async with arena.running():
        await arena.started()
        states = []
        for engine.alive in (False, True):
            states.append(arena.engine_state)
        assert states == ["starting", "running"]


async def test_an_engine_without_any_model_fetches_its_first_one() -> None:
    async with FakeOllama(models=[]) as empty:
        arena = Arena(settings(engine="on"), engine=StandIn(empty.url), local_ollama=NOBODY)
        async with arena.running():
            await arena.started()
            (job,) = arena.catalog.jobs()
            assert (job.model, job.endpoint) == (FIRST_MODEL, "engine")


async def test_engine_on_joins_the_ollama_that_answers(fake: FakeOllama) -> None:
    arena = Arena(settings(engine="on"), engine=StandIn(fake.url), local_ollama=fake.url)
    async with arena.running():
        await arena.started()
        assert [endpoint.name for endpoint in arena.fleet.endpoints] == ["ollama", "engine"]


async def test_with_the_engine_off_the_silent_ollama_is_shown_as_such() -> None:
    arena = Arena(settings(engine="off"), engine=StandIn(None), local_ollama=NOBODY)
    async with arena.running():
        await arena.started()
        (status,) = await arena.fleet.statuses()
        assert not status.reachable
        assert arena.engine_state == "off"


async def test_an_engine_that_fails_leaves_the_arena_up_and_says_why() -> None:
    arena = Arena(settings(), engine=StandIn(None), local_ollama=NOBODY)
    async with arena.running():
        await arena.started()
        assert arena.engine_state == "failed"
        assert arena.engine_error == "no such thing here"
        (endpoint,) = arena.fleet.endpoints
        assert endpoint.url == NOBODY


async def test_an_ollama_that_comes_up_later_is_used_where_no_engine_started() -> None:
    late = FakeOllama()
    async with late:
        url = late.url
    arena = Arena(settings(), engine=StandIn(None), local_ollama=url)
    async with arena.running():
        await arena.started()
        assert not (await arena.fleet.statuses())[0].reachable
        async with FakeOllama(port=late.port):
            assert await arena.catalog.models()


def test_a_child_finds_the_package_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [sys.executable, "-c", "import sys, arena.engine; print(sys.path)"]
    found = subprocess.run(command, cwd="/", env=child_environment(), capture_output=True, text=True, check=True)
    assert str(tmp_path) in found.stdout


async def test_the_page_does_not_wait_for_the_engine_and_stopping_does_not_either(fake: FakeOllama) -> None:
    engine = StandIn(fake.url, gate=asyncio.Event())
    arena = Arena(settings(), engine=engine, local_ollama=NOBODY)
    async with arena.running():
        await asyncio.wait([asyncio.ensure_future(arena.started())], timeout=0.05)
        assert arena.engine_state in ("off", "starting")
    assert engine.calls[-1] == "stop"
