"""A damaged backup is refused with the row named; what strangers sent does not keep a good one from being restored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from arena.errors import BadRequest, StoreUnavailable
from arena.store import Damaged, Document, Store, backup, restore
from arena.store.shelf import Room, save
from arena.types import Configuration
from tests.cli.conftest import run as run
from tests.cli.running import Run
from tests.store.postgres import Postgres
from tests.store.votes import STYLED, battle, vote


@pytest.fixture
def file(tmp_path: Path, sqlite: Store) -> Path:
    """A backup of two votes."""
    sqlite.add_vote(vote("b1", **STYLED), battle("b1"))
    sqlite.add_vote(vote("b2"))
    save(sqlite, Document("preset", "ann", "1", "2026-01-01", "P", {"x": [1]}), Room(9))
    sqlite.add_snapshot(2, {"y": 2})
    file = tmp_path / "kept"
    backup(sqlite, file)
    return file


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    """A store that is in nobody's way."""
    store = Store(f"sqlite:///{tmp_path / 'old' / 'arena.sqlite3'}")
    yield store
    store.close()


def change(file: Path, *statements: str) -> None:
    """Do this to a backup."""
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE votes SET tags = '{' WHERE number = 2", "votes, number 2: Input data was truncated"),
        (
            "UPDATE votes SET tags = '[1]' WHERE number = 2",
            "votes, number 2: Expected `str`, got `int` - at `.*tags.*`",
        ),
        ("UPDATE votes SET style_a = '[]' WHERE number = 2", "votes, number 2: Expected `object.*"),
        (
            "UPDATE votes SET at = 'yesterday' WHERE number = 2",
            "votes, number 2: Invalid isoformat string: 'yesterday'",
        ),
        (
            "UPDATE votes SET number = 4000000000000000 WHERE number = 2",
            "votes, number 4000000000000000: number must be 1 .*",
        ),
        ("UPDATE votes SET number = 0 WHERE number = 2", "votes, number 0: number must be 1 to 2147483647"),
        ("UPDATE votes SET turns = -1 WHERE number = 2", "votes, number 2: turns must be 0 to 2147483647"),
        ("UPDATE votes SET model_a = x'ff' WHERE number = 2", "votes, number 2: Expected `str`, .*"),
        ("UPDATE votes SET model_a = CAST(x'ff' AS TEXT)", "votes, number 1: model_a is no text in UTF-8"),
        ("UPDATE votes SET tags = CAST(x'5b22ff225d' AS TEXT)", "votes, number 1: tags is no text in UTF-8"),
        ("ALTER TABLE votes DROP COLUMN dwell_s", "votes: no such column: votes.dwell_s"),
        ("UPDATE battles SET at = ''", "battles, id 'b1': Invalid isoformat string: ''"),
        ("UPDATE sides SET answers = '3'", "sides, battle_id 'b1': .*answers.*"),
        (
            "UPDATE sides SET configuration_id = 'gone'",
            "sides, battle_id 'b1': the row of configurations that it belongs to is not there",
        ),
        ("UPDATE snapshots SET number = 0", "snapshots, number 0: number must be 1 to 2147483647"),
        *((f"UPDATE facts SET value = {bad}", "the secret called salt .*") for bad in ("'zz'", "x'00'", "'00'", "''")),
        ("DELETE FROM alembic_version", "table .* already exists"),
    ],
)
def test_what_is_damaged_is_refused_with_the_row_named(file: Path, tmp_path: Path, statement: str, said: str) -> None:
    change(file, "PRAGMA ignore_check_constraints=ON", statement)
    target = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    target.add_vote(vote("here"))
    with pytest.raises(BadRequest, match=f"^kept is damaged: ({said})$"):
        restore(target, file, replace=True)
    assert [cast.battle_id for _, cast in target.votes()] == ["here"], "nothing has changed"
    target.close()


DAMAGE = (
    "UPDATE votes SET tags = '{' WHERE number = 2",
    "UPDATE documents SET title = CAST(x'ff' AS TEXT)",
    "UPDATE configurations SET options = 'x' WHERE id = 'c-qwen'",
    "UPDATE snapshots SET content = ''",
    "INSERT INTO sides SELECT 'b\u00df', side, configuration_id, answers, metrics, manifests FROM sides LIMIT 1",
)
LEFT_OUT = [
    "configurations, id 'c-qwen': JSON is malformed: invalid character (byte 0)",
    "documents, kind 'preset': title is no text in UTF-8",
    "sides, battle_id 'b1': the row of configurations that it belongs to is not there",
    "sides, battle_id 'b\\xdf': the row of battles that it belongs to is not there",
    "snapshots, number 1: Input data was truncated",
    "votes, number 2: Input data was truncated",
]


def test_a_store_with_damaged_rows_is_backed_up_without_them(sqlite: Store, file: Path, tmp_path: Path) -> None:
    change(tmp_path / "old" / "arena.sqlite3", *DAMAGE)
    with pytest.raises(Damaged, match=r"^arena\.sqlite3 is damaged: (configurations|documents|snapshots|votes), "):
        backup(sqlite, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    told: list[str] = []
    assert backup(sqlite, tmp_path / "new", left_out=told.append) == 1
    assert sorted(told) == LEFT_OUT
    other = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    assert restore(other, tmp_path / "new") == 1
    assert [cast.battle_id for _, cast in other.votes()] == ["b1"]
    kept = other.battle("b1")
    assert kept is not None
    assert list(kept.sides) == ["a"]
    assert other.pseudonym("ann") == sqlite.pseudonym("ann")
    other.close()
    assert "a value in it is damaged; `store backup --skip-damaged` saves the rest" in str(refused(sqlite))


def refused(store: Store) -> StoreUnavailable:
    """What a reader of damaged votes is told."""
    with pytest.raises(StoreUnavailable) as told:
        list(store.votes())
    return told.value


def test_a_damaged_backup_is_restored_without_its_damaged_rows(file: Path, tmp_path: Path, postgres: Postgres) -> None:
    change(file, *DAMAGE)
    for url in (f"sqlite:///{tmp_path / 'arena.sqlite3'}", postgres.database()):
        told: list[str] = []
        target = Store(url)
        assert restore(target, file, left_out=told.append) == 1
        assert sorted(told) == LEFT_OUT
        target.close()


def test_a_row_against_the_rules_of_its_table_is_one_damaged_row(sqlite: Store, file: Path, tmp_path: Path) -> None:
    sqlite.close()
    for damaged in (file, tmp_path / "old" / "arena.sqlite3"):
        change(damaged, "PRAGMA ignore_check_constraints = 1", "UPDATE votes SET verdict = 'c' WHERE number = 2")
    target = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    with pytest.raises(Damaged, match="votes, number 2: Invalid enum value 'c'"):
        restore(target, file)
    assert restore(target, file, left_out=lambda row: None) == 1
    assert backup(sqlite, tmp_path / "new", left_out=lambda row: None) == 1
    target.close()


def test_without_its_secret_nothing_is_restored(file: Path, tmp_path: Path) -> None:
    change(file, "UPDATE facts SET value = '00'")
    target = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    with pytest.raises(BadRequest, match=r"^kept is damaged: the secret called salt") as refused:
        restore(target, file, left_out=lambda row: None)
    assert not isinstance(refused.value, Damaged), "to leave out rows is no way on"
    target.close()


def test_a_secret_that_was_damaged_under_an_open_store_is_not_backed_up(
    sqlite: Store, file: Path, tmp_path: Path
) -> None:
    change(tmp_path / "old" / "arena.sqlite3", "UPDATE facts SET value = '00'")
    with pytest.raises(BadRequest, match=r"^arena.sqlite3 is damaged: the secret called salt"):
        backup(sqlite, tmp_path / "new", left_out=lambda row: None)
    assert not (tmp_path / "new").exists()


def test_a_store_without_its_secret_says_what_to_do_and_goes_on_after_it(
    run: Run, sqlite: Store, file: Path, tmp_path: Path
) -> None:
    old, data = tmp_path / "old" / "arena.sqlite3", ("--data", str(tmp_path / "old"))
    change(old, "UPDATE facts SET value = 'no hex'")
    sqlite.close()
    remedy = "cannot be read; restore a good backup, or delete that row"
    for command in (("kept", "list"), ("votes", "export"), ("store", "backup", str(tmp_path / "new"))):
        told = run(*command, *data)
        assert (told.status, told.out, told.err.count("\n"), remedy in told.err) == (1, "", 1, True), told
        assert "--skip-damaged" not in told.err
    change(old, "DELETE FROM facts")
    assert run("votes", "export", *data).out.count("\n") == 2


def test_the_commands_name_the_row_and_the_way_on(run: Run, sqlite: Store, file: Path, tmp_path: Path) -> None:
    change(tmp_path / "old" / "arena.sqlite3", DAMAGE[0])
    new, data = str(tmp_path / "new"), ("--data", str(tmp_path / "old"))
    told = run("store", "backup", new, *data)
    assert (told.status, told.out) == (2, "")
    assert told.err == (
        "error: arena.sqlite3 is damaged: votes, number 2: Input data was truncated. "
        "With --skip-damaged all but such rows is taken\n"
    )
    told = run("store", "backup", new, "--skip-damaged", *data)
    assert (told.status, told.out) == (0, f"Backed up 1 votes to {new}.\n")
    assert told.err == "Left out: votes, number 2: Input data was truncated\n"
    change(file, DAMAGE[0])
    data = ("--data", str(tmp_path / "empty"))
    assert run("store", "restore", str(file), *data).status == 2
    assert run("store", "restore", str(file), "--skip-damaged", *data).out == f"Restored 1 votes from {file}.\n"


def test_a_backup_of_a_newer_arena_is_not_called_damaged(file: Path, tmp_path: Path) -> None:
    change(file, "UPDATE alembic_version SET version_num = '9999'")
    target = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    with pytest.raises(StoreUnavailable, match="written by a newer version"):
        restore(target, file)
    target.close()


TWICE = (
    "CREATE TABLE copies AS SELECT * FROM configurations",
    "DROP TABLE configurations",
    "ALTER TABLE copies RENAME TO configurations",
    "INSERT INTO configurations SELECT * FROM configurations",
)


def test_what_postgresql_refuses_is_told_of_the_backup(file: Path, postgres: Postgres) -> None:
    change(file, *TWICE)
    target = Store(postgres.database())
    with pytest.raises(BadRequest, match=r"^kept is damaged: duplicate key value violates unique constraint .*$"):
        restore(target, file)
    assert target.last_number() == 0
    target.close()


def test_texts_with_nul_go_into_either_database(sqlite: Store, tmp_path: Path, postgres: Postgres) -> None:
    poisoned = Configuration("c-llama", "m\0", None, {"k\0": 1}, "e\0", "\0")
    sqlite.add_vote(vote("b1", model_a="m\0", source="\0s", tags=("\0",)), None, (poisoned,))
    file = tmp_path / "kept"
    backup(sqlite, file)
    for url in (f"sqlite:///{tmp_path / 'arena.sqlite3'}", postgres.database()):
        target = Store(url)
        assert restore(target, file) == 1
        ((_, kept),) = target.votes()
        assert (kept.model_a, kept.source, kept.tags) == ("m\ufffd", "\ufffds", ("\0",)), "JSON spells it otherwise"
        assert target.configurations()["c-llama"] == Configuration(
            "c-llama", "m\ufffd", None, {"k\0": 1}, "e\ufffd", "\ufffd"
        )
        assert target.add_vote(vote("b2")).battle_id == "b2"
        target.close()
