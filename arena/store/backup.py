"""The whole store into one SQLite file, from either database, and back into either."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from sqlalchemy import Connection, exc, func, insert, select, text

from arena.errors import BadRequest, Conflict, StoreUnavailable
from arena.store.database import PATIENCE_S, fault_in
from arena.store.files import beside, descriptor, told_of
from arena.store.rows import Damaged, Rows, Told
from arena.store.secret import BadSecret
from arena.store.store import Store
from arena.store.tables import documents, metadata, votes

LOGS = ("-wal", "-journal")
INDEX = "-shm"
"""What SQLite adds to the name of a database for the files that it keeps beside it."""

_WIDE_CACHE = f"PRAGMA cache_size = {-64 * 1024}"  # KiB: the rows come in another order than those of each index


def backup(store: Store, target: Path, *, left_out: Told | None = None) -> int:
    """Write all of `store`, as it is at one moment, to the file `target`; returns how many votes. The store goes on.

    The file appears whole or not at all. Raises Damaged for a row that cannot be read, unless it may be `left_out`,
    BadRequest for a file that cannot be written, or that is the store's own, and StoreUnavailable, which names the
    file where that is the one to fail.
    """
    check_apart(store, target)
    with readable(store) as source, told_of(target, "written"):
        _check_ordinary(target, "written")
        if descriptor(target) is not None:  # to replace it would take it from whoever has opened it
            raise BadRequest(f"{target} cannot be written: it is no file of its own")
        name = "The database" if store.database.file is None else store.database.file.name
        with beside(target) as made, _damage_told(name):
            count = _copied(source, Store(f"sqlite:///{made}", called=str(target)), left_out)
            _closed_up(made)
        return count


def restore(store: Store, source: Path, *, replace: bool = False, left_out: Told | None = None) -> int:
    """Fill `store` from a backup, in one transaction; returns how many votes. Backups of older versions will do.

    Raises Damaged for one with a row that cannot be read, unless it may be `left_out`, BadRequest for a file that is
    no backup, cannot be read, or is the store's own, Conflict for a store that others have open or that holds
    something unless `replace` is set, and StoreUnavailable; then nothing has changed.
    """
    check_apart(store, source)
    with TemporaryDirectory(prefix="arena-restore-") as folder:
        copy = Path(folder) / "store"
        with told_of(source, "read"):
            _check_ordinary(source, "read")  # the copy of a device might never end
            _fetch(source, copy)  # it is brought up to date here, and the backup stays as it is
        _check_backup(copy, source.name)
        if not replace and _holds_something(store):
            raise Conflict("The store holds votes or documents already; --replace gives them up for the backup's")
        store.open()  # whose own faults are not the backup's
        kept = Store(f"sqlite:///{copy}", called=f"The copy of {source} in {folder}")
        with closing(kept), _damage_told(source.name):
            return _copied(kept, store, left_out)


def check_apart(store: Store, file: Path) -> None:
    """Make sure that `file` is neither part of `store`, nor a database in use or part of one. Raises BadRequest.

    A database in use has its log or journal beside it.
    """
    if store.database.lies_in(file):
        raise BadRequest(f"{file} holds the votes themselves: give another file")
    real = os.path.realpath(file)
    for suffix in LOGS:
        if os.path.exists(real + suffix):
            raise BadRequest(f"{file} is in use as a database, with {file.name}{suffix} beside it: give another file")
    for suffix in (*LOGS, INDEX):
        owner = real.removesuffix(suffix)
        if owner != real and os.path.isfile(owner):
            raise BadRequest(f"{file} belongs to the database {owner}: give another file")


@contextmanager
def readable(store: Store) -> Iterator[Store]:
    """`store` itself, or a copy of it where its place may not be written: even to look into a database changes files.

    Raises BadRequest for one that cannot be copied.
    """
    file = store.database.file
    if file is None or all(os.access(path, os.W_OK) for path in (file, file.parent) if path.exists()):
        yield store
        return
    with TemporaryDirectory(prefix="arena-read-") as folder:
        made = Path(folder) / "store"
        with told_of(file, "read"):
            _copy_unwritable(file, made)
        copy = Store(f"sqlite:///{made}", called=f"The copy of {file} in {folder}")
        try:
            yield copy
        finally:
            copy.close()


def _copy_unwritable(file: Path, made: Path) -> None:
    if os.path.exists(f"{file}{INDEX}"):  # others may be writing, and SQLite can look on
        reading = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=PATIENCE_S)
        with closing(reading), closing(sqlite3.connect(made)) as target:
            reading.backup(target)
        return
    for suffix in ("", *LOGS):
        if os.path.exists(f"{file}{suffix}"):
            _fetch(Path(f"{file}{suffix}"), Path(f"{made}{suffix}"))


def _check_ordinary(file: Path, done: str) -> None:
    """Raises BadRequest for what is there and is no file with an end, such as a folder or a device."""
    if file.exists() and not file.is_file():
        raise BadRequest(f"{file} cannot be {done}: it is no ordinary file")


def _fetch(source: Path, copy: Path) -> None:
    """Copy the file. Raises OSError, and BadRequest where there is no room for the copy."""
    try:
        shutil.copyfile(source, copy)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"{gettempdir()} has no room for a copy of {source}: {error.strerror}. TMPDIR can name another folder"
        raise BadRequest(text) from error


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    """What cannot be in a store is told of it by its name. Raises Damaged, and BadRequest for a secret that is none."""
    try:
        yield
    except BadSecret as error:
        raise BadRequest(f"{name} is damaged: {error}") from error
    except ValueError as error:
        raise Damaged(f"{name} is damaged: {error}") from error
    except (exc.IntegrityError, exc.DataError) as error:
        raise Damaged(f"{name} is damaged: {str(error.orig).splitlines()[0]}") from error
    except StoreUnavailable as error:
        if isinstance(error.__cause__, BadSecret):
            raise BadRequest(f"{name} is damaged: {error.__cause__}") from error
        cause = getattr(error.__cause__, "orig", None)
        if getattr(cause, "sqlite_errorname", "") != "SQLITE_ERROR":  # tables or columns are not there, or too many
            raise
        raise Damaged(f"{name} is damaged: {cause}") from error


def _copied(source: Store, target: Store, left_out: Told | None) -> int:
    source.open()
    target.open()
    try:
        with source.database.reading() as reading, target.database.writing_alone() as writing:
            if target.database.file is not None:
                writing.exec_driver_sql(_WIDE_CACHE)
            for table in reversed(metadata.sorted_tables):
                writing.execute(table.delete())
            found = Rows(reading, left_out)
            for table in metadata.sorted_tables:
                for part in filter(None, found.of(table)):
                    writing.execute(insert(table), part)
            if target.database.file is None:
                _number_on(writing)
            return int(writing.execute(select(func.count()).select_from(votes)).scalar_one())
    finally:
        target.close()  # its pseudonyms have changed with the data


def _number_on(connection: Connection) -> None:
    """PostgreSQL gives the next number after the ones that were copied."""
    for name in ("votes", "snapshots"):
        number = f"(SELECT COALESCE(MAX(number), 0) + 1 FROM {name})"
        connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', 'number'), {number}, false)"))


def _holds_something(store: Store) -> bool:
    store.open()
    with store.database.reading() as connection:
        counts = [connection.execute(select(func.count()).select_from(each)).scalar() for each in (votes, documents)]
    return any(counts)


def _check_backup(file: Path, name: str) -> None:
    """Raises BadRequest, which calls the file by its name, for what is no backup, or is damaged as a whole."""
    with closing(sqlite3.connect(file)) as connection:
        try:
            tables = {each for (each,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            fault = fault_in(connection)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter where SQLite repeats damaged bytes
            if getattr(error, "sqlite_errorname", "") != "SQLITE_NOTADB":
                raise BadRequest(f"{name} is damaged: {error}; restore another backup") from error
            tables, fault = set(), None
    if not {"alembic_version", "votes", "facts"} <= tables:
        raise BadRequest(f"{name} is not a backup of the arena's store")
    if fault is not None:
        raise BadRequest(f"{name} is damaged: {fault}; restore another backup")


def _closed_up(file: Path) -> None:
    """Make one file of the database and its log."""
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=DELETE")
    finally:
        connection.close()
