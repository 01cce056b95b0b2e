"""Changing what lies in the engine's own folder: delete and copy. Files of other programs are never touched."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

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


def noted(model: LocalModel) -> dict[str, Any]:
    """What belongs to a model and does not stand in its file: system text, licence, parameters."""
    found = model.found
    values = {"system": found.system, "license": found.license, "parameters": found.parameters}
    return {key: value for key, value in values.items() if value}


def copy(config: Config, model: LocalModel, name: str) -> None:
    """Give the model a second name. Raises OSError."""
    store(config, canonical(name), model.found.path, model.found.projector, noted(model))


def store(config: Config, name: str, model: Path, projector: Path | None, notes: dict[str, Any]) -> None:
    """Put a model on the shelf: links to its files where the disk can, copies where it cannot. Raises OSError."""
    target = path_of(config.models, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    _link(model.resolve(), target)
    if projector is not None:
        _link(projector.resolve(), projector_path(target))
    sidecar = target.with_suffix(".json")
    if any(notes.values()):
        partial = sidecar.with_name(sidecar.name + ".part")
        partial.write_bytes(msgspec.json.encode(notes))
        os.replace(partial, sidecar)
    else:
        sidecar.unlink(missing_ok=True)  # of a model that had this name before


def _link(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    partial = target.with_name(target.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)
