"""Nobody outweighs the crowd, and nobody is weighed down in an arena of few."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from msgspec.structs import replace

from arena.ratings import Caps, Cell, Ledger, Tally, Weigher, cells, fit, weights
from arena.ratings.tally import SCORES, Floats


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


def test_what_a_busy_day_takes_is_no_longer_there_for_the_other_caps() -> None:
    calm = [(15, f"v{n}", f"a{n}", f"day {day}") for n in range(50) for day in range(2)]
    found = weighed((10_000, "s", "x", "1"), *calm)
    assert found[0] == pytest.approx(20)
    assert found[1:] == [15] * 100, "most have thirty votes, so thirty are nothing that stands out"


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


def test_three_votes_against_all_evidence_are_enough_to_stray() -> None:
    ledger = Ledger()
    ledger.add([Cell("A", "B", "a", 20, f"v{n}", f"a{n}") for n in range(50)])
    ledger.add([Cell("A", "B", "b", 3, "s", "x"), *(Cell(f"C{n}", f"D{n}", "tie", 1, "s", "x") for n in range(5))])
    found = weights(ledger.tally(), Caps())
    assert set(found[:50]) == {1.0}
    assert found[50] == pytest.approx((3 / (3 / np.sqrt(0.5))) ** 2, rel=0.1)
    assert found[50] == found[-1], "who strays counts less in all"


def test_one_odd_vote_is_held_against_nobody() -> None:
    ledger = Ledger()
    ledger.add([Cell("A", "B", "a", 10, f"v{n}", f"a{n}") for n in range(20)])
    ledger.add([Cell("A", "B", "a", 9, "odd", "x"), Cell("A", "B", "b", 1, "odd", "x")])
    assert weights(ledger.tally(), Caps()).tolist() == [1] * 22


def test_sparse_groups_are_grouped_all_the_same() -> None:
    rows = [(1, f"v{n}", f"a{n}", f"day {n}") for n in range(1500)]
    assert set(weighed(*rows)) == {1.0}


UNCAPPED = Caps(voter=1e9, address=1e9, voter_day=1e9, address_day=1e9)


def drawn(seed: int, voters: int, votes: int) -> list[Cell]:
    """Votes on six models of which the first are better; every fifth voter says the opposite of what it sees."""
    random = np.random.default_rng(seed)
    cells = []
    for _ in range(votes):
        (a, b), voter = sorted(random.permutation(6)[:2].tolist()), int(random.integers(voters))
        better = random.random() < 0.7 + (b - a) / 20
        verdict = ("a" if better != (voter % 5 == 0) else "b") if random.random() < 0.8 else ("tie", "both_bad")[better]
        sides, repeats, count = (int(random.choice(of)) for of in ([2, 2, 3], [0, 0, 1], [1, 1, 2]))
        cells.append(Cell(f"m{a}", f"m{b}", verdict, count, f"v{voter}", f"a{voter}", "day", sides, repeats))  # type: ignore[arg-type]
    return cells


def deviations(tally: Tally, strengths: Floats) -> Floats:
    """By how many standard errors each voter's votes for or against one model differ at most, all looked at."""
    surprise, spread = np.zeros((2, tally.voter.max() + 1, len(tally.names)))
    for voter, what, count in zip(tally.voter, tally.what, tally.count, strict=True):
        a, b, verdict, sides, _ = tally.whats[:, what]
        chance = 1 / (1 + np.exp(strengths[b] - strengths[a]))
        for contestant, sign in ((a, 1), (b, -1)):
            surprise[voter, contestant] += sign * count * tally.share[what] * (SCORES[verdict] - chance)
            spread[voter, contestant] += count * tally.share[what] ** 2 * (sides + 1) / 3 * chance * (1 - chance)
    return np.asarray((np.abs(surprise) / np.sqrt(spread + 0.5)).max(1))


@pytest.fixture(params=[1_000_000, -1_000_000])
def empty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few groups, and so many that they are sorted."""
    monkeypatch.setattr(importlib.import_module("arena.ratings.weights"), "_EMPTY", request.param)


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(("voters", "votes", "stray"), [(20, 700, 3.0), (90, 900, 2.0), (60, 500, 1.5), (30, 900, 3.5)])
def test_nobody_who_strays_is_overlooked(voters: int, votes: int, stray: float) -> None:
    ledger = Ledger()
    ledger.add(drawn(5, voters, votes))
    tally = ledger.tally()
    judged = np.bincount(tally.voter, tally.count) >= 8
    expected = share = weights(tally, None)
    for _ in range(2):
        found = np.where(judged, deviations(tally, fit(cells(tally, expected), samples=0).strengths), 0.0)
        expected = share * ((stray / np.maximum(found, stray)) ** 2)[tally.voter]
    assert (expected < share).any()
    assert weights(tally, replace(UNCAPPED, stray=stray)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("empty")
def test_new_votes_are_weighed_as_if_all_had_come_at_once() -> None:
    ledger, weigher = Ledger(), Weigher(Caps())
    odd = [
        Cell("A", "m1", "a", 9, "v3", "a3"),
        Cell("m1", "n", "b", 2, "v3", "a3"),
        Cell("m1", "n", "b", 9, "new", "x"),
    ]
    for coming in (
        drawn(6, 40, 600),
        [],
        drawn(7, 40, 3),
        odd,
        drawn(8, 60, 200),
        [Cell("m1", "n", "b", 1, "v3", "a3")],
    ):
        ledger.add(coming)
        tally = ledger.tally()
        at_once = weights(tally, Caps())
        assert weigher.weights(tally) == pytest.approx(at_once, rel=1e-9)
        assert (at_once < tally.share[tally.what]).any()
