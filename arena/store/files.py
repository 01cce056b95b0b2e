"""Files that appear whole or not at all: written beside the one that they replace, which stays until the last byte."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from arena.errors import BadRequest

_OPENED = re.compile(r"/proc/\d+(/task/\d+)?/fd|/dev/fd")
"""The folders of what processes have open: of Linux, and of the other systems."""
_MOST_LINKS = 40


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `file` once the block has ended well; else the old one stays.

    A pipe, a device, or what a process has open is written to as it is. Raises BadRequest for what cannot be written.
    """
    with told_of(file, "written"):
        if (opened := _as_it_is(file)) is not None:
            with opened as target:
                yield target
        else:
            with beside(file) as made, made.open("wb") as target:
                yield target


def descriptor(file: Path) -> Path | None:
    """The place, such as /proc/7/fd/1, through which `file` leads to what a process has open; None for other files.

    What it leads to may look like any other file, but belongs to whoever has opened it: /dev/stdout behind `>> log`.
    """
    place = file.absolute()
    for _ in range(_MOST_LINKS):
        place = Path(os.path.realpath(place.parent)) / place.name
        if _OPENED.fullmatch(str(place.parent)):
            return place
        if not place.is_symlink():
            return None
        place = place.parent / os.readlink(place)
    return None


def own_descriptor(file: Path) -> int | None:
    """The number of what this process has open itself, such as 1 for /dev/stdout; None for other files."""
    place = descriptor(file)
    if place is None or not place.name.isdecimal():
        return None
    return int(place.name) if place.parts[:3] in (("/", "proc", str(os.getpid())), ("/", "dev", "fd")) else None


def _as_it_is(file: Path) -> BinaryIO | None:
    if (number := own_descriptor(file)) is not None:
        return os.fdopen(os.dup(number), "wb")  # to open it anew would empty it
    if descriptor(file) is not None:
        return file.open("ab")
    return file.open("wb") if file.exists() and not file.is_file() else None


@contextmanager
def beside(file: Path) -> Iterator[Path]:
    """Where to make what takes the place of `file`, or of what it links to, when the block has ended. Raises OSError.

    It is on the disk then, with the mode of the file before it, and with its owner and group as far as we may.
    """
    real = Path(os.path.realpath(file))
    if real.is_symlink():  # which leads to itself in the end
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if real.exists() and not os.access(real, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
    if real.parent.is_dir() and not os.access(real.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "its folder takes no new file, in which it would grow until it is whole")
    with TemporaryDirectory(dir=real.parent, prefix=f".{real.name[:32]}-") as folder:
        made = Path(folder) / "made"
        yield made
        _sync(made, os.O_RDWR)
        if real.exists():
            _keep_rights(real, made)
        _exchange(made, real)
    if os.name != "nt":  # which has no such call for a folder, and needs none
        _sync(real.parent, os.O_RDONLY)


@contextmanager
def told_of(file: Path, done: str) -> Iterator[None]:
    """A fault of the file that the caller has named is told of that file; the store's own are told already."""
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        raise BadRequest(f"{file} cannot be {done}: {getattr(error, 'strerror', None) or error}") from error


def _keep_rights(old: Path, made: Path) -> None:
    """Let those who could read the old file read the new one. Who gives a file away must often be root."""
    if os.name != "nt":
        of = old.stat()
        for owner, group in ((-1, of.st_gid), (of.st_uid, -1)):
            with suppress(PermissionError):
                os.chown(made, owner, group)
    shutil.copymode(old, made)  # last, as to change the owner takes bits of it away


def _exchange(made: Path, real: Path) -> None:
    """Put the finished file in the place of the other. One that is mounted itself can only be written over."""
    try:
        os.replace(made, real)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        shutil.copyfile(made, real)
        _sync(real, os.O_RDWR)


def _sync(path: Path, flags: int) -> None:
    """Have the bytes of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
