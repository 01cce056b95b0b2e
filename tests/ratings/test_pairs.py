"""Evidence by pair, battles that turn neighbours around, and the next battle."""

from __future__ import annotations

from math import comb
from random import Random

import numpy as np
import pytest

from arena.ratings import DECIDED, Cell, Ledger, Tally, cells, duels, fit, flips, gains, pairs, strengths, suggested
from arena.ratings.pairs import e_value, votes_needed
from arena.ratings.strengths import newton
from bench import simulate


def arena(votes: int, models: int = 6, seed: int = 4) -> Tally:
    random = np.random.default_rng(seed)
    return simulate.honest(random, simulate.strengths(random, models, 150), votes)


def fitted(seen: Tally) -> strengths.Fit:
    return fit(cells(seen, np.ones(len(seen.what))), samples=0)


def test_the_e_value_is_a_fair_bet() -> None:
    # the fortune is 1 on average over all ways that votes on equals can fall
    assert sum(comb(12, wins) * e_value(wins, 12 - wins) for wins in range(13)) / 2**12 == pytest.approx(1)
    assert e_value(0, 0) == 1
    assert e_value(5000, 0) < float("inf")


def test_looking_after_every_vote_is_wrong_less_often_than_one_in_twenty() -> None:
    random = np.random.default_rng(1)
    fooled = 0
    for _ in range(200):
        wins = np.cumsum(random.random(300) < 0.5)
        fooled += any(e_value(float(won), float(votes - won)) >= DECIDED for votes, won in enumerate(wins, 1))
    assert fooled <= 10


def test_votes_needed_decide_and_one_less_does_not() -> None:
    assert votes_needed(30, 3, 0) == 0
    assert votes_needed(5, 5, 2) is None
    assert votes_needed(50_000, 49_900, 0) is None
    need = votes_needed(8, 3, 0)
    assert need is not None
    rate = 9 / 13
    assert e_value(8 + need * rate, 3 + need * (1 - rate)) >= DECIDED
    assert e_value(8 + (need - 2) * rate, 3 + (need - 2) * (1 - rate)) < DECIDED
    drawn = votes_needed(8, 3, 11)
    assert drawn is not None
    assert drawn > 1.5 * need


def test_a_duel_counts_both_ways_round() -> None:
    ledger = Ledger()
    rows = [("A", "B", "a", 6), ("B", "A", "b", 4), ("B", "A", "tie", 3), ("A", "B", "both_bad", 1), ("B", "A", "a", 2)]
    ledger.add([Cell(*row) for row in rows])  # type: ignore[arg-type]
    tally = ledger.tally(["C"])
    (duel,) = duels(fit(cells(tally, np.ones(5))), tally, np.ones(5))
    assert (duel.a, duel.b, duel.wins, duel.losses, duel.ties, duel.both_bad) == ("A", "B", 10, 2, 3, 1)
    assert duel.win_rate == 12 / 16
    assert 0.6 < duel.expected < 0.75
    assert not duel.decided
    assert duel.votes_needed == votes_needed(10, 2, 4)
    (light,) = duels(fit(cells(tally, np.ones(5))), tally, np.full(5, 0.1))
    assert light.e_value < duel.e_value


def test_flips_are_what_brute_force_finds() -> None:
    seen = arena(200)
    found = fitted(seen)
    assert len(flips(found)) == 5
    for flip in flips(found):
        i, j = found.names.index(flip.above), found.names.index(flip.below)

        def passes(votes: int, i: int = i, j: int = j) -> bool:
            wins = found.wins.copy()
            wins[j, i] += votes
            after = newton(wins[None], found.strengths[None])[0][0]
            return bool(after[j] > after[i])

        assert next(votes for votes in range(1, 500) if passes(votes)) == flip.votes


def test_beyond_a_hundred_contestants_flips_are_nearly_exact_without_a_fit_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = fitted(arena(3000, models=pairs.MOST_REFITTED + 5))
    with monkeypatch.context() as exactly:
        exactly.setattr(pairs, "MOST_REFITTED", 1000)
        exact = flips(found, 20)
    assert np.diff(np.sort(found.strengths)).max() < 1, "no gap is wide enough for a fit of its own"
    monkeypatch.delattr(pairs, "newton")
    quick = flips(found)
    assert len(quick) == len(found.names) - 1
    assert [(flip.above, flip.below) for flip in quick[:19]] == [(flip.above, flip.below) for flip in exact]
    assert max(abs(one.votes - other.votes) for one, other in zip(quick, exact, strict=False)) <= 1
    assert sum(one.votes != other.votes for one, other in zip(quick, exact, strict=False)) <= 2
    assert flips(found, 20) == quick[:19]


def test_flips_of_a_large_board_are_sound_where_records_are_clean_or_nobody_voted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"m{at:03}" for at in range(pairs.MOST_REFITTED + 5)]
    ledger = Ledger()
    assert {flip.votes for flip in flips(fitted(ledger.tally(names)))} == {1}
    ledger.add([Cell(names[0], other, "a", 50) for other in names[2:]])
    ledger.add([Cell(names[1], other, "a", 30) for other in names[2:]])
    found = fitted(ledger.tally(names))
    lead, *rest = flips(found, 12)
    assert (lead.above, lead.below) == (names[0], names[1])
    assert {flip.votes for flip in rest[1:]} == {1}, "these are equals"
    monkeypatch.setattr(pairs, "MOST_REFITTED", 1000)
    assert flips(found, 12) == (lead, *rest)


def test_duels_among_the_best_are_those_of_the_whole_board() -> None:
    seen = arena(300)
    found, weight = fitted(seen), np.ones(len(seen.what))
    best = {found.names[at] for at in np.argsort(-found.strengths)[:3]}
    among = [duel for duel in duels(found, seen, weight) if {duel.a, duel.b} <= best]
    assert len(among) == 3
    assert list(duels(found, seen, weight, 3)) == among


def test_the_gain_is_the_loss_of_variance() -> None:
    found = fitted(arena(300))
    before, power = np.diag(found.uncertainty), 16.0
    got = gains(found)
    assert np.allclose(got, got.T, atol=0)
    i, j = 0, 3
    chance = 1 / (1 + np.exp(found.strengths[j] - found.strengths[i]))
    step = np.zeros(6)
    step[[i, j]] = 1, -1
    information = np.linalg.inv(found.uncertainty + 1 / 6) - 1 / 6 + chance * (1 - chance) * np.outer(step, step)
    after = np.diag(np.linalg.inv(information + 1 / 6) - 1 / 6)
    assert got[i, j] == pytest.approx(((before - after) * before**power).sum(), rel=1e-6)


def test_who_was_never_seen_comes_first_and_chance_has_its_share() -> None:
    seen = arena(400)
    tally = Tally((*seen.names, "new"), seen.days, *(getattr(seen, name) for name in seen.__struct_fields__[2:]))
    found = fit(cells(tally, np.ones(len(tally.what))), samples=0)
    draw, names = Random(1), [*tally.names, "new"]
    pairs = [suggested(found, draw, names) for _ in range(200)]
    with_new = sum(6 in pair or 7 in pair for pair in pairs)
    assert 180 <= with_new < 200
    assert all(a != b for a, b in pairs)
    assert {suggested(found, draw, ["new", "new"], explore=0) for _ in range(20)} == {(0, 1), (1, 0)}
    with pytest.raises(ValueError, match="two"):
        suggested(found, draw, ["new"])
