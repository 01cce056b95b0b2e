"""The connection to SQLite or PostgreSQL: what makes a commit durable, who writes when, and errors in our words."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, exc, make_url, text

from arena.errors import Conflict, SettingsError, StoreUnavailable
from arena.store import hold
from arena.store.secret import BadSecret

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long a writer waits for its turn, and for a database that another process has locked."""

RETRY_S = 2.0
NO_ANSWER = "the database does not answer"
WRITER_LOCK = 0x6172656E61
"""The number of the lock that writers of a PostgreSQL database take, so that votes become visible in their order."""
OPEN_LOCK = WRITER_LOCK + 1
"""The lock that every connection to PostgreSQL shares as long as it lasts, and that a restore takes alone."""
PARTING_S = 2.0
"""How long a restore waits for connections to PostgreSQL that are about to end."""
LOCKED = "55P03"
"""What PostgreSQL says when a lock was waited for in vain."""

_POSTGRES = {
    "connect_timeout": int(PATIENCE_S),
    "options": f"-c synchronous_commit=on -c lock_timeout={PATIENCE_S:.0f}s -c client_min_messages=warning",
    "keepalives_idle": 30,
}
_SUFFIXES = ("", "-wal", "-shm", "-journal", hold.SUFFIX)
_NO_FOLDER = "its folder cannot be used"
_NO_VALUE = "a value in it is damaged; `store backup --skip-damaged` saves the rest"
_REASONS = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_BUSY": "another process holds it locked",
    "SQLITE_LOCKED": "another process holds it locked",
    "SQLITE_READONLY": "its file cannot be written",
    "SQLITE_CANTOPEN": "its file cannot be opened",
    "SQLITE_CORRUPT": "its file is damaged; restore a backup",
    "SQLITE_NOTADB": "its file is not a database; restore a backup",
    "SQLITE_IOERR": "its disk reports errors",
    "25006": "it may only be read",  # from here on what PostgreSQL tells
    "53100": "its disk is full",
    LOCKED: "another process holds it locked",
}

_OF_A_ROW = re.compile(r"CHECK constraint failed in |(NULL|TEXT|NUMERIC|non-\w+) value in ")
"""What SQLite finds in one row of a sound file: whoever reads the row is told, and it can be left out of a backup."""


def fault_in(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the file as a whole, if anything is."""
    for (found,) in connection.execute("PRAGMA quick_check"):
        if found != "ok" and not _OF_A_ROW.match(found):
            return str(found.splitlines()[-1])
    return None


class Database:
    """One engine over one URL, with one writer at a time in this process, and in all others."""

    def __init__(self, url: str, called: str = "The store") -> None:
        """`url`: sqlite:///path, or postgresql://... Raises SettingsError for any other; touches nothing yet.

        Errors begin with what it is `called`.
        """
        self._called = called
        try:
            parsed = make_url(url)
        except (exc.ArgumentError, ValueError):  # the latter for a port; either may repeat the password
            raise SettingsError("ARENA_DATABASE_URL must look like postgresql://user:password@host/name") from None
        self.backend = parsed.get_backend_name()
        self.file: Path | None = None
        if self.backend == "sqlite" and parsed.database:
            self.file = Path(parsed.database).absolute()
        elif self.backend in ("postgresql", "postgres"):
            _check_options(parsed)
            self._url = parsed.set(drivername="postgresql+psycopg")
        else:
            raise SettingsError("ARENA_DATABASE_URL must begin with postgresql:// (or sqlite:/// and a path)")
        self._hold = None if self.file is None else hold.Hold(self.file)
        self._engine: Engine | None = None
        self._writing = threading.Lock()

    @property
    def opened(self) -> bool:
        """Has `open` succeeded, and `close` not been called since?"""
        return self._engine is not None

    def lies_in(self, file: Path) -> bool:
        """Is `file`, however it is spelled or linked to, one of the files that hold this database?"""
        if self.file is None:
            return False
        own = os.path.realpath(self.file)
        return any(same_file(file, own + suffix) for suffix in _SUFFIXES)

    def check_place(self) -> None:
        """Make sure that a SQLite file could be made, and leave nothing behind. Raises StoreUnavailable."""
        if self.file is None:
            return
        try:
            with TemporaryFile(dir=next(filter(os.path.lexists, self.file.parents))):
                pass
        except OSError as error:
            remedy = "let this user write there, or set ARENA_DATA to another folder"
            log.error("no store can be made in %s: %s; %s", self.file.parent, error.strerror, remedy)
            raise self._unavailable(_NO_FOLDER) from error

    def open(self) -> None:
        """Connect; a SQLite file that is not there is made. Raises StoreUnavailable."""
        if self.file is not None:
            with self._translated():
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self._check_soundness(self.file)
        if self._hold is not None and not self._hold.share():
            raise self._unavailable("a backup is being restored into it")
        self._engine = self._made()

    def close(self) -> None:
        """Let go of every connection, once who writes has ended, unless that takes too long."""
        written = self._writing.acquire(timeout=PATIENCE_S)
        try:
            engine, self._engine = self._engine, None
            if engine is not None:
                engine.dispose()
            if self._hold is not None:
                self._hold.release()
        finally:
            if written:
                self._writing.release()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view. Raises StoreUnavailable."""
        with self._translated(), self._connected() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on the disk when the block has ended. Raises StoreUnavailable: then nothing is saved.

        Only where the server of PostgreSQL went away at the very end nobody knows, and the error says so.
        """
        committing = False
        if not self._writing.acquire(timeout=PATIENCE_S):
            raise self._unavailable("too many are writing")
        try:
            with self._translated(), self._connected() as connection:
                connection = connection.execution_options(writes=True)
                with connection.begin():
                    if self.file is None:
                        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": WRITER_LOCK})
                    self._check_file(connection)
                    yield connection
                    committing = True
                self._check_file(connection)
        except StoreUnavailable as error:
            if committing and self.file is None:
                raise self._unavailable(NO_ANSWER, "It is not known whether this was saved") from error
            raise
        finally:
            self._writing.release()

    @contextmanager
    def writing_alone(self) -> Iterator[Connection]:
        """The same for who replaces everything. Raises Conflict where others have the database open, too."""
        if self._hold is not None and not self._hold.take_alone():
            self._hold.share()
            raise self._open_elsewhere()
        try:
            with self.writing() as connection:
                if self.file is None:
                    self._part(connection)
                yield connection
        finally:
            if self._hold is not None:
                self._hold.share()

    def _part(self, connection: Connection) -> None:
        """Make sure that no other connection to PostgreSQL is left, and that none is made. Raises Conflict."""
        try:
            connection.execute(text(f"SET LOCAL lock_timeout = '{PARTING_S}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": OPEN_LOCK})
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCKED:
                raise
            raise self._open_elsewhere() from error

    def _open_elsewhere(self) -> Conflict:
        return Conflict(f"{self._called} is in use: stop the arena, and what else has it open, then restore again")

    def _connected(self) -> Connection:
        if self._engine is None:
            raise self._unavailable("it is not open")
        return self._engine.connect()

    def _made(self) -> Engine:
        if self.file is None:
            engine = create_engine(
                self._url, pool_pre_ping=True, connect_args=_POSTGRES, isolation_level="REPEATABLE READ"
            )
            event.listen(engine, "begin", _mark_readers)
            event.listen(engine, "connect", _share)
            return engine
        engine = create_engine("sqlite://", creator=self._sqlite, poolclass=QueuePool, pool_timeout=PATIENCE_S)
        event.listen(engine, "begin", _begin)
        return engine

    def _sqlite(self) -> sqlite3.Connection:
        """A connection to the file that is there: one that has vanished is never silently begun anew."""
        assert self.file is not None
        connection = sqlite3.connect(
            f"{self.file.as_uri()}?mode=rw",
            uri=True,
            timeout=PATIENCE_S,
            isolation_level=None,  # we say BEGIN ourselves
            check_same_thread=False,
        )
        connection.executescript("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
        return connection

    def _check_file(self, connection: Connection) -> None:
        """An unlinked file takes writes that nobody will ever read. Raises StoreUnavailable when ours is gone."""
        if self.file is None:
            return
        here = _identity(self.file)
        known = connection.info.setdefault("file", here)
        if here is None or here != known or not os.path.exists(f"{self.file}-wal"):
            connection.invalidate()
            raise self._unavailable(
                "its file has vanished or was exchanged while the arena runs; put it back and restart"
            )

    def _check_soundness(self, file: Path) -> None:
        """Make the file where there is none; make sure of one that is there."""
        connection = sqlite3.connect(file, timeout=PATIENCE_S, isolation_level=None)
        try:
            ((mode,),) = connection.execute("PRAGMA journal_mode=WAL").fetchall()
            fault = fault_in(connection)
        except UnicodeDecodeError as error:  # what SQLite says of a damaged table repeats its bytes
            raise self._unavailable(_REASONS["SQLITE_CORRUPT"]) from error
        finally:
            connection.close()
        if mode != "wal":
            raise self._unavailable("its folder cannot hold a write-ahead log (a network drive?)")
        if fault is not None:
            raise self._unavailable(_REASONS["SQLITE_CORRUPT"])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """A fault of the database or of a file becomes StoreUnavailable; a mistake of ours stays what it is."""
        try:
            yield
        except (exc.ProgrammingError, exc.IntegrityError, exc.DataError):
            raise
        except (exc.DBAPIError, exc.TimeoutError) as error:
            raise self._told(error.orig if isinstance(error, exc.DBAPIError) else error) from error
        except msgspec.DecodeError as error:
            log.error("%s holds a value that is no JSON: %s", self._called, error)
            raise self._unavailable(_NO_VALUE) from error
        except BadSecret as error:
            log.error("%s cannot be opened: %s", self._called, error)
            raise self._unavailable(str(error)) from error
        except (sqlite3.DatabaseError, OSError) as error:
            raise self._told(error) from error

    def _told(self, error: BaseException | None) -> StoreUnavailable:
        name = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
        reason = next((reason for code, reason in _REASONS.items() if name.startswith(code)), None)
        if reason is None and isinstance(error, OSError):
            reason = _NO_FOLDER
        log.error("%s fails: %s", self._called, error)
        return self._unavailable(reason or NO_ANSWER)

    def _unavailable(self, reason: str, fate: str = "Nothing was saved") -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._called} cannot be used now: {reason}. {fate}; it is safe to try again.", retry_after_s=RETRY_S
        )


def _check_options(url: URL) -> None:
    from psycopg import ProgrammingError, conninfo  # takes long to import, and SQLite does without

    try:
        conninfo.make_conninfo(**dict.fromkeys(url.query, ""))
    except ProgrammingError:
        raise SettingsError(
            "ARENA_DATABASE_URL may have only options of PostgreSQL after its ?, such as sslmode=require"
        ) from None


def _begin(connection: Connection) -> None:
    """Writers take their lock at once: one that began as a reader cannot wait for it."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _mark_readers(connection: Connection) -> None:
    """A writer sees what the writer before it has committed; a reader sees one moment."""
    if connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


def _share(connection: Any, _: Any) -> None:
    """A new connection to PostgreSQL waits until nobody has the database alone. Raises psycopg's OperationalError."""
    with ExitStack() as stack:
        stack.callback(connection.close)
        connection.autocommit = True  # the lock is of the session, and outlives transactions
        connection.execute("SELECT pg_advisory_lock_shared(%s::bigint)", (OPEN_LOCK,))
        connection.autocommit = False
        stack.pop_all()


def same_file(file: Path, own: str) -> bool:
    """Do both names lead to the same file? By what is there, or by name where nothing is."""
    try:
        return file.samefile(own)
    except OSError:
        return os.path.realpath(file) == os.path.realpath(own)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
