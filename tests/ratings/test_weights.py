"""Nobody outweighs the crowd, and nobody is weighed down in an arena of few."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from arena.ratings import Caps, Cell, Ledger, weights


def weighed(*rows: tuple[int, str, str, str], caps: Caps | None = None) -> list[float]:
    """The total weight of each row of (votes, voter, address, day)."""
    ledger = Ledger()
    ledger.add([Cell("A", "B", "tie", votes, voter, address, day) for votes, voter, address, day in rows])
    tally = ledger.tally()
    found: list[float] = (weights(tally, caps or Caps()) * tally.count).tolist()
    return found


def crowd(size: int, votes: int = 20) -> list[tuple[int, str, str, str]]:
    return [(votes, f"v{n}", f"a{n}", f"day {n}") for n in range(size)]


def test_one_person_or_two_are_not_capped() -> None:
    assert weighed((5000, "me", "home", "today")) == [5000]
    assert weighed((5000, "", "", "")) == [5000]
    assert weighed((900, "me", "home", "1"), (1000, "you", "home", "1")) == [900, 1000]


def test_a_busy_day_of_a_small_circle_is_not_capped() -> None:
    calm = [(10, "me", "home", f"day {n}") for n in range(30)]
    assert sum(weighed((200, "me", "home", "busy"), *calm)) == 500
    guests = [(1, f"guest {n}", "home", "busy") for n in range(9)]
    assert weighed((200, "me", "home", "busy"), *guests)[0] == 200


def test_who_has_most_of_all_votes_is_capped_by_a_crowd_all_the_same() -> None:
    assert weighed((900, "s", "x", "1"), *crowd(50, 4))[0] == pytest.approx(20)


def test_a_voter_counts_for_no_more_than_the_middle_one() -> None:
    assert weighed((300, "s", "x", "1"), *crowd(50))[0] == pytest.approx(20)
    assert weighed((300, "s", "x", "1"), *crowd(50, 40))[0] == pytest.approx(40)
    spread = [(15, "s", "x", f"day {n}") for n in range(20)]
    assert sum(weighed(*spread, *crowd(50))[:20]) == pytest.approx(20)


def test_an_address_counts_for_no_more_than_its_cap() -> None:
    many = [(20, f"s{n}", "x", "1") for n in range(10)]
    assert sum(weighed(*many, *crowd(50))[:10]) == pytest.approx(40)
    days = [(20, f"s{n}", "x", f"day {n}") for n in range(10)]
    assert sum(weighed(*days, *crowd(50))[:10]) == pytest.approx(60)


def test_without_caps_and_without_votes() -> None:
    ledger = Ledger()
    assert weights(ledger.tally(), Caps()).tolist() == []
    ledger.add([Cell("A", "B", "a", 900, "s"), *(Cell("A", "B", "b", 20, f"v{n}") for n in range(50))])
    assert set(weights(ledger.tally(), None)) == {1.0}


def test_who_strays_from_all_others_counts_less_and_only_in_a_crowd() -> None:
    ledger = Ledger()
    ledger.add([Cell("A", "B", verdict, 10, f"v{n}", f"a{n}") for n in range(20) for verdict in ("a", "b")])
    ledger.add([Cell("A", "B", "a", 20, "s", "x")])
    tally = ledger.tally()
    found = weights(tally, Caps())
    assert found[-1] == pytest.approx((3 / (10 / np.sqrt(5.5))) ** 2, rel=0.1)
    assert found[0] == 1
    two = Ledger()
    two.add([Cell("A", "B", "a", 50, "me"), Cell("A", "B", "b", 50, "you")])
    assert weights(two.tally(), Caps()).tolist() == [1, 1]


def test_one_odd_vote_is_held_against_nobody() -> None:
    ledger = Ledger()
    ledger.add([Cell("A", "B", "a", 10, f"v{n}", f"a{n}") for n in range(20)])
    ledger.add([Cell("A", "B", "a", 9, "odd", "x"), Cell("A", "B", "b", 1, "odd", "x")])
    assert weights(ledger.tally(), Caps()).tolist() == [1] * 22


def test_sparse_groups_are_grouped_all_the_same() -> None:
    rows = [(1, f"v{n}", f"a{n}", f"day {n}") for n in range(1500)]
    assert set(weighed(*rows)) == {1.0}


def test_it_does_not_matter_how_many_voters_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    ledger.add([Cell("A", "B", verdict, 10, f"v{n}", f"a{n}") for n in range(20) for verdict in ("a", "b")])
    ledger.add([Cell("A", "B", "a", 20, "s", "x"), Cell("A", "B", "b", 20, "t", "u")])
    ledger.add([Cell("C", "B", "b", 9, "odd", "y"), Cell("C", "A", "a", 1, "few", "z")])
    found = weights(ledger.tally(), Caps())
    assert (found < 1).any()
    for size in (1, 7):
        monkeypatch.setattr(importlib.import_module("arena.ratings.weights"), "_BLOCK", size)
        assert weights(ledger.tally(), Caps()) == pytest.approx(found, rel=1e-12)
