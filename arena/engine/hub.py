"""Which file of a Hugging Face repository is meant: its address, size and checksum, as the hub tells them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from arena.engine.download import DownloadFailed, get
from arena.engine.library import NOT_THERE, HubFile
from arena.engine.places import PROJECTOR, quantization_of
from arena.errors import NotFound


class Blob(Struct, frozen=True):
    """One file to fetch. `projector` files lie beside the model they belong to."""

    url: str
    sha256: str
    size_bytes: int
    projector: bool = False


class _Large(Struct):
    oid: str = ""
    size: int = 0


class _Entry(Struct):
    path: str = ""
    size: int = 0
    lfs: _Large | None = None


async def resolve(hub_url: str, wanted: HubFile) -> list[Blob]:
    """The model's file, and its projector if it has one. Raises NotFound or DownloadFailed."""
    try:
        listing = await get(f"{hub_url}/api/models/{quote(wanted.repository)}/tree/main?recursive=true")
        entries = msgspec.json.decode(listing, type=list[_Entry])
    except msgspec.DecodeError:
        raise DownloadFailed("the hub's answer is not understood") from None
    except DownloadFailed as error:
        if error.message.startswith(("401", "403", "404")):  # the hub answers 401 for what does not exist
            raise NotFound(NOT_THERE) from None
        raise
    files = {entry.path: entry for entry in entries if re.fullmatch(r"[\w./-]+\.gguf", entry.path)}
    model = files.get(wanted.file) or _by_quantization(files, wanted.quantization)
    if model is None:
        raise NotFound(NOT_THERE)
    blobs = [_blob(hub_url, wanted.repository, model)]
    projector = files.get(wanted.projector) or next((e for p, e in sorted(files.items()) if PROJECTOR in p), None)
    if projector is not None:
        blobs.append(_blob(hub_url, wanted.repository, projector, projector=True))
    return blobs


def _by_quantization(files: dict[str, _Entry], quantization: str) -> _Entry | None:
    for path, entry in sorted(files.items()):
        stem = path.rsplit("/", 1)[-1].removesuffix(".gguf")
        in_parts = re.search(r"-\d{5}-of-\d{5}$", stem)
        if quantization and PROJECTOR not in path and not in_parts and quantization_of(stem) == quantization.upper():
            return entry
    return None


def _blob(hub_url: str, repository: str, entry: _Entry, **more: Any) -> Blob:
    if entry.lfs is None or not re.fullmatch(r"[0-9a-f]{64}", entry.lfs.oid):
        raise DownloadFailed("the hub names no checksum for this file")
    url = f"{hub_url}/{quote(repository)}/resolve/main/{quote(entry.path)}"
    return Blob(url, entry.lfs.oid, entry.lfs.size or entry.size, **more)
