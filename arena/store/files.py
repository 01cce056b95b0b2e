"""Files that appear whole or not at all: written beside the one that they replace, which stays until the last byte."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from arena.errors import BadRequest


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `file` once the block has ended well; else the old one stays.

    A pipe or a device is written to as it is. Raises BadRequest for what cannot be written.
    """
    with told_of(file, "written"):
        if file.exists() and not file.is_file():
            with file.open("wb") as target:
                yield target
        else:
            with beside(file) as made, made.open("wb") as target:
                yield target


@contextmanager
def beside(file: Path) -> Iterator[Path]:
    """Where to make what takes the place of `file`, or of what it links to, when the block has ended. Raises OSError.

    It is on the disk then, with the mode of the file before it.
    """
    real = Path(os.path.realpath(file))
    if real.exists() and not os.access(real, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
    if real.parent.is_dir() and not os.access(real.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "its folder takes no new file, in which it would grow until it is whole")
    with TemporaryDirectory(dir=real.parent, prefix=f".{real.name[:32]}-") as folder:
        made = Path(folder) / "made"
        yield made
        _sync(made, os.O_RDWR)
        if real.exists():
            shutil.copymode(real, made)
        os.replace(made, real)
    if os.name != "nt":  # which has no such call for a folder, and needs none
        _sync(real.parent, os.O_RDONLY)


@contextmanager
def told_of(file: Path, done: str) -> Iterator[None]:
    """A fault of the file that the caller has named is told of that file; the store's own are told already."""
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        raise BadRequest(f"{file} cannot be {done}: {getattr(error, 'strerror', None) or error}") from error


def _sync(path: Path, flags: int) -> None:
    """Have the bytes of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
