"""Whichever way a model is spelled, it is one model: in ballots, in imports, and in what an older arena has kept."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations

from arena.leaderboard import Leaderboard
from arena.store import Side, Store, StoredBattle
from arena.store.database import Database
from arena.store.migrations.versions import v0004
from arena.types import Configuration
from tests.store.test_steps import schema_of
from tests.store.votes import AT, vote

LISTED = Configuration("c-l", "llama3.2:latest", "sha256:1", label="llama3.2:latest, seed 1")


def fought(battle_id: str, a: Configuration, b: Configuration) -> StoredBattle:
    return StoredBattle(battle_id, AT, "installed", ("Hi",), {"a": Side(a, ("1",)), "b": Side(b, ("2",))})


def models(store: Store) -> set[str]:
    return {model for _, vote in store.votes() for model in (vote.model_a, vote.model_b)}


def test_a_model_is_called_as_it_was_first(store: Store) -> None:
    store.add_vote(
        vote("b1", model_a=LISTED.model, configuration_a="c-l"), fought("b1", LISTED, Configuration("q", "q"))
    )
    spelled = [
        Configuration("c-2", "llama3.2", label="llama3.2, seed 2"),
        Configuration("c-3", "LLAMA3.2", label="seed"),
    ]
    for number, each in enumerate(spelled, 2):
        kept = store.add_vote(
            vote(f"b{number}", model_a=each.model, model_b="Q", configuration_a=each.id),
            fought(f"b{number}", each, Configuration("q", "Q")),
        )
        assert (kept.model_a, kept.model_b) == ("llama3.2:latest", "q")
    assert (
        store.add_votes([vote("b4", model_a="Llama3.2:Latest", model_b="Q:latest")], [Configuration("c-4", "Q")]) == 1
    )
    assert models(store) == {"llama3.2:latest", "q", "qwen2.5:3b"}
    known = store.configurations()
    assert {each.model for each in known.values()} == {"llama3.2:latest", "q"}
    assert [known[key].label for key in ("c-l", "c-2", "c-3")] == [LISTED.label, "llama3.2:latest, seed 2", "seed"]
    assert {row.name: row.votes for row in Leaderboard(store).board().rows} == {
        "llama3.2:latest": 4, "q": 3, "qwen2.5:3b": 1,
    }  # fmt: skip


def test_the_same_prompt_is_told_again_however_its_models_are_spelled(store: Store) -> None:
    contestants = [Configuration("x", "x:latest"), Configuration("y", "y")]
    first = vote("b1", model_a="x:latest", model_b="y", prompt="p")
    assert store.add_ballot([first], contestants=contestants)[0].repeats == 0
    assert store.add_vote(vote("b2", model_a="Y:latest", model_b="X", prompt="p")).repeats == 1


def voted_on(connection: sqlalchemy.Connection, spellings: Sequence[str]) -> None:
    """A vote on each of these models against q, in the tables of the third step."""
    insert = sqlalchemy.text(
        "INSERT INTO votes (battle_id, voter, address, at, configuration_a, configuration_b, model_a, model_b, "
        "verdict, blind, rated, category, tags, turns) VALUES (:id, 'ann', '', :at, :id, 'c-q', "
        ":a, :b, 'a', true, true, '', '[]', 1)"
    )
    for number, model in enumerate(spellings):
        a, b = (model, "q") if number % 2 else ("q", model)
        connection.execute(insert, {"id": f"b{number}", "at": AT, "a": a, "b": b})


def test_what_an_older_arena_kept_apart_is_one(store: Store, url: str) -> None:
    spellings = ("llama3.2", "llama3.2", "LLAMA3.2", "llama3.2:latest", "gpt-4", "GPT-4", "GPT-4", "hf.co:80/a/b")
    database = Database(url)
    database.open()
    with database.writing() as connection:
        schema_of(connection, "0003")
        voted_on(connection, spellings)
        contestant = sqlalchemy.text("INSERT INTO configurations VALUES (:id, :model, :digest, '{}', '', :label)")
        for key, model, digest, label in (
            ("c-1", "llama3.2", "sha256:1", "llama3.2, seed 1"),
            ("c-2", "llama3.2:latest", "sha256:1", "llama3.2:latest"),
            ("c-3", "gpt-4", None, ""),
        ):
            connection.execute(contestant, {"id": key, "model": model, "digest": digest, "label": label})
    database.close()
    assert models(store) == {"q", "llama3.2:latest", "GPT-4", "hf.co:80/a/b"}, "a host's spelling, or the commonest"
    told = [(each.id, each.model, each.label) for each in store.configurations().values()]
    assert sorted(told) == [
        ("c-1", "llama3.2:latest", "llama3.2:latest, seed 1"),
        ("c-2", "llama3.2:latest", "llama3.2:latest"),
        ("c-3", "GPT-4", ""),
    ]


def test_many_names_are_made_one_in_as_many_passes_as_few(url: str) -> None:
    passes = []
    for count in (2, 40):
        database = Database(url)
        database.open()
        with contextlib.suppress(RuntimeError), database.writing() as connection:
            schema_of(connection, "0003")
            voted_on(connection, [name for number in range(count) for name in (f"m{number}", f"M{number}")])
            changes: list[str] = []
            seen = partial(_note, changes)
            sqlalchemy.event.listen(connection, "before_cursor_execute", seen)
            with Operations.context(MigrationContext.configure(connection)):
                v0004.upgrade()
            passes.append(len(changes))
            left = connection.execute(sqlalchemy.text("SELECT model_a FROM votes UNION SELECT model_b FROM votes"))
            assert len(left.all()) == count + 1
            raise RuntimeError("nothing of this is kept")
        database.close()
    assert passes == [2, 2]


def _note(changes: list[str], _connection: object, _cursor: object, statement: str, *_: object) -> None:
    if statement.startswith("UPDATE"):
        changes.append(statement)


@pytest.mark.parametrize("model", ["q", "Q:latest"])
def test_a_name_new_to_the_store_stays_as_it_is(store: Store, model: str) -> None:
    assert store.add_vote(vote("b1", model_b=model)).model_b == model
