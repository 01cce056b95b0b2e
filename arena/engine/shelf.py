"""Changing what lies in the engine's own folder: delete and copy. Files of other programs are never touched."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from arena.engine.config import Config
from arena.engine.models import LocalModel
from arena.engine.places import PROJECTOR
from arena.engine.pull import path_of, projector_path
from arena.errors import BadRequest
from arena.names import canonical


def delete(model: LocalModel) -> None:
    """Delete an own model. Raises BadRequest for one that belongs to another program."""
    found = model.found
    if not found.own:
        raise BadRequest(f"model '{model.name}' does not lie in the arena's own folder and is not deleted")
    found.path.unlink(missing_ok=True)
    found.path.with_suffix(".json").unlink(missing_ok=True)
    if found.projector is not None and not _others(found.path):
        found.projector.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: other tags lie there
        found.path.parent.rmdir()


def _others(path: Path) -> bool:
    return any(PROJECTOR not in file.name.lower() for file in path.parent.glob("*.gguf"))


def copy(config: Config, model: LocalModel, name: str) -> None:
    """Give the model a second name: a link where the disk can, a copy where it cannot. Raises OSError."""
    target = path_of(config.models, canonical(name))
    if target.exists() and target.samefile(model.found.path):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    pairs = [(model.found.path, target)]
    if model.found.projector is not None:
        pairs.append((model.found.projector, projector_path(target)))
    for source, destination in pairs:
        _link(source.resolve(), destination)
    noted = {key: getattr(model.found, key) for key in ("system", "license", "parameters")}
    if any(noted.values()):
        target.with_suffix(".json").write_bytes(msgspec.json.encode(noted))


def _link(source: Path, target: Path) -> None:
    partial = target.with_name(target.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)
