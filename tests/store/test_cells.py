"""Votes told page by page, as texts, whatever is in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import astuple
from sqlalchemy import event

from arena.ratings import Ledger
from arena.store import CellFilter, Store, cells, tables
from arena.types import VotePage
from tests.store.votes import vote

ODD = ("", "[", '","', "],[", "\\", "\x1f", "\x1e,\n", "\u2028 日本 🦙", "'; --", "%s {} :first", "a" * 3000)
Told = tuple[Any, ...]


def told(store: Store, **wanted: Any) -> list[Told]:
    """What the pages say, with nothing taken for granted about their order."""
    return sorted(
        (*what, voter, address, moment[:10])
        for page in store.pages(CellFilter(**wanted))
        for what, voter, address, moment in zip(*map(msgspec.json.decode, astuple(page)), strict=True)
    )


def sizes(pages: Iterator[VotePage]) -> list[int]:
    """How many votes are on each page."""
    return [len(msgspec.json.decode(page.voters)) for page in pages]


def statements(store: Store) -> list[tuple[str, Any]]:
    """What the database is asked from now on."""
    asked: list[tuple[str, Any]] = []
    store.open()
    engine = store.database._engine
    assert engine is not None
    event.listen(engine, "after_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    return asked


def test_votes_are_told_whatever_their_names(store: Store) -> None:
    pairs = [(one, other) for one in ODD for other in ODD if one != other]
    store.add_votes(
        vote(f"b{n}", model_a=a, model_b=b, configuration_a=b, configuration_b=a, voter=a, address=b, repeats=n % 3)
        for n, (a, b) in enumerate(pairs)
    )
    expected = [(a, b, "a", 2, n % 3, a, b, "2026-03-01") for n, (a, b) in enumerate(pairs)]
    assert told(store, per="model") == told(store, per="model", voters=ODD) == sorted(expected)
    assert told(store) == sorted((b, a, *more) for a, b, *more in expected)
    ledger = Ledger()
    ledger.add_pages(store.pages(CellFilter(per="configuration")))
    tally = ledger.tally()
    assert (tally.names, tally.votes, tally.voters) == (tuple(sorted(ODD)), len(pairs), len(ODD))


@pytest.mark.parametrize("odd", ['","', "],[", '"', "\\", "\n"])
def test_a_name_that_looks_like_two_is_one(store: Store, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    monkeypatch.setattr(cells, "PAGE", 3)
    whos = [
        ("v", "a"),
        ("", ""),
        (odd, "a"),
        (f"v{odd}a", ""),
        ("v", f"a{odd}"),
        (f"{odd}v", "a"),
        ("v", "a"),
        ("w", "a"),
    ]
    store.add_votes(vote(f"b{n}", voter=voter, address=address) for n, (voter, address) in enumerate(whos))
    assert [row[5:7] for row in told(store)] == sorted(whos)
    ledger = Ledger()
    ledger.add_pages(store.pages())
    tally = ledger.tally()
    assert (tally.voters, len(set(tally.address))) == (len({voter for voter, _ in whos}), 3)
    assert tally.voter[0] == tally.voter[4] == tally.voter[6], "whether a page was told by texts or by pairs"


def test_each_vote_is_told_once_whatever_the_page_and_the_gaps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_votes(vote(f"b{n}", repeats=n, model_b="same" if n != 5 else vote("x").model_a) for n in range(10))
    with store.database.writing() as connection:
        connection.execute(tables.votes.delete().where(tables.votes.c.repeats.in_((2, 3, 4))))
    for size in (1, 2, 3, 1000):
        monkeypatch.setattr(cells, "PAGE", size)
        assert [row[4] for row in told(store, per="model")] == [0, 1, 6, 7, 8, 9], "nobody meets itself"
        assert [row[4] for row in told(store, after=1, upto=9)] == [1, 5, 6, 7, 8]
        assert told(store, upto=1)[0][:2] == ("c-llama", "c-qwen")
        assert [row[4] for row in told(store, after=9)] == [9]
        assert told(store, after=10) == told(store, upto=0) == []
        assert told(store, voters=("bob",)) == told(store, voters=()) == []
        assert told(store, voters=("ann", "bob"), after=1, upto=9) == told(store, after=1, upto=9)


def test_a_number_far_away_is_found_at_once(store: Store) -> None:
    far = 2**31 - 1
    store.add_votes(vote(f"b{n}", repeats=n) for n in range(3))
    with store.database.writing() as connection:
        connection.execute(tables.votes.update().where(tables.votes.c.repeats == 2).values(number=far))
    asked = statements(store)
    assert [row[4] for row in told(store)] == [0, 1, 2]
    assert len([statement for statement, _ in asked if statement.startswith("SELECT")]) < 9
    assert [row[4] for row in told(store, after=2, upto=far)] == [2]
    assert [row[4] for row in told(store, upto=far - 1)] == [0, 1]


def test_an_empty_store_tells_nothing(store: Store) -> None:
    assert told(store) == []


def test_no_answer_of_the_database_is_longer_than_a_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "PAGE", 10)
    store.add_votes(vote(f"b{n}") for n in range(35))
    asked = statements(store)
    assert sizes(store.pages()) == [10, 10, 10, 5]
    assert sum("BETWEEN" in statement for statement, _ in asked) == 4
    asked.clear()
    assert list(store.pages(CellFilter(upto=0))) == []
    assert not [statement for statement, _ in asked if statement.startswith("SELECT")], "nothing can be there"


def test_the_votes_of_a_few_are_one_question(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "PAGE", 10)
    store.add_votes(vote(f"b{n}", voter=("ann", "bob", "eve")[n % 3]) for n in range(75))
    asked = statements(store)
    assert sizes(store.pages(CellFilter(voters=("ann", "eve")))) == [10, 10, 10, 10, 10]
    assert sum("voter IN" in statement for statement, _ in asked) == 1


@pytest.mark.parametrize("wanted", [CellFilter(voters=("ann",)), CellFilter(voters=("ann", "bob"), after=9, upto=99)])
def test_the_votes_of_a_few_are_found_by_an_index(sqlite: Store, wanted: CellFilter) -> None:
    asked = statements(sqlite)
    assert list(sqlite.pages(wanted)) == []
    with sqlite.database.reading() as connection:
        for statement, values in [each for each in asked if each[0].startswith("SELECT")]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            assert "(voter=?" in plan[0].detail
