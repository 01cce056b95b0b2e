"""Arenas with known strengths and simulated voters: how far can the ratings be trusted, and at what cost?

    python -m bench.simulate            all questions, a few minutes
    python -m bench.simulate --quick    the same on small numbers
    python -m bench.simulate stuffing   one question
    OMP_NUM_THREADS=1 python -m bench.simulate speed    on one core

Every figure follows from the seed. Voters are honest (they say what they see), noisy (a third of their votes are
thrown dice), biased to length, or stuffing (every vote is for one model). A fifth of the even battles is a tie.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arena.ratings import Caps, Fit, Tally, board, cells, fit, style_fit, suggested, weights
from arena.ratings.board import standard_errors
from arena.ratings.strengths import SCALE, Z
from arena.ratings.tally import TIE, VERDICTS
from bench import beside
from bench.voted import NEW, Cost, Votes, cost_of

Generator = np.random.Generator
Array = NDArray[Any]
TIES = 0.4  # of the rarer outcome's chance on both sides
TARGET_WIDTH = 150.0
CAPS = Caps()


class Crowd(NamedTuple):
    """Who votes: how many voters, which part of their votes is dice."""

    voters: int = 50
    noise: float = 0.0


CROWD = Crowd()


def strengths(random: Generator, models: int, spread: float) -> Array:
    """True strengths in logits with mean 0; `spread` is their standard deviation in rating points."""
    drawn = random.normal(0, spread / SCALE, models)
    return np.asarray(drawn - drawn.mean())


def verdicts(random: Generator, difference: Array, noise: float = 0.0) -> Array:
    """Verdicts by voters who see a lead of `difference` logits; the mean score is that of Bradley and Terry."""
    chance = 1 / (1 + np.exp(-difference))
    chance = np.where(random.random(len(chance)) < noise, 0.5, chance)
    ties = TIES * np.minimum(chance, 1 - chance)
    dice = random.random(len(chance))
    return np.where(dice < chance - ties / 2, 0, np.where(dice < chance + ties / 2, TIE, 1))


def pairs(random: Generator, models: int, votes: int) -> tuple[Array, Array]:
    """Two different models for each vote."""
    a = random.integers(0, models, votes)
    return a, (a + random.integers(1, models, votes)) % models


def tally(models: int, a: Array, b: Array, verdict: Array, voter: Array | None = None, sides: int = 2) -> Tally:
    """Votes as the ratings take them; every voter has an address of its own, all vote on one day."""
    names = tuple(f"model-{number:02}" for number in range(models))
    who = np.zeros_like(a) if voter is None else voter
    size = (models, models, len(VERDICTS))
    every = np.indices(size).reshape(3, -1)
    whats = np.vstack([every, np.full_like(every[0], sides), np.zeros_like(every[0])])
    what = np.ravel_multi_index((a, b, verdict), size)
    return Tally(names, ("2026-01-01",), whats, what, who, who, np.zeros_like(a), np.ones_like(a))


def honest(random: Generator, true: Array, votes: int, crowd: Crowd = CROWD) -> Tally:
    """An arena of `votes` random battles."""
    a, b = pairs(random, len(true), votes)
    verdict = verdicts(random, true[a] - true[b], crowd.noise)
    return tally(len(true), a, b, verdict, random.integers(0, crowd.voters, votes))


def coverage(seed: int, arenas: int, votes: int, models: int = 8, spread: float = 150.0, noise: float = 0.0) -> float:
    """How many of all 95 % intervals hold the true rating."""
    random = np.random.default_rng(seed)
    inside = []
    for _ in range(arenas):
        true = strengths(random, models, spread)
        seen = honest(random, true, votes, Crowd(noise=noise))
        weight = weights(seen, CAPS)
        points = 1000 + SCALE * true
        rows = board(fit(cells(seen, weight)), seen, weight)
        inside += [row.lower <= points[int(row.name[6:])] <= row.upper for row in rows]
    return float(np.mean(inside))


def rank_error(seed: int, arenas: int, votes: int, models: int = 8, spread: float = 150.0, noise: float = 0.0) -> float:
    """By how many places a model is misplaced on average."""
    random = np.random.default_rng(seed)
    missed = []
    for _ in range(arenas):
        true = strengths(random, models, spread)
        seen = honest(random, true, votes, Crowd(noise=noise))
        fitted = fit(cells(seen, weights(seen, CAPS)), samples=0)
        missed.append(np.abs(ranks(fitted.strengths) - ranks(true)).mean())
    return float(np.mean(missed))


def ranks(values: Array) -> Array:
    """1 for the greatest."""
    return np.asarray(1 + np.argsort(np.argsort(-values)))


def stuffed(
    seed: int, identities: int, arenas: int, caps: Caps | None = CAPS, votes: int = 1000, extra: int = 300
) -> float:
    """By how many ranks `extra` votes for one middling model, by few identities, lift it on average."""
    random = np.random.default_rng(seed)
    lifted = []
    for _ in range(arenas):
        true = strengths(random, 8, 150.0)
        fair = honest(random, true, votes)
        target = int(np.argsort(true)[3])
        rivals = (target + random.integers(1, 8, extra)) % 8
        bought = tally(8, np.full(extra, target), rivals, np.zeros_like(rivals), 50 + np.arange(extra) % identities)
        both = joined(fair, bought)
        before = fit(cells(fair, weights(fair, caps)), samples=0).strengths
        after = fit(cells(both, weights(both, caps)), samples=0).strengths
        lifted.append(ranks(before)[target] - ranks(after)[target])
    return float(np.mean(lifted))


def joined(one: Tally, other: Tally) -> Tally:
    """The votes of both, on the same models."""
    rows = (np.concatenate(pair) for pair in zip(one.rows, other.rows, strict=True))
    return Tally(one.names, one.days, one.whats, *rows)


def rankings(random: Generator, true: Array, sides: int, ballots: int) -> Tally:
    """Ballots that put `sides` random models in order, as the pairs that they are kept as.

    Whoever has the greatest strength plus luck of a Gumbel distribution comes first: then each pair of a ballot falls
    as Bradley and Terry say.
    """
    entered = random.permuted(np.tile(np.arange(len(true)), (ballots, 1)), axis=1)[:, :sides]
    seen = true[entered] + random.gumbel(size=entered.shape)
    one, other = np.triu_indices(sides, 1)
    verdict = (seen[:, one] < seen[:, other]).astype(np.int64)
    return tally(len(true), entered[:, one].ravel(), entered[:, other].ravel(), verdict.ravel(), sides=sides)


def errors_of_rankings(seed: int, sides: int, arenas: int, ballots: int, models: int = 6) -> tuple[float, float]:
    """By how much the ratings stray from the truth over many arenas, and by how much they say that they do."""
    random = np.random.default_rng(seed)
    true = strengths(random, models, 100.0)
    missed, said = [], []
    for _ in range(arenas):
        seen = rankings(random, true, sides, ballots)
        fitted = fit(cells(seen, weights(seen, None)), samples=0)
        missed.append((fitted.strengths - true) ** 2)
        said.append(np.diag(fitted.covariance))
    return float(SCALE * np.sqrt(np.mean(missed))), float(SCALE * np.sqrt(np.mean(said)))


def votes_for_width(seed: int, suggest: bool, models: int, spread: float, width: float, settled: int = 0) -> int:
    """How many votes it takes until every 95 % interval is at most `width` points wide.

    All models are new; with so many `settled` votes between random pairs of the others, only the last one is. Every few
    votes it is looked again: random pairs know nothing of the ratings, and need it only to a fiftieth of their votes.
    """
    random, draw = np.random.default_rng(seed), Random(seed)
    true = strengths(random, models, spread)
    a, b = pairs(random, models - 1, settled)
    seen = tally(models, a, b, verdicts(random, true[a] - true[b]))
    fitted = fit(cells(seen, np.ones(settled)), samples=0)
    few = max(4, models // 4)
    while widest(fitted, seen) > width:
        if suggest:
            drawn = [suggested(fitted, draw, seen.names) for _ in range(few)]
            a, b = np.array(drawn).T
        else:
            a, b = pairs(random, models, max(few, (seen.votes - settled) // 50))
        seen = joined(seen, tally(models, a, b, verdicts(random, true[a] - true[b])))
        fitted = fit(cells(seen, np.ones(len(seen.what))), samples=0)
    return seen.votes - settled


def least_share(true: Array, rounds: int = 400) -> float:
    """The best that any plan of battles could do: which share of the votes of random pairs it takes.

    That is for the widest interval, many votes, and whoever knows the strengths beforehand. The plan gives each pair
    some share of the battles; a pair gets more as long as that shrinks the variances, of which ever more only the
    greatest count.
    """
    size = len(true)
    i, j = np.triu_indices(size, 1)
    ends = np.eye(size)[i] - np.eye(size)[j]
    chance = 1 / (1 + np.exp(true[j] - true[i]))
    taught = chance * (1 - chance)

    def errors(plan: Array) -> Array:
        return np.asarray(np.linalg.inv((ends.T * (plan * taught)) @ ends + 1 / size + 1e-9 * np.eye(size)) - 1 / size)

    even = np.full(len(i), 1 / len(i))
    plan, least = even, 1.0
    for at in range(rounds):
        known = errors(plan)
        variance = np.diag(known)
        least = min(least, float(variance.max() / np.diag(errors(even)).max()))
        gain = taught * ((known @ ends.T) ** 2 * ((variance / variance.max()) ** (3 + at / 7))[:, None]).sum(0)
        plan = plan * np.sqrt(gain)
        plan = plan / plan.sum()
    return least


def least_share_of_newcomer(true: Array) -> float:
    """The same for the interval of the last model where all others are known: it meets none but its equals."""
    chance = 1 / (1 + np.exp(true[:-1] - true[-1]))
    taught = chance * (1 - chance)
    return float(2 / len(true) * taught.mean() / taught.max())


def widest(fitted: Fit, seen: Tally) -> float:
    """The widest interval that the board would show, in points."""
    return float(2 * Z * SCALE * standard_errors(fitted, seen).max())


def length_bias(seed: int, votes: int, bias: float = 0.5) -> tuple[float, float]:
    """The mean error of the ratings, plain and with style held equal, where voters like length."""
    random = np.random.default_rng(seed)
    true = strengths(random, 8, 150.0)
    longer = random.normal(0, 0.3, 8)
    a, b = pairs(random, 8, votes)
    lengths = np.exp(5 + longer[np.array([a, b])] + random.normal(0, 0.4, (2, votes)))
    difference = (lengths[0] - lengths[1]) / lengths.sum(0)
    feature = difference / np.sqrt((difference**2).mean())
    verdict = verdicts(random, true[a] - true[b] + bias * feature)
    seen = tally(8, a, b, verdict)
    features = np.column_stack([feature, np.zeros((votes, 3))])
    controlled = style_fit(seen, np.ones(votes), features)
    plain = fit(cells(seen, np.ones(votes)), samples=0)
    return tuple(float(SCALE * np.abs(each.strengths - true).mean()) for each in (plain, controlled.fit))  # type: ignore[return-value]


def board_cost(votes: int, models: int = 50) -> Cost:
    """What the leaderboard of a store with so many votes costs, reading, caps and intervals included."""
    random = np.random.default_rng(1)
    true = strengths(random, models, 150.0)
    a, b = pairs(random, models, votes)
    return cost_of(Votes(a, b, np.array(VERDICTS)[verdicts(random, true[a] - true[b])]))


def published() -> Tally:
    """50,000 votes on 20 models, on which other programs can be asked too."""
    random = np.random.default_rng(50)
    return honest(random, strengths(random, 20, 150), 50_000)


def print_coverage(quick: bool) -> None:
    arenas = 40 if quick else 500
    for votes in (100, 500, 2000):
        held, missed = coverage(7, arenas, votes), rank_error(7, arenas, votes)
        noisy = rank_error(7, arenas, votes, noise=1 / 3)
        print(
            f"{votes:>9,} votes, 8 models, {arenas} arenas: {held:.1%} of the 95 % intervals hold the truth; "
            f"rank error {missed:.2f}, noisy voters {noisy:.2f}"
        )


def print_stuffing(quick: bool) -> None:
    arenas = 20 if quick else 100
    for identities in (1, 5):
        for votes in (1000, 200):
            kept, free = (stuffed(7, identities, arenas, caps, votes) for caps in (CAPS, None))
            print(f"300 stuffed votes by {identities} on {votes:,} honest: {kept:.2f} ranks, without caps {free:.2f}")


def print_suggestions(quick: bool) -> None:
    cold = [(8, 150.0, 0, 12), (8, 200.0, 0, 12), (8, 300.0, 0, 12), (20, 150.0, 0, 12), (20, 200.0, 0, 12)]
    for models, spread, settled, arenas in [*cold, (50, 150.0, 0, 4), (8, 150.0, 4000, 12), (20, 150.0, 8000, 12)]:
        seeds = range(100, 102 if quick else 100 + arenas)
        random, suggestion = (
            np.array([votes_for_width(seed, suggest, models, spread, TARGET_WIDTH, settled) for seed in seeds])
            for suggest in (False, True)
        )
        share = suggestion.sum() / random.sum()
        error = (suggestion - share * random).std(ddof=1) / random.mean() / np.sqrt(len(seeds))
        best = least_share_of_newcomer if settled else least_share
        least = np.mean([best(strengths(np.random.default_rng(seed), models, spread)) for seed in seeds])
        known = f", all but one known from {settled:,} votes" if settled else ""
        print(
            f"{models} models{known}, spread {spread:.0f}, every interval within {TARGET_WIDTH:.0f} points: "
            f"{random.mean():.0f} random votes, {suggestion.mean():.0f} suggested "
            f"({share:.2f} ± {error:.2f}; any plan: {least:.2f})"
        )


def print_style(quick: bool) -> None:
    for votes in (2000,) if quick else (2000, 20_000):
        plain, controlled = length_bias(7, votes)
        print(
            f"{votes:>9,} votes of voters who like length: mean error {plain:.0f} points, "
            f"{controlled:.0f} with style held equal"
        )


def print_speed(quick: bool) -> None:
    board_cost(1000)  # the first use of a library costs extra
    for votes in (100_000,) if quick else (100_000, 1_000_000):
        cost = board_cost(votes)
        print(
            f"{votes:>9,} votes in a SQLite store, 50 models: {cost.first_s:.2f} s of CPU for the first board, "
            f"{cost.next_s:.2f} s with {NEW} new votes"
        )


def print_beside(quick: bool) -> None:
    if not beside.installed():
        print(beside.MISSING)
        return
    for name, votes in (("22 games of four", beside.games()), ("50,000 votes on 20 models", published())):
        found = beside.compare(votes)
        print(
            f"{name}: at most {found.with_draws:.4f} points from arena-rank, {found.without:.4f} without virtual "
            f"draws; intervals {found.width:.2f} points wide on average, against {found.their_width:.2f}"
        )


QUESTIONS: dict[str, Callable[[bool], None]] = {
    "coverage": print_coverage,
    "stuffing": print_stuffing,
    "suggestions": print_suggestions,
    "style": print_style,
    "speed": print_speed,
    "arena-rank": print_beside,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer the questions asked for."""
    parser = argparse.ArgumentParser(description="Simulated arenas with known strengths.")
    parser.add_argument("question", nargs="*", choices=[*QUESTIONS, []], help="all if none is named")
    parser.add_argument("--quick", action="store_true", help="small numbers")
    chosen = parser.parse_args(arguments)
    for question in chosen.question or QUESTIONS:
        print(f"# {question}")
        QUESTIONS[question](chosen.quick)


if __name__ == "__main__":
    main()
