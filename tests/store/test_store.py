"""What the store keeps, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from arena.errors import Conflict, SettingsError, StoreUnavailable
from arena.settings import load
from arena.store import CellFilter, Document, Store, migrations, url_of
from arena.store.shelf import Room, save
from arena.store.tables import metadata
from arena.types import Vote
from tests.store.votes import LLAMA, QWEN, STYLED, battle, vote


def test_a_vote_is_kept_as_it_was_with_its_battle(store: Store, url: str) -> None:
    cast = vote("b1", **STYLED)
    assert store.add_vote(cast, battle("b1")) == cast
    store.close()
    again = Store(url)
    assert list(again.votes()) == [(1, cast)]
    assert again.vote("b1", "ann") == cast
    assert again.vote("b1", "ben") is None
    assert again.battle("b1") == battle("b1")
    assert again.battle("b2") is None
    assert again.configurations() == {LLAMA.id: LLAMA, QWEN.id: QWEN}
    again.close()


def test_the_same_vote_again_is_one_and_another_one_is_refused(store: Store) -> None:
    first = store.add_vote(vote("b1", at="2026-03-01T10:00:00.000+00:00"), battle("b1"))
    assert store.add_vote(vote("b1", at="2026-03-02T10:00:00.000+00:00"), battle("b1")) == first
    with pytest.raises(Conflict):
        store.add_vote(vote("b1", verdict="tie"))
    store.add_vote(vote("b1", voter="ben", verdict="tie"), battle("b1"))
    assert [(number, cast.verdict) for number, cast in store.votes()] == [(1, "a"), (2, "tie")]


def test_many_writers_at_once(store: Store) -> None:
    store.open()
    outcomes: Counter[str] = Counter()

    def cast() -> None:
        for i in range(5):
            store.add_vote(vote(f"b{i}"), battle(f"b{i}"))
            outcomes["kept"] += 1

    threads = [threading.Thread(target=cast) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes["kept"] == 40
    numbers = [number for number, _ in store.votes()]
    assert len(numbers) == store.last_number() == 5


def test_votes_are_read_in_parts_and_from_a_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.store.store.PAGE_ROWS", 3)
    assert store.last_number() == 0
    assert list(store.votes()) == []
    assert store.add_votes([vote(f"b{i}") for i in range(7)], [LLAMA, QWEN]) == 7
    assert store.add_votes([vote("b6"), vote("b7"), vote("b7")]) == 1
    assert store.add_votes([]) == 0
    assert [number for number, _ in store.votes()] == list(range(1, 9))
    assert [(number, cast.battle_id) for number, cast in store.votes(6)] == [(7, "b6"), (8, "b7")]
    assert store.last_number() == 8
    assert set(store.configurations()) == {LLAMA.id, QWEN.id}


def several() -> list[Vote]:
    march, april = "2026-03-01T23:59:59.000+00:00", "2026-04-01T00:00:00.000+00:00"
    return [
        vote("b1", at=march, tags=("c++", "50%"), category="coding"),
        vote("b2", at=march, voter="ben"),
        vote("b3", at=april, verdict="tie", blind=False),
        vote("b4", at=april, rated=False, address="net1"),
        vote("b5", at=april, configuration_a="c-warm", voter="ben", tags=("50",)),
    ]


TOLD: list[tuple[CellFilter, dict[tuple[str, str], int]]] = [
    (CellFilter(), {("c-llama", "a"): 2, ("c-llama", "tie"): 1, ("c-warm", "a"): 1}),
    (CellFilter(rated=None), {("c-llama", "a"): 3, ("c-llama", "tie"): 1, ("c-warm", "a"): 1}),
    (CellFilter(per="model"), {("llama3.2:3b", "a"): 3, ("llama3.2:3b", "tie"): 1}),
    (CellFilter(blind=True), {("c-llama", "a"): 2, ("c-warm", "a"): 1}),
    (CellFilter(category="coding"), {("c-llama", "a"): 1}),
    (CellFilter(tag="50%"), {("c-llama", "a"): 1}),
    (CellFilter(tag="50"), {("c-warm", "a"): 1}),
    (CellFilter(tag="c"), {}),
    (CellFilter(voters=("ben",)), {("c-llama", "a"): 1, ("c-warm", "a"): 1}),
    (CellFilter(since="2026-04-01"), {("c-llama", "tie"): 1, ("c-warm", "a"): 1}),
    (CellFilter(until="2026-04-01"), {("c-llama", "a"): 2}),
    (CellFilter(after=3), {("c-warm", "a"): 1}),
    (CellFilter(after=1, upto=2), {("c-llama", "a"): 1}),
]


def test_votes_are_told_as_they_were_asked_for(store: Store) -> None:
    store.add_votes(several())
    for wanted, counts in TOLD:
        whats = [what for page in store.pages(wanted) for what in msgspec.json.decode(page.whats)]
        assert Counter((a, verdict) for a, _, verdict, *_ in whats) == counts, wanted


def test_documents_are_kept_per_owner(store: Store) -> None:
    first = Document("conversation", "ann", "1", "2026-01-01", "One", {"turns": [1, None, "ü"]})
    later = Document("conversation", "ann", "2", "2026-01-02", "Two", [])
    for document in (first, later, Document("preset", "ann", "1", "2026-01-01", "P", 1)):
        save(store, document, Room(9))
    assert store.documents("conversation", "ann") == [later, first]
    assert store.documents("conversation", "ben") == []
    assert store.document("conversation", "ben", "1") is None
    changed = Document("conversation", "ann", "1", "2026-01-03", "Changed", {})
    save(store, changed, Room(9))
    assert store.document("conversation", "ann", "1") == changed
    assert store.forget("conversation", "ann", "1")
    assert not store.forget("conversation", "ann", "1")
    assert store.documents("conversation", "ann") == [later]


def test_snapshots_come_in_their_order(store: Store) -> None:
    store.open()
    made = [store.add_snapshot(i, {"best": i}) for i in (10, 20, 30)]
    assert store.snapshots() == made
    assert store.snapshots(2) == made[1:]
    assert [snapshot.number for snapshot in made if snapshot is not None] == [1, 2, 3]


def test_pseudonyms_last_as_long_as_the_store(store: Store, url: str, tmp_path: Path) -> None:
    assert store.pseudonym("") == ""
    name = store.pseudonym("ann")
    assert name == store.pseudonym("ann") != store.pseudonym("ben")
    again, other = Store(url), Store(f"sqlite:///{tmp_path / 'other'}")
    assert again.pseudonym("ann") == name
    assert other.pseudonym("ann") != name
    again.close()
    other.close()


def test_the_steps_lead_to_the_schema_that_the_code_uses(store: Store) -> None:
    store.open()
    with store.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        tables = set(sqlalchemy.inspect(connection).get_table_names())
    assert tables == {*metadata.tables, "alembic_version"}
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == migrations.LATEST


def test_the_schema_is_described() -> None:
    text = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    for table in metadata.sorted_tables:
        for column in table.columns:
            assert f"`{column.name}`" in text.partition(f"## {table.name}")[2].partition("\n## ")[0], column


def test_the_store_of_a_newer_arena_is_left_alone(store: Store, url: str) -> None:
    store.open()
    with store.database.writing() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="newer version"):
            store.votes().__next__()
    assert not store.database.opened


@pytest.mark.parametrize("url", ["mysql://h/d", "nonsense", "sqlite://", "postgresql+nodriver"])
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="ARENA_DATABASE_URL"):
        Store(url)


@pytest.mark.parametrize("place", ["h:99x/x", "h:/x", "[::1/x", "h/x?sslmod=require", "h/x?sslmode=require&plugin=x"])
def test_an_address_that_makes_no_sense_is_refused_without_the_password(place: str) -> None:
    with pytest.raises(SettingsError, match=r"^ARENA_DATABASE_URL(?!.*secret)") as caught:
        Store(f"postgresql://u:secret@{place}")
    assert caught.value.__suppress_context__, "a traceback would show what was given"


def test_a_store_that_is_not_there_is_looked_for_a_place_only(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path / 'new' / 'folder' / 'arena.sqlite3'}").check()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    store = Store(f"sqlite:///{tmp_path / 'file' / 'data' / 'arena.sqlite3'}")
    with pytest.raises(StoreUnavailable, match="its folder cannot be used"):
        store.check()
    Store("postgresql://h/arena").database.check_place()


def test_where_the_settings_want_it(tmp_path: Path) -> None:
    assert url_of(load(data=tmp_path)) == f"sqlite:///{tmp_path / 'arena.sqlite3'}"
    assert url_of(load(database_url="postgresql://h/arena")) == "postgresql://h/arena"
    store = Store(url_of(load(data=tmp_path / "new" / "folder")))
    assert not store.exists
    store.open()
    assert store.exists
    store.close()
    assert Store("postgres://h/arena").exists
