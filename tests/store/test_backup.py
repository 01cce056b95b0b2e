"""One file with everything in it, from and into either database; and the commands that make it."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.errors import BadRequest, Conflict, StoreUnavailable
from arena.store import Document, Store, backup, restore
from tests.cli.conftest import run as run
from tests.cli.running import Run
from tests.store.postgres import Postgres
from tests.store.votes import STYLED, battle, vote


def fill(store: Store) -> None:
    store.add_vote(vote("b1", **STYLED), battle("b1"))
    store.add_votes([vote(f"b{i}") for i in range(2, 2500)])
    store.save(Document("preset", "ann", "1", "2026-01-01", "P", {"x": [1]}))
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
    assert backup(store, file) == 2499
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "kept"))] == ["kept.backup"]
    for url in (f"sqlite:///{tmp_path / 'new' / 'arena.sqlite3'}", postgres.database()):
        other = Store(url)
        assert restore(other, file) == 2499
        assert content(other) == content(store)
        other.add_vote(vote("b9999"))
        assert other.last_number() == 2500
        assert other.add_snapshot(9, {}).number == 2
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
    with pytest.raises(StoreUnavailable):
        restore(sqlite, tmp_path / "missing", replace=True)
    with pytest.raises(StoreUnavailable):
        backup(sqlite, tmp_path / "no" / "folder")
    assert sqlite.last_number() == 1


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
    assert run("store", "restore", str(file), "--replace").out == f"Restored 1 votes from {file}.\n"
    assert run("store", "restore", str(file), "--data", str(tmp_path / "new")).status == 0
    assert (tmp_path / "new" / "arena.sqlite3").exists()
