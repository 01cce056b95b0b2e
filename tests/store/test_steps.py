"""The store of an older arena is brought up to date with everything in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from arena.errors import Conflict
from arena.store import Store, migrations
from arena.store.database import Database
from tests.store.votes import STYLED, battle, vote

OLD_COLUMNS = (
    "number, battle_id, voter, address, at, configuration_a, configuration_b, model_a, model_b, verdict, blind, rated, "
    "category, tags, turns, style_a, style_b"
)


def schema_of(connection: sqlalchemy.Connection, revision: str) -> None:
    """Make the tables of an arena of then in an empty database."""
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for step in reversed(list(script.walk_revisions("base", revision))):
            step.module.upgrade()
        context.stamp(script, revision)


def written_by_the_first_arena(url: str) -> None:
    """A store of the first schema with three votes, the second of them struck out by hand."""
    database = Database(url)
    database.open()
    with database.writing() as connection:
        schema_of(connection, "0001")
        for number in (1, 2, 3):
            values = f"{number}, 'b{number}', 'ann', 'net', '2026-03-01T10:00:00.000+00:00', 'c-llama', 'c-qwen', "
            values += "'llama3.2:3b', 'qwen2.5:3b', 'a', true, true, 'coding', '[\"go\",\"c++\"]', 2, "
            values += '\'{"tokens":12,"headers":1,"lists":2,"bold":3}\', NULL'
            connection.execute(
                sqlalchemy.text(f"INSERT INTO votes ({OLD_COLUMNS}) VALUES ({values})".replace(":", "\\:"))
            )
        connection.execute(sqlalchemy.text("DELETE FROM votes WHERE number = 2"))
        if database.file is None:
            connection.execute(sqlalchemy.text("SELECT setval(pg_get_serial_sequence('votes', 'number'), 3)"))
    database.close()


def test_the_votes_of_the_first_arena_are_all_there(store: Store, url: str) -> None:
    written_by_the_first_arena(url)
    styled = {**STYLED, "style_b": None, "address": "net"}
    assert list(store.votes()) == [(number, vote(f"b{number}", **styled)) for number in (1, 3)]
    assert store.add_vote(vote("b3", **styled)).at == vote("b3").at, "the same vote again is one"
    with pytest.raises(Conflict):
        store.add_vote(vote("b3", verdict="b"))
    store.add_vote(vote("b4"), battle("b4"))
    assert [number for number, _ in store.votes()] == [1, 3, 4]


def test_a_ballot_on_three_sides_is_kept_whole_or_not_at_all(store: Store) -> None:
    three = [
        vote("b1", pair=pair, verdict=verdict, sides=3) for pair, verdict in (("ab", "a"), ("ac", "a"), ("bc", "b"))
    ]
    assert store.add_ballot(three) == store.add_ballot(three) == store.ballot("b1", "ann") == tuple(three)
    for other in (three[:2], [*three[:2], vote("b1", pair="bc", verdict="tie", sides=3)]):
        with pytest.raises(Conflict):
            store.add_ballot(other)
    broken = [vote("b2", pair="ab"), vote("b2", pair="ac", verdict="left")]
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        store.add_ballot(broken)
    assert store.ballot("b2", "ann") == ()
    assert store.last_number() == 3


def test_what_one_voter_has_compared_before_is_counted(store: Store) -> None:
    def cast(battle_id: str, **more: object) -> int:
        return store.add_vote(vote(battle_id, **{"prompt": "p", **more})).repeats

    assert [cast("b1"), cast("b1"), cast("b2"), cast("b3", model_a="qwen2.5:3b", model_b="llama3.2:3b")] == [0, 0, 1, 2]
    others = ({"prompt": "q"}, {"prompt": ""}, {"voter": "ben"}, {"voter": ""}, {"model_a": "mistral:7b"})
    assert [cast(f"c{n}", **other) for n, other in enumerate(others)] == [0] * 5
