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
from arena.ratings.intervals import intervals
from arena.ratings.strengths import SCALE
from arena.ratings.tally import TIE, VERDICTS
from bench import beside
from bench.voted import NEW, Cost, Votes, cost_of

Generator = np.random.Generator
Array = NDArray[Any]
TIES = 0.4  # of the rarer outcome's chance on both sides
TARGET_WIDTH = 150.0  # points
SMALL_OR_WIDE = (
    *((2, spread, votes) for spread in (300.0, 450.0) for votes in (10, 15, 40)),
    *((3, 300.0, 30), (4, 350.0, 60), (8, 350.0, 100)),
)
"""Arenas in which many a model wins or loses nearly always: how many models, of which spread, and votes."""
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

    All models are new; with so many `settled` votes between random pairs of the others, only the last one is.
    """
    random = np.random.default_rng(seed)
    true = strengths(random, models, spread)
    a, b = pairs(random, models - 1, settled)
    known = tally(models, a, b, verdicts(random, true[a] - true[b]))
    return until_known(random, Random(seed) if suggest else None, true, known, width).votes - settled


def votes_one_by_one(seed: int, suggest: bool, models: int, spread: float, width: float) -> int:
    """The same where two models are there from the start, and the next one comes as soon as the board is known.

    The board is known once every interval of the models there is at most `width` points wide.
    """
    random, draw = np.random.default_rng(seed), Random(seed) if suggest else None
    true = strengths(random, models, spread)
    seen = tally(2, *np.zeros((3, 0), int))
    for present in range(2, models + 1):
        a, b, verdict, *_ = seen.whats[:, seen.what]
        seen = until_known(random, draw, true[:present], tally(present, a, b, verdict), width)
    return seen.votes


def until_known(random: Generator, draw: Random | None, true: Array, seen: Tally, width: float) -> Tally:
    """The votes of `seen`, and more until every interval is at most `width` points wide.

    They are on suggested pairs if there is a `draw` for these, else on random ones. Every few votes it is looked again:
    random pairs know nothing of the ratings, and need it only to a fiftieth of their new votes.
    """
    models, settled = len(true), seen.votes
    few = max(4, models // 4)
    fitted = fit(cells(seen, np.ones(settled)), samples=0)
    while widest(fitted, seen) > width:
        if draw is not None:
            a, b = np.array([suggested(fitted, draw, seen.names) for _ in range(few)]).T
        else:
            a, b = pairs(random, models, max(few, (seen.votes - settled) // 50))
        seen = joined(seen, tally(models, a, b, verdicts(random, true[a] - true[b])))
        fitted = fit(cells(seen, np.ones(len(seen.what))), samples=0)
    return seen


def least_share(true: Array, rounds: int = 400) -> float:
    """The best that any plan of battles could do: which share of the votes of random pairs it takes.

    That is for the widest interval, many votes, and whoever knows the strengths beforehand. The plan gives each pair
    some share of the battles; a pair gets more as long as that shrinks the variances, of which ever more only the
    greatest count. It moves in small steps: with great ones it would swing around the best plan.
    """
    size = len(true)
    i, j = np.triu_indices(size, 1)
    ends = np.eye(size)[i] - np.eye(size)[j]
    taught = information(true[i] - true[j])

    def errors(plan: Array) -> Array:
        return np.asarray(np.linalg.inv((ends.T * (plan * taught)) @ ends + 1 / size + 1e-9 * np.eye(size)) - 1 / size)

    even = np.full(len(i), 1 / len(i))
    plan, least = even, 1.0
    for at in range(rounds):
        known = errors(plan)
        variance = np.diag(known)
        least = min(least, float(variance.max() / np.diag(errors(even)).max()))
        gain = taught * ((known @ ends.T) ** 2 * ((variance / variance.max()) ** (3 + at / 4))[:, None]).sum(0)
        plan = plan * gain**0.05
        plan = plan / plan.sum()
    return least


def least_share_of_newcomer(true: Array) -> float:
    """The same for the interval of the last model where all others are known: it meets none but its equals."""
    taught = information(true[:-1] - true[-1])
    return float(2 / len(true) * taught.mean() / taught.max())


def information(difference: Array) -> Array:
    """What a vote tells about strengths that are `difference` logits apart: most, 1/4, between equals."""
    chance = 1 / (1 + np.exp(difference))
    return np.asarray(chance * (1 - chance))


def widest(fitted: Fit, seen: Tally) -> float:
    """The widest interval that the board would show, in points."""
    known = intervals(fitted, seen, np.ones(len(seen.what)))
    return float(SCALE * (known.upper - known.lower).max())


class Scene(NamedTuple):
    """An arena of `models` models, in which votes are counted until every interval is narrow.

    All are new at once; or all but one known from `settled` votes; or they come one by one.
    """

    models: int
    spread: float
    settled: int = 0
    one_by_one: bool = False
    arenas: int = 12

    @property
    def told(self) -> str:
        """The scene in words."""
        if self.one_by_one:
            return f"2 to {self.models} models, each new one on a known board"
        return f"{self.models} models" + (f", all but one known from {self.settled:,} votes" if self.settled else "")

    def votes(self, seed: int, suggest: bool) -> int:
        """How many votes it takes with suggested pairs, or else with random ones."""
        if self.one_by_one:
            return votes_one_by_one(seed, suggest, self.models, self.spread, TARGET_WIDTH)
        return votes_for_width(seed, suggest, self.models, self.spread, TARGET_WIDTH, self.settled)

    def least_share(self, seed: int, random: int) -> float:
        """Which share of the `random` votes that random pairs took the best plan would take.

        A plan for models that come one by one takes no fewer votes than one that has them all from the start.
        """
        true = strengths(np.random.default_rng(seed), self.models, self.spread)
        if self.settled:
            return least_share_of_newcomer(true)
        at_once = self._replace(one_by_one=False).votes(seed, suggest=False) if self.one_by_one else random
        return least_share(true) * at_once / random


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
    for models, spread, votes in SMALL_OR_WIDE:
        held = coverage(7, arenas, votes, models, spread)
        print(f"{votes:>9,} votes, {models} models of spread {spread:.0f}: {held:.1%}")


def print_stuffing(quick: bool) -> None:
    arenas = 20 if quick else 100
    for identities in (1, 5):
        for votes in (1000, 200):
            kept, free = (stuffed(7, identities, arenas, caps, votes) for caps in (CAPS, None))
            print(f"300 stuffed votes by {identities} on {votes:,} honest: {kept:.2f} ranks, without caps {free:.2f}")


def print_suggestions(quick: bool) -> None:
    within = f"every interval within {TARGET_WIDTH:.0f} points"
    grown = [Scene(models, spread, one_by_one=True) for models in (8, 20) for spread in (150.0, 200.0, 300.0)]
    cold = [Scene(8, 150.0), Scene(8, 200.0), Scene(8, 300.0), Scene(20, 150.0), Scene(20, 200.0)]
    known = [Scene(8, 150.0, settled=4000), Scene(20, 150.0, settled=8000)]
    for scene in [*grown, *cold, Scene(50, 150.0, arenas=4), *known]:
        if quick and scene.models > 8:
            continue
        seeds = range(100, 102 if quick else 100 + scene.arenas)
        random, suggestion = (np.array([scene.votes(seed, suggest) for seed in seeds]) for suggest in (False, True))
        share = suggestion.sum() / random.sum()
        error = (suggestion - share * random).std(ddof=1) / random.mean() / np.sqrt(len(seeds))
        least = np.mean([scene.least_share(seed, votes) for seed, votes in zip(seeds, random, strict=True)])
        print(
            f"{scene.told}, spread {scene.spread:.0f}, {within}: {random.mean():.0f} random votes, "
            f"{suggestion.mean():.0f} suggested ({share:.2f} ± {error:.2f}; any plan: {least:.2f})"
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
