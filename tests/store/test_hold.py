"""A store that somebody has open is not replaced by a backup, and one that is being replaced is not opened."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import create_autospec

import psycopg
import pytest
import sqlalchemy

from arena.errors import Conflict, StoreUnavailable
from arena.store import Store, backup, database, restore
from tests.cli.conftest import run as run
from tests.cli.running import Run
from tests.store.votes import vote

HOLDER = """
import sys
from arena.store import Store
store = Store(sys.argv[1])
store.open()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> Path:
    """A backup of one vote; the store has two, and is closed."""
    store.add_vote(vote("b1"))
    backup(store, tmp_path / "kept")
    store.add_vote(vote("b2"))
    store.close()
    return tmp_path / "kept"


@contextmanager
def another_process(url: str) -> Iterator[subprocess.Popen[str]]:
    """One that has the store open."""
    words = [sys.executable, "-c", HOLDER, url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process


def test_what_another_process_has_open_is_not_replaced(
    run: Run, url: str, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARENA_DATA", str(tmp_path))
    if url.startswith("postgresql"):
        monkeypatch.setenv("ARENA_DATABASE_URL", url)
    monkeypatch.setattr(database, "PARTING_S", 0.05)
    with another_process(url) as process:
        refused = run("store", "restore", str(kept), "--replace")
        assert refused.status == 1
        assert refused.err.endswith(" is in use: stop the arena, and what else has it open, then restore again\n")
        assert run("store", "backup", str(tmp_path / "more")).out.startswith("Backed up 2 votes")
        process.kill()
    monkeypatch.setattr(database, "PARTING_S", 30)
    assert run("store", "restore", str(kept), "--replace").out.startswith("Restored 1 votes")


def test_who_was_refused_has_it_like_others_again(
    url: str, store: Store, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Store(url)
    monkeypatch.setattr(database, "PARTING_S", 0.05)
    for one, two in ((store, other), (other, store)):
        one.open()
        two.open()
        with pytest.raises(Conflict, match="The store is in use: stop the arena"):
            restore(two, kept, replace=True)
        assert one.last_number() == 2
        one.close()
        two.close()
    monkeypatch.setattr(database, "PARTING_S", 30)
    with pytest.raises(Conflict, match="--replace"):
        restore(other, kept)
    assert restore(other, kept, replace=True) == 1
    assert store.last_number() == 1, "who opens it afterwards finds the new"
    other.close()


def test_what_is_being_replaced_is_not_opened(url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database._POSTGRES, "options", "-c lock_timeout=50ms -c client_min_messages=warning")
    other = Store(url)
    store.open()
    with store.database.writing_alone():
        with pytest.raises(
            StoreUnavailable, match=r"a backup is being restored into it|another process holds it locked"
        ):
            other.open()
        assert not other.database.opened
    assert other.last_number() == 0
    other.close()


def test_another_fault_of_postgresql_is_told_as_it_is() -> None:
    connection = create_autospec(sqlalchemy.Connection, instance=True)
    connection.execute.side_effect = sqlalchemy.exc.OperationalError("", {}, psycopg.OperationalError("gone"))
    with pytest.raises(sqlalchemy.exc.OperationalError, match="gone"):
        database.Database("postgresql://h/arena")._part(connection)


def test_the_lock_is_a_part_of_the_store(sqlite: Store, file: Path) -> None:
    assert sqlite.database.lies_in(Path(f"{file}-lock"))


def test_without_locks_everything_is_granted(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError("No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    one, two = Store(f"sqlite:///{file}"), Store(f"sqlite:///{file}")
    one.add_vote(vote("b1"))
    backup(two, tmp_path / "kept")
    assert restore(two, tmp_path / "kept", replace=True) == 1
    one.close()


def test_a_lock_that_cannot_be_made_is_done_without(file: Path, tmp_path: Path) -> None:
    Path(f"{file}-lock").symlink_to(tmp_path / "no" / "folder")
    store = Store(f"sqlite:///{file}")
    store.add_vote(vote("b1"))
    with store.database.writing_alone():
        pass
    store.close()
