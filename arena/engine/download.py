"""Fetching one large file: resumed where it stopped, checked against its SHA-256, put in place whole or not at all."""

from __future__ import annotations

import asyncio
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from arena.endings import finished
from arena.engine.digests import sha256_of
from arena.errors import ArenaError

BLOCK_BYTES = 256 * 1024
SILENCE_S = 60.0
USER_AGENT = "ollama-arena"

Progress = Callable[[int, int], None]  # bytes so far, bytes in all


class DownloadFailed(ArenaError):
    """The file could not be fetched; what came so far is kept for the next try."""

    default_code = "download_failed"


async def get(url: str, limit_bytes: int = 8 * 1024 * 1024) -> bytes:
    """A small document. Raises DownloadFailed."""
    return await asyncio.to_thread(_get, url, limit_bytes)


async def download(url: str, target: Path, sha256: str, progress: Progress) -> None:
    """Fetch `url` to `target`; `progress` is called from another thread. Cancelling stops within a block."""
    stop = threading.Event()
    working = asyncio.create_task(asyncio.to_thread(_download, url, target, sha256, progress, stop))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()
        await finished({working})
        working.exception()  # nobody is there to be told
        raise


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    if not url.startswith(("https://", "http://")):
        raise DownloadFailed("only http and https addresses are fetched")
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadFailed(f"{error.code}: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        why = getattr(reason, "strerror", None) or reason
        raise DownloadFailed(f"{urlsplit(url).hostname} cannot be reached: {why}") from None
    return response


def _get(url: str, limit_bytes: int) -> bytes:
    with _open(url, {}) as response:
        try:
            return response.read(limit_bytes)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadFailed(f"the connection broke: {error}") from None


def _download(url: str, target: Path, sha256: str, progress: Progress, stop: threading.Event) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    have = partial.stat().st_size if partial.exists() else 0
    try:
        _fetch_rest(url, partial, have, progress, stop)
    except OSError as error:
        raise DownloadFailed(f"the file cannot be written: {error.strerror}") from None
    if stop.is_set():
        return
    put_in_place(partial, target, sha256)


def _fetch_rest(url: str, partial: Path, have: int, progress: Progress, stop: threading.Event) -> None:
    try:
        response = _open(url, {"Range": f"bytes={have}-"} if have else {})
    except DownloadFailed as error:
        if have and error.message.startswith("416"):
            return  # the part is the whole; the checksum will tell
        raise
    with response:
        if response.status != 206:
            have = 0  # the server begins anew
        total = have + int(response.headers.get("Content-Length") or 0)
        with partial.open("r+b" if have else "wb") as file:
            file.seek(have)
            while not stop.is_set():
                try:
                    block = response.read1(BLOCK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise DownloadFailed(f"the connection broke: {error}") from None
                if not block:
                    break
                file.write(block)
                have += len(block)
                progress(have, max(total, have))
    if not stop.is_set() and have < total:
        raise DownloadFailed(f"the connection ended after {have} of {total} bytes")


def put_in_place(partial: Path, target: Path, sha256: str) -> None:
    """Check the part and give it its name; a wrong one is deleted. Raises DownloadFailed."""
    if sha256 and sha256_of(partial) != sha256.lower():
        partial.unlink()
        raise DownloadFailed("digest mismatch, file must be downloaded again")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, target)
