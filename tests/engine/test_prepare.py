"""What the first start and `setup` make, with a tiny model in SmolLM2's place."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import pytest

from arena.engine import prepare, requantise
from arena.engine.config import Config
from arena.engine.digests import Digests
from arena.engine.header import read_header
from arena.engine.library import LIBRARY, UNKNOWN
from arena.engine.models import Models
from arena.engine.places import PACKAGED_NAME
from arena.engine.pull import Pulls
from arena.errors import ArenaError
from tests.engine.conftest import config_for, until

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@pytest.fixture
def data(tiny: Path, tmp_path: Path) -> Path:
    """A data folder with the first model."""
    own = tmp_path / "models" / "smollm2"
    own.mkdir(parents=True)
    (own / "135m.gguf").symlink_to(tiny)
    return tmp_path


async def at_once(_: float) -> None:
    """An engine that has nothing to do."""


def parts(data: Path) -> tuple[Config, Models, Pulls]:
    config = config_for(data)
    models = Models(config)
    return config, models, Pulls(config, models, Digests(data / "digests.json"))


async def test_the_first_start_fetches_nothing_where_nothing_can_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(LIBRARY, PACKAGED_NAME)
    await prepare.first_start(*parts(tmp_path), at_once)
    assert f"{UNKNOWN}; any GGUF file in {tmp_path / 'models'}, or one that ARENA_MODELS names, will do" in caplog.text
    out = io.StringIO()
    assert not await prepare.setup(config_for(tmp_path), out)
    assert out.getvalue() == f"pulling manifest\n{UNKNOWN}\n"


async def test_the_first_start_makes_the_sister_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    async def make(config: Config, models: Models, *, patient: bool) -> bool:
        assert patient
        made.append(config.data)
        return True

    monkeypatch.setattr(prepare, "make_sister", make)
    waited: list[float] = []

    async def quiet(seconds: float) -> None:
        assert made == []
        waited.append(seconds)

    for _ in range(2):
        await prepare.first_start(*parts(data), quiet)
    assert (made, waited) == ([data], [prepare.QUIET_S])


async def test_failure_is_told_and_leaves_no_file(data: Path) -> None:
    config, models, _ = parts(data)
    models.find(PACKAGED_NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(ArenaError, match="could not be made"):
            await prepare.make_sister(config, models, patient=True)
    assert [file.name for file in (data / "models" / "smollm2").iterdir()] == ["135m.gguf"]


async def test_setup_makes_the_sister_and_lists_both(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    for _ in range(2):
        assert await prepare.setup(config_for(data), out)
        monkeypatch.setattr(sys, "executable", "/bin/false")  # what is there is not made again
    first, second, *again = out.getvalue().splitlines()
    assert {line.split()[0] for line in (first, second)} == {PACKAGED_NAME, requantise.NAME}
    assert again == [first, second]


async def test_cancel_ends_the_work(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = data / "slow"
    slow.write_text('#!/bin/sh\necho $$ > "$0.pid.new"; mv "$0.pid.new" "$0.pid"; exec sleep 600\n')
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    config, models, _ = parts(data)
    working = asyncio.create_task(prepare.make_sister(config, models))
    await until((data / "slow.pid").exists)
    working.cancel()
    await asyncio.wait({working})
    with pytest.raises(ProcessLookupError):
        os.kill(int((data / "slow.pid").read_text()), 0)


def test_in_this_process(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "q8.gguf"
    requantise.requantise(tiny, target)
    assert read_header(target).quantization == "Q8_0"
    assert [file.name for file in target.parent.iterdir()] == ["q8.gguf"]
