"""One file with everything in it, from and into either database; and the commands that make it."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir

import pytest

from arena.errors import BadRequest, Conflict, StoreUnavailable
from arena.store import Document, Store, backup, restore
from arena.store.database import Database
from arena.store.shelf import Room, save
from tests.cli.conftest import run as run
from tests.cli.running import Run
from tests.store.postgres import Postgres
from tests.store.votes import STYLED, battle, vote


def fill(store: Store) -> None:
    store.add_vote(vote("b1", **STYLED), battle("b1"))
    store.add_votes([vote(f"b{i}") for i in range(2, 1100)])
    save(store, Document("preset", "ann", "1", "2026-01-01", "P", {"x": [1]}), Room(9))
    store.add_snapshot(3, {"y": 2})


def content(store: Store) -> tuple[object, ...]:
    return (
        list(store.votes()),
        store.battle("b1"),
        store.configurations(),
        store.documents("preset", "ann"),
        store.snapshots(),
        store.pseudonym("ann"),
    )


def test_there_and_back(store: Store, tmp_path: Path, postgres: Postgres) -> None:
    fill(store)
    file = tmp_path / "kept.backup"
    assert backup(store, file) == 1099
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "kept"))] == ["kept.backup"]
    for url in (f"sqlite:///{tmp_path / 'new' / 'arena.sqlite3'}", postgres.database()):
        other = Store(url)
        assert restore(other, file) == 1099
        assert content(other) == content(store)
        other.add_vote(vote("b9999"))
        assert other.last_number() == 1100
        made = other.add_snapshot(9, {})
        assert made is not None
        assert made.number == 2
        other.close()


def test_what_is_there_is_only_given_up_when_told(sqlite: Store, tmp_path: Path) -> None:
    sqlite.add_vote(vote("b1"))
    file = tmp_path / "kept.backup"
    backup(sqlite, file)
    sqlite.add_vote(vote("b2"))
    with pytest.raises(Conflict, match="--replace"):
        restore(sqlite, file)
    assert sqlite.last_number() == 2
    assert restore(sqlite, file, replace=True) == 1
    assert [cast.battle_id for _, cast in sqlite.votes()] == ["b1"]


def test_what_is_no_backup_changes_nothing(sqlite: Store, tmp_path: Path) -> None:
    sqlite.add_vote(vote("b1"))
    wrong = tmp_path / "wrong"
    for text in ("", "no database at all" * 99):
        wrong.write_text(text)
        with pytest.raises(BadRequest, match="wrong is not a backup"):
            restore(sqlite, wrong, replace=True)
    assert sqlite.last_number() == 1


@pytest.mark.parametrize(
    "damaged",
    [
        lambda kept: kept[:4096] + b"\xff" * 4096 + kept[8192:],
        lambda kept: kept[:20_000],
        lambda kept: kept.replace(b"CREATE TABLE facts", b"CREATE TABL\xff facts"),
    ],
    ids=["a page", "the end", "the list of tables"],
)
def test_a_backup_whose_file_is_damaged_is_called_by_its_name(
    sqlite: Store, tmp_path: Path, damaged: Callable[[bytes], bytes]
) -> None:
    sqlite.add_vote(vote("b1"))
    kept = tmp_path / "kept"
    backup(sqlite, kept)
    kept.write_bytes(damaged(kept.read_bytes()))
    target = Store(f"sqlite:///{tmp_path / 'new' / 'arena.sqlite3'}")
    with pytest.raises(BadRequest, match=r"^kept is damaged: .*; restore another backup$"):
        restore(target, kept)
    assert not target.exists
    with pytest.raises(StoreUnavailable, match="its file is damaged; restore a backup"):
        Store(f"sqlite:///{kept}").open()


def test_a_file_that_cannot_be_used_is_told_of_and_the_store_is_not_blamed(
    sqlite: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sqlite.add_vote(vote("b1"))
    caplog.set_level(logging.WARNING)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target, said in (
        (tmp_path / "no" / "folder", "folder cannot be written: No such file or directory$"),
        (pipe, "pipe cannot be written: it is no ordinary file"),
        (tmp_path, "cannot be written: it is no ordinary file"),
    ):
        with pytest.raises(BadRequest, match=said):
            backup(sqlite, target)
    for source, said in (
        (tmp_path / "missing", "missing cannot be read: No such file or directory$"),
        (pipe, "pipe cannot be read: it is no ordinary file"),
        (tmp_path, "cannot be read: it is no ordinary file"),
        (Path(os.devnull), f"{os.devnull} cannot be read: it is no ordinary file"),
    ):
        with pytest.raises(BadRequest, match=said):
            restore(sqlite, source, replace=True)
    assert not caplog.messages
    assert pipe.is_fifo()
    assert sqlite.last_number() == 1


def test_of_two_disks_the_full_one_is_told_of(
    sqlite: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sqlite.add_votes([vote(f"b{i}") for i in range(100)])
    kept, full = tmp_path / "kept.backup", tmp_path / "full"
    backup(sqlite, kept)
    full.mkdir()
    connected = Database._sqlite

    def limited(database: Database) -> sqlite3.Connection:
        """For a database it is the same whether its disk or itself may not grow."""
        connection = connected(database)
        if database.file is not None and database.file.is_relative_to(full):
            connection.execute("PRAGMA max_page_count=1")
        return connection

    monkeypatch.setattr(Database, "_sqlite", limited)
    with pytest.raises(StoreUnavailable, match=rf"^{full}/x\.backup cannot be used now: the disk is full"):
        backup(sqlite, full / "x.backup")
    assert list(full.iterdir()) == []
    assert "The store" not in caplog.text
    with pytest.raises(StoreUnavailable, match=r"^The store cannot be used now: the disk is full"):
        restore(Store(f"sqlite:///{full / 'new'}"), kept)
    assert "The store fails: database or disk is full" in caplog.text


def test_a_backup_that_is_not_copied_for_want_of_room_is_not_blamed(
    sqlite: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, copy: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", source)

    kept = tmp_path / "kept.backup"
    backup(sqlite, kept)
    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(BadRequest, match=rf"^{gettempdir()} has no room for a copy of {kept}: .*TMPDIR"):
        restore(sqlite, kept)


def respelled(file: Path) -> Path:
    return file.parent / ".." / file.parent.name / file.name


def linked(file: Path) -> Path:
    link = file.with_name("link")
    link.symlink_to(file)
    return link


def hard_linked(file: Path) -> Path:
    link = file.with_name("link")
    link.hardlink_to(file)
    return link


def in_a_linked_folder(file: Path) -> Path:
    (file.parent / "folder").symlink_to(file.parent)
    return file.parent / "folder" / file.name


def log_of(file: Path) -> Path:
    return Path(f"{file}-wal")


def index_of(file: Path) -> Path:
    return Path(f"{file}-shm")


def journal_of(file: Path) -> Path:
    return Path(f"{file}-journal")


@pytest.mark.parametrize(
    "spelled", [Path, respelled, linked, hard_linked, in_a_linked_folder, log_of, index_of, journal_of]
)
def test_the_files_of_the_store_itself_are_no_backup(
    sqlite: Store, file: Path, spelled: Callable[[Path], Path]
) -> None:
    sqlite.add_vote(vote("b1"))
    same = spelled(file)
    with pytest.raises(BadRequest, match="holds the votes themselves: give another file"):
        backup(sqlite, same)
    with pytest.raises(BadRequest, match="holds the votes themselves: give another file"):
        restore(sqlite, same, replace=True)
    sqlite.add_vote(vote("b2"))
    assert sqlite.last_number() == 2


def test_the_database_of_another_arena_is_no_backup_while_it_is_in_use(sqlite: Store, tmp_path: Path) -> None:
    sqlite.add_vote(vote("b1"))
    other = Store(f"sqlite:///{tmp_path / 'other'}")
    other.add_votes([vote("b2"), vote("b3")])
    with pytest.raises(BadRequest, match="other is in use as a database, with other-wal beside it"):
        backup(sqlite, tmp_path / "other")
    with pytest.raises(BadRequest, match="other is in use"):
        restore(sqlite, tmp_path / "other", replace=True)
    other.close()
    assert restore(sqlite, tmp_path / "other", replace=True) == 2


@pytest.mark.parametrize("spelled", [log_of, index_of, journal_of])
def test_no_file_of_any_database_is_a_backup(sqlite: Store, tmp_path: Path, spelled: Callable[[Path], Path]) -> None:
    sqlite.add_vote(vote("b1"))
    alone = tmp_path / "alone"
    part = spelled(alone)
    assert backup(sqlite, part) == 1, "no database of that name is there"
    part.unlink()
    alone.write_bytes(b"a database at rest")
    (tmp_path / "link").symlink_to(part)
    for file in (part, tmp_path / "link"):
        with pytest.raises(BadRequest, match=f"{file.name} belongs to the database {alone}: give another file"):
            backup(sqlite, file)
    assert not part.exists()


def test_a_database_with_a_journal_beside_it_is_in_use(sqlite: Store, tmp_path: Path) -> None:
    sqlite.add_vote(vote("b1"))
    journal_of(tmp_path / "other").touch()
    with pytest.raises(BadRequest, match="other is in use as a database, with other-journal beside it"):
        backup(sqlite, tmp_path / "other")


def test_a_store_behind_a_link_knows_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "arena.sqlite3"
    link.symlink_to(tmp_path / "disk" / "votes")
    database = Store(f"sqlite:///{link}").database
    assert database.lies_in(tmp_path / "disk" / "votes-wal")
    assert not database.lies_in(tmp_path / "disk" / "votes.backup")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert not database.lies_in(loop)
    assert not Store("postgresql://h/arena").database.lies_in(link)


def test_a_backup_that_is_told_to_end_leaves_nothing_behind(
    run: Run, sqlite: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite.add_vote(vote("b1"))
    kept = tmp_path / "out" / "kept"
    kept.parent.mkdir()

    def interrupted(file: Path) -> None:
        assert file.is_file()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(import_module("arena.store.backup"), "_closed_up", interrupted)
    assert run("store", "backup", str(kept), "--data", str(tmp_path)).status == 128 + signal.SIGTERM
    assert list(kept.parent.iterdir()) == []


def test_the_commands(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARENA_DATA", str(tmp_path / "data"))
    file = tmp_path / "kept"
    refused = run("store", "backup", str(file))
    assert refused.status == 1
    assert "no store yet" in refused.err
    store = Store(f"sqlite:///{tmp_path}/data/arena.sqlite3")
    store.add_vote(vote("b1"))
    store.close()
    assert run("store", "backup", str(file)).out == f"Backed up 1 votes to {file}.\n"
    refused = run("store", "restore", str(file))
    assert (refused.status, "--replace" in refused.err) == (1, True)
    own = tmp_path / "data" / "arena.sqlite3"
    refused = run("store", "backup", str(own))
    assert (refused.status, refused.err) == (1, f"error: {own} holds the votes themselves: give another file\n")
    refused = run("store", "backup", "-")
    assert (refused.status, "cannot go to the standard output: give the name of a file" in refused.err) == (1, True)
    nowhere = tmp_path / "no" / "x"
    refused = run("store", "backup", str(nowhere))
    assert (refused.status, refused.err) == (1, f"error: {nowhere} cannot be written: No such file or directory\n")
    assert run("store", "restore", str(file), "--replace").out == f"Restored 1 votes from {file}.\n"
    assert run("store", "restore", str(file), "--data", str(tmp_path / "new")).status == 0
    assert (tmp_path / "new" / "arena.sqlite3").exists()
