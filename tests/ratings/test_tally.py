"""Votes as numbers: grouped as they come, whatever their order, and ballots on more than two sides."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from arena.ratings import Caps, Cell, Ledger, Tally, board, cells, duels, fit, weights
from arena.types import VotePage
from bench import simulate

Row = tuple[str, str, str, int, int, str, str, str]


def row(a: str, b: str, verdict: str = "a", sides: int = 2, voter: str = "v", day: str = "1", repeats: int = 0) -> Row:
    return a, b, verdict, sides, repeats, voter, f"at {voter}", day


def page(rows: list[Row]) -> VotePage:
    """As a store tells them."""
    return VotePage(*map(text, ([each[:5] for each in rows], *([each[at] for each in rows] for at in (5, 6, 7)))))


def text(values: object) -> str:
    return msgspec.json.encode(values).decode()


def told(*pages: list[Row]) -> Tally:
    ledger = Ledger()
    ledger.add_pages(map(page, pages))
    return ledger.tally()


def test_pages_make_no_difference_and_old_tallies_stay_as_they_were() -> None:
    rows = [row("xy"[n % 2], "z", "ab"[n % 2], voter=f"v{n % 7}", day=str(n % 3)) for n in range(300)]
    ledger = Ledger()
    ledger.add_pages(map(page, [rows[:100]]))
    before = ledger.tally()
    ledger.add_pages(map(page, [[]]))
    ledger.add_pages(map(page, [rows[100:101], rows[101:]]))
    whole = told(rows)
    for name in Tally.__struct_fields__:
        assert np.array_equal(getattr(ledger.tally(), name), getattr(whole, name)), name
    assert (before.votes, before.voters, whole.votes, whole.voters) == (100, 7, 300, 7)
    assert before.on_what.sum() == 100


def test_the_order_of_the_votes_does_not_matter() -> None:
    rows = [row(f"m{n % 5}", f"m{(n + 1 + n % 3) % 5}", "ab"[n % 3 % 2], voter=f"v{n % 9}") for n in range(200)]
    boards = []
    for each in (rows, rows[::-1]):
        tally = told(each)
        weight = weights(tally, Caps())
        boards.append(board(fit(cells(tally, weight)), tally, weight))
    assert [each.name for each in boards[0]] == [each.name for each in boards[1]]
    for one, other in zip(*boards, strict=True):
        assert (one.rating, one.lower, one.upper) == pytest.approx((other.rating, other.lower, other.upper))


def test_a_contestant_against_itself_is_left_out() -> None:
    ledger = Ledger()
    ledger.add([Cell("x", "x", "a", 3), Cell("x", "y", "a", 1), Cell("z", "z", "tie", 1)])
    assert (ledger.tally().names, ledger.tally().votes) == (("x", "y"), 1)


def test_votes_told_one_by_one_are_those_that_were_counted() -> None:
    rows = [row("xy"[n % 2], "z", "ab"[n % 3 % 2], voter=f"v{n % 7}", day=str(n % 3), repeats=n % 2) for n in range(50)]
    ledger = Ledger()
    ledger.add([Cell(a, b, v, 1, who, at, day, k, again) for a, b, v, k, again, who, at, day in rows])  # type: ignore[arg-type]
    for name in Tally.__struct_fields__:
        assert np.array_equal(getattr(ledger.tally(), name), getattr(told(rows), name)), name


def test_another_way_to_tell_them_is_the_same_voter_and_contestant() -> None:
    ledger = Ledger()
    hexadecimal = row("x", "y", voter="0123456789abcdef")
    ledger.add_pages(map(page, [[row("x", "y"), hexadecimal], [hexadecimal]]))
    ledger.add_pages(
        [VotePage('[["x", "y", "a", 2, 0]]', '[ "v"]', '["at v" ]', '["1234567890T"]'), page([hexadecimal])]
    )
    tally = ledger.tally()
    assert (tally.names, tally.votes, tally.voters) == (("x", "y"), 5, 2)
    assert (tally.days, tally.voter.tolist(), tally.address.tolist()) == (
        ("1", "1234567890"),
        [1, 0, 0, 1, 0],
        [0, 1, 1, 0, 1],
    )


PSEUDONYM = "0123456789abcdef"


@pytest.mark.parametrize(
    "others",
    [
        ("fedcba9876543210", PSEUDONYM),
        ("",),
        (PSEUDONYM.upper(),),
        (PSEUDONYM[:-1], f"{PSEUDONYM}0"),
        (PSEUDONYM[2:], f"{PSEUDONYM}01"),
        (PSEUDONYM[:8] + "\n" + PSEUDONYM[8:],),
        (PSEUDONYM + PSEUDONYM,),
        (PSEUDONYM[:14] + "é",),
        (f'{PSEUDONYM}","{PSEUDONYM}',),
    ],
)
def test_pseudonyms_are_told_from_all_that_looks_like_them(others: tuple[str, ...]) -> None:
    names = [PSEUDONYM, *others, PSEUDONYM]
    for pages in ([names], [names[:1], names[1:]], [names[:1], names[1:-1], names[-1:]]):
        tally = told(*([row("x", "y", voter=name) for name in each] for each in pages))
        alike = [[one == other for one in names] for other in names]
        assert (tally.voter[:, None] == tally.voter).tolist() == alike
        assert tally.voters == len(set(names)) == tally.voter.max() + 1


def test_the_same_comparison_again_counts_less_and_less() -> None:
    tally = told(
        [row("a", "b", repeats=repeats) for repeats in (0, 1, 2, 7, 10**6)], [row("b", "c", sides=4, repeats=1)]
    )
    assert weights(tally, None).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 8, 1 / 8, 1 / 4])


def test_a_ballot_on_four_sides_counts_three_votes() -> None:
    ranked = [row(a, b, sides=4) for a, b in ("ab", "ac", "ad", "bc", "bd", "cd")]
    tally = told(ranked)
    assert weights(tally, None).sum() == pytest.approx(3)
    assert cells(tally, weights(tally, None)).weights.sum() == pytest.approx(3)
    assert {duel.wins for duel in duels(fit(cells(tally, np.ones(6))), tally, np.ones(6))} == {1}
    crowd = [row("a", "b", "ab"[n % 2], voter=f"v{n}") for n in range(200)]
    often = [row(a, b, sides=4, voter="s") for a, b in ("ab", "ac", "ad", "bc", "bd", "cd")] * 30
    tally = told(crowd + often)
    assert weights(tally, Caps(stray=1e9))[200:].sum() == pytest.approx(20)


def test_what_votes_weigh_is_the_same_however_many_weigh_less_than_their_share() -> None:
    random = np.random.default_rng(3)
    tally = told([row(f"m{n % 4}", "z", "ab"[n % 3 % 2], sides=2 + n % 3, repeats=n % 2) for n in range(100)])
    for less in (0.0, 0.2, 1.0):
        weight = weights(tally, None) * np.where(random.random(100) < less, random.random(100), 1.0)
        held, squared = tally.weighed(weight)
        assert held == pytest.approx(np.bincount(tally.what, weight))
        assert squared == pytest.approx(np.bincount(tally.what, weight**2))


@pytest.mark.parametrize("sides", [2, 3, 4])
def test_the_error_is_that_of_rankings_and_not_of_pairs_cast_apart(sides: int) -> None:
    errors, found = simulate.errors_of_rankings(11, sides, arenas=150, ballots=300)
    assert found == pytest.approx(errors, rel=0.12)
