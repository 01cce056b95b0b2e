"""Digests: worked out once for each file as it is, and again when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arena.engine import digests
from arena.engine.digests import Digests
from arena.engine.models import Models
from tests.engine.conftest import config_for
from tests.engine.files import gguf_bytes

pytestmark = pytest.mark.anyio


async def test_no_file_is_read_twice_unless_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    sha256_of = digests.sha256_of

    def noted(path: Path) -> str:
        read.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(digests, "sha256_of", noted)
    models = Models(config_for(tmp_path))
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "m.gguf"
    file.write_bytes(gguf_bytes({"general.architecture": "llama"}))
    for _ in range(2):  # as after a new start
        known = Digests(tmp_path / "digests.json")
        await known.keep(models)
        assert read == ["m.gguf"]
    os.utime(file, (1, 1))
    await known.keep(models)
    assert read == ["m.gguf"] * 2
    (model,) = models.scan()
    assert known.of(model) == sha256_of(file)
