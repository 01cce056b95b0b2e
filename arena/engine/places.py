"""The places where models already lie on this machine; they are only read. The best place comes first."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from arena.engine.config import Config
from arena.errors import BadRequest
from arena.names import checked

log = logging.getLogger(__name__)

PACKAGED_NAME = "smollm2:135m"
PROJECTOR = "mmproj"
LARGEST_LAYER_TEXT = 1024 * 1024

_QUANTIZATION = re.compile(r"(?i)(?:^|[-._])((?:i?q[1-8]|f16|f32|bf16|mxfp4|tq[12])(?:[-_][a-z0-9]+)*)$")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")
_FIRST_PART = re.compile(r"-00001-of-\d{5}$")


class Found(Struct, frozen=True):
    """A model file and what its place says about it. `own` files may be deleted; `digest` is bare hex or ""."""

    name: str
    path: Path
    own: bool = False
    projector: Path | None = None
    digest: str = ""
    system: str = ""
    license: str = ""
    parameters: dict[str, Any] = {}


def find_all(config: Config) -> Iterator[Found]:
    """Every model of every place; the same name may come more than once, the first is the one meant."""
    yield from own_folder(config.models)
    yield from packaged(config.package)
    for path in config.extra_models:
        yield from _named_by_path(path)
    for root in config.ollama_models:
        yield from ollama_store(root)
    if config.hub_cache is not None:
        yield from hub_cache(config.hub_cache)


def own_folder(root: Path) -> Iterator[Found]:
    """`<root>/smollm2/135m.gguf` is smollm2:135m; a file at the top is `<stem>:latest`."""
    for path in _gguf_files(root):
        folders = path.relative_to(root).parts[:-1]
        parts = [*folders, path.stem] if folders else [path.stem, "latest"]
        name = f"{'/'.join(parts[:-1])}:{parts[-1]}"
        yield from _found(name, path, own=True, **_sidecar(path))


def packaged(package: str) -> Iterator[Found]:
    """The weights inside an installed package, which is looked up but never imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*.gguf"))[:1]:
            yield Found(PACKAGED_NAME, path)


def _named_by_path(path: Path) -> Iterator[Found]:
    files = _gguf_files(path) if path.is_dir() else [path] if path.is_file() else []
    for file in files:
        yield from _found(f"{_clean(_FIRST_PART.sub('', file.stem))}:latest", file)


def ollama_store(root: Path) -> Iterator[Found]:
    """Models that Ollama pulled: manifests name the layers, blobs hold them. Never written to."""
    manifests = root / "manifests"
    try:
        files = sorted(path for path in manifests.rglob("*") if path.is_file())
    except OSError as error:
        log.info("Ollama's folder cannot be read: %s", error.strerror)
        return
    for path in files:
        parts = path.relative_to(manifests).parts
        if len(parts) != 4:
            continue
        try:
            yield from _ollama_model(root, path, parts)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            log.warning("a manifest in Ollama's folder is not understood: %s", "/".join(parts))


def _ollama_model(root: Path, manifest: Path, parts: tuple[str, ...]) -> Iterator[Found]:
    host, namespace, model, tag = parts
    layers: dict[str, Path] = {}
    digest = ""
    for layer in json.loads(manifest.read_bytes())["layers"]:
        kind = layer["mediaType"].rsplit(".", 1)[-1]
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", layer["digest"]):
            return
        layers[kind] = root / "blobs" / layer["digest"].replace(":", "-")
        digest = layer["digest"].removeprefix("sha256:") if kind == "model" else digest
    if "model" not in layers or not layers["model"].is_file():
        return  # safetensors, a cloud stub, or a pull that has not ended
    prefix = "" if namespace == "library" else f"{namespace}/"
    if host != "registry.ollama.ai":
        prefix = f"{host}/{namespace}/"
    yield from _found(
        f"{prefix}{model}:{tag}",
        layers["model"],
        projector=layers.get("projector"),
        digest=digest,
        system=_layer_text(layers.get("system")),
        license=_layer_text(layers.get("license")),
        parameters=json.loads(_layer_text(layers.get("params")) or "{}"),
    )


def _layer_text(path: Path | None) -> str:
    if path is None or not path.is_file() or path.stat().st_size > LARGEST_LAYER_TEXT:
        return ""
    return path.read_text("utf-8", "replace")


def hub_cache(root: Path) -> Iterator[Found]:
    """GGUF files in the Hugging Face cache, named hf.co/organisation/repository:QUANTISATION as in Ollama."""
    for folder in _matching(root, "models--*--*"):
        _, organisation, repository = folder.name.split("--", 2)
        for snapshot in _matching(folder, "snapshots/*"):
            for path in _gguf_files(snapshot):
                blob = path.resolve()
                digest = blob.name if re.fullmatch(r"[0-9a-f]{64}", blob.name) else ""
                name = f"hf.co/{_clean(organisation)}/{_clean(repository)}:{quantization_of(path.stem)}"
                yield from _found(name, path, digest=digest)


def quantization_of(stem: str) -> str:
    """The quantisation in a file's name ("...-Q4_K_M" gives Q4_K_M), or the whole cleaned name."""
    stem = _FIRST_PART.sub("", stem)
    match = _QUANTIZATION.search(stem)
    return match.group(1).upper() if match else _clean(stem)


def _matching(root: Path, pattern: str) -> list[Path]:
    """What matches in a folder; nothing, if we may not look into it."""
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []


def _gguf_files(root: Path) -> list[Path]:
    """Model files under `root`: no projectors, and of a model in parts only the first."""
    return [
        path
        for path in _matching(root, "**/*.gguf")
        if PROJECTOR not in path.name.lower() and not _LATER_PART.search(path.stem) and os.path.isfile(path)
    ]


def _found(name: str, path: Path, **details: Any) -> Iterator[Found]:
    try:
        checked(name)
    except BadRequest:
        log.warning("a model file is left out, its name cannot be a model's: %s", path.name)
        return
    if details.get("projector") is None:
        details["projector"] = _projector_beside(path)
    yield Found(name, path, **details)


def _projector_beside(path: Path) -> Path | None:
    if path.suffix != ".gguf":
        return None
    return next((file for file in sorted(path.parent.glob("*.gguf")) if PROJECTOR in file.name.lower()), None)


def _sidecar(path: Path) -> dict[str, Any]:
    """What lies beside an own model: the system text and parameters of the model it was copied from."""
    try:
        noted = json.loads(path.with_suffix(".json").read_bytes())
        return {key: noted[key] for key in ("system", "license", "parameters") if key in noted}
    except (OSError, ValueError, TypeError):
        return {}


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:80] or "model"
