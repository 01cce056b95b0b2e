"""A store that is full, locked, damaged or gone says so, saves nothing, and goes on when it is well again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

from arena.errors import StoreUnavailable
from arena.store import Document, Store
from arena.store.shelf import Room, save
from tests.store.postgres import Postgres
from tests.store.votes import battle, vote


def number_of_pages(store: Store, limit: int | None = None) -> int:
    """How large the file is, in pages, or may become."""
    with store.database.writing() as connection:
        words = "page_count" if limit is None else f"max_page_count={limit}"
        return int(connection.exec_driver_sql(f"PRAGMA {words}").scalar_one())


def test_a_full_disk_and_then_space_again(sqlite: Store) -> None:
    sqlite.add_vote(vote("b0"), battle("b0"))
    large = Document("preset", "ann", "1", "2026-01-01", "Large", "x" * 100_000)
    number_of_pages(sqlite, number_of_pages(sqlite) + 3)
    with pytest.raises(StoreUnavailable, match="disk is full") as caught:
        save(sqlite, large, Room(9))
    assert caught.value.retry_after_s
    assert caught.value.status == 503
    assert sqlite.documents("preset", "ann") == []
    number_of_pages(sqlite, 100_000)
    save(sqlite, large, Room(9))
    assert sqlite.documents("preset", "ann") == [large]


def test_locked_by_another_process(sqlite: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite.close()
    monkeypatch.setattr("arena.store.database.PATIENCE_S", 0.05)
    sqlite.open()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="locked"):
        sqlite.add_vote(vote("b1"))
    assert list(sqlite.votes()) == [], "readers go on"
    other.execute("ROLLBACK")
    other.close()
    sqlite.add_vote(vote("b1"))
    assert sqlite.last_number() == 1


def test_too_many_writers_of_our_own(sqlite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.store.database.PATIENCE_S", 0.05)
    holding, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with sqlite.database.writing():
            holding.set()
            enough.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(20)
    with pytest.raises(StoreUnavailable, match="too many"):
        sqlite.add_vote(vote("b1"))
    enough.set()
    thread.join(20)
    sqlite.add_vote(vote("b1"))


def unlinked(file: Path) -> None:
    for path in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        path.unlink()


def exchanged(file: Path) -> None:
    other = file.with_name("other.sqlite3")
    store = Store(f"sqlite:///{other}")
    store.open()
    store.close()
    other.replace(file)


def without_log(file: Path) -> None:
    Path(f"{file}-wal").unlink()


@pytest.mark.parametrize("happen", [unlinked, exchanged, without_log])
def test_a_file_that_is_gone_takes_no_votes(sqlite: Store, file: Path, happen: Callable[[Path], None]) -> None:
    sqlite.add_vote(vote("b1"))
    happen(file)
    with pytest.raises(StoreUnavailable, match="vanished"):
        sqlite.add_vote(vote("b2"))
    if happen is unlinked:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="cannot be opened"):
                sqlite.add_vote(vote("b2"))
        assert not file.exists(), "it is never begun anew behind the operator's back"


def test_a_damaged_file_is_refused_and_left_as_it_is(sqlite: Store, file: Path) -> None:
    sqlite.add_votes([vote(f"b{i}") for i in range(200)])
    sqlite.close()
    content = bytearray(file.read_bytes())
    assert len(content) > 6 * 4096
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="damaged; restore a backup"):
            sqlite.open()
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"no database" * 999, b"SQLite format 3\0" + b"\xff" * 4080])
def test_what_is_no_database_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"restore a backup|cannot be opened"):
        Store(f"sqlite:///{file}").open()
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreUnavailable, match="folder cannot be used"):
        Store(f"sqlite:///{tmp_path}/taken/arena.sqlite3").open()


def test_damage_while_it_runs(sqlite: Store, file: Path) -> None:
    sqlite.add_votes([vote(f"b{i}") for i in range(500)])
    sqlite.close()
    sqlite.open()
    with open(file, "r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xa5" * (file.stat().st_size - 4096))
    with pytest.raises(StoreUnavailable):
        list(sqlite.votes())


def test_a_mistake_of_ours_is_no_fault_of_the_store(store: Store) -> None:
    store.open()
    with pytest.raises(sqlalchemy.exc.IntegrityError), store.database.writing() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO facts VALUES ('salt', 'again')"))
    store.add_vote(vote("b1"))


def test_a_closed_database_says_so(sqlite: Store) -> None:
    sqlite.database.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        sqlite.last_number()


def test_no_server_of_postgresql(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer"):
        Store(f"postgresql://postgres@/arena?host={tmp_path}").open()


def test_a_database_that_may_only_be_read(postgres: Postgres) -> None:
    url = postgres.database()
    store = Store(url)
    store.add_vote(vote("b1"))
    name = sqlalchemy.make_url(url).database
    with closing(postgres.connection()) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    store.close()
    with pytest.raises(StoreUnavailable, match="it may only be read"):
        store.add_vote(vote("b2"))
    store.close()
