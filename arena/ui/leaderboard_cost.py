"""Quality against what it costs: speed from fair runs of kept battles, memory from the sizes of the models."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from statistics import median, quantiles
from typing import Any, Protocol

from msgspec import Struct

from arena.names import canonical
from arena.ratings import Rating
from arena.types import Vote
from arena.ui import plots
from arena.ui.leaderboard_ranking import Known
from arena.ui.parts import DASH, seconds, size
from arena.ui.plots import words

MOST_VOTES, MOST_BATTLES = 20_000, 1000
"""The latest votes that are looked through when the figures are wanted again, and their latest battles."""
MOST_RUNS = 500
"""Runs of a model that are remembered: the latest ones."""


class Battles(Protocol):
    """What is asked of the store."""

    def last_number(self) -> int: ...
    def votes(self, since: int = 0) -> Iterator[tuple[int, Vote]]: ...
    def battle(self, battle_id: str) -> Any: ...


class Run(Struct, frozen=True):
    """What one fair run cost: generation in tokens per second, and the first token after so many seconds."""

    tokens_per_sec: float
    ttft_s: float | None


class Pace(Struct, frozen=True):
    """The fair runs of a model: median and quartiles of its tokens per second, median time to the first token."""

    runs: int
    middle: float
    lower: float
    upper: float
    ttft_s: float | None


class FairRuns:
    """The figures of battles' sides that can be defended: measured by the server's counters, with nothing beside them.

    What anybody may send a public server, votes with the names in sight and figures with them, is left out.
    Only battles that came since are read when it is asked again, and no more than the latest. It blocks, for threads.
    """

    def __init__(self, store: Battles) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._read = 0
        self._runs: dict[str, dict[tuple[str, ...], Run]] = {}

    def paces(self) -> dict[str, Pace]:
        """What is known of each model, by canonical name."""
        with self._lock:
            last = self._store.last_number()
            votes = self._store.votes(max(self._read, last - MOST_VOTES))
            named = dict.fromkeys(vote.battle_id for _, vote in votes if vote.blind or vote.rated)
            fought = [battle_id for battle_id in named if ":" not in battle_id]  # what was imported has no battle here
            for battle_id in fought[-MOST_BATTLES:]:
                self._add(self._store.battle(battle_id))
            self._read = last
            return {model: pace(list(runs.values())) for model, runs in self._runs.items()}

    def _add(self, battle: Any) -> None:
        """Take a battle in. What ran once and is kept in several pairs counts once."""
        for side in battle.sides.values() if battle is not None else ():
            for metrics, manifest in zip(side.metrics, side.manifests, strict=False):
                if (run := fair(metrics)) is None:
                    continue
                runs = self._runs.setdefault(canonical(side.configuration.model), {})
                told = ("endpoint", "started_at", "prompt_sha256")
                runs[(side.configuration.id, *(str(manifest.get(name)) for name in told))] = run
                if len(runs) > MOST_RUNS:
                    del runs[next(iter(runs))]


def fair(metrics: Mapping[str, Any]) -> Run | None:
    """The figures of a run that measure the model: reliable, and nothing else on the same host meanwhile."""
    rate = metrics.get("tokens_per_sec")
    if not rate or not metrics.get("rate_reliable") or metrics.get("contended"):
        return None
    return Run(float(rate), metrics.get("ttft_s"))


def pace(runs: Sequence[Run]) -> Pace:
    """Median and quartiles of at least one run."""
    rates = [run.tokens_per_sec for run in runs]
    lower, _, upper = quantiles(rates, method="inclusive") if len(rates) > 1 else (rates[0],) * 3
    first = [run.ttft_s for run in runs if run.ttft_s is not None]
    return Pace(len(runs), median(rates), lower, upper, median(first) if first else None)


def cost(rows: Sequence[Rating], hues: Mapping[str, str], paces: Mapping[str, Pace], known: Known) -> str:
    """Both plots with their table; in plain words where there is nothing to plot."""
    sizes = {key: info.size_bytes for key, info in (known or {}).items() if info.size_bytes}
    fast = [(row, paces[canonical(row.name)]) for row in rows if canonical(row.name) in paces]
    big = [(row, sizes[canonical(row.name)]) for row in rows if canonical(row.name) in sizes]
    return (
        f'<div class="maps"><section class="card map"><h3>Quality against speed</h3>{_speed(fast, hues)}</section>'
        f'<section class="card map"><h3>Quality against memory</h3>{_memory(big, hues)}</section></div>'
        f"{_table(rows, paces, sizes)}"
    )


def _speed(fast: Sequence[tuple[Rating, Pace]], hues: Mapping[str, str]) -> str:
    if not fast:
        return (
            '<p class="empty">No fair run is kept yet. Speed is taken only from answers that had their host to '
            "themselves, with at least 16 tokens. A battle asks both sides at once, so on a single host they disturb "
            "each other: put the models on different hosts, or ask in the Compare tab <b>one after another</b> and "
            "vote for the best answer there.</p>"
        )
    best = plots.frontier([(one.middle, row.rating) for row, one in fast])
    spots = [
        plots.Spot(
            row.name, hues.get(row.name, ""), one.middle, one.lower, one.upper, row.rating, row.lower, row.upper,
            f"{row.name}: {one.middle:.1f} tokens/s (half of {one.runs} runs from {one.lower:.1f} to {one.upper:.1f}), "
            f"rating {row.rating:.0f} ({row.lower:.0f} to {row.upper:.0f})",
            on_top,
        )
        for (row, one), on_top in zip(fast, best, strict=True)
    ]  # fmt: skip
    told = "Ratings over tokens per second. " + _leaders(spots, "faster")
    note = f'<p class="note dim">Median of fair runs, with quartiles. {words(_leaders(spots, "faster"))}</p>'
    return plots.scatter(spots, "Quality against speed", told, ("tokens/s", "rating")) + note


def _memory(big: Sequence[tuple[Rating, int]], hues: Mapping[str, str]) -> str:
    if not big:
        return '<p class="empty">No host has told the size of any of these models.</p>'
    best = plots.frontier([(float(count), row.rating) for row, count in big], more=False)
    spots = [
        plots.Spot(
            row.name, hues.get(row.name, ""), count / 1e9, count / 1e9, count / 1e9, row.rating, row.lower, row.upper,
            f"{row.name}: {size(count)}, rating {row.rating:.0f} ({row.lower:.0f} to {row.upper:.0f})", on_top,
        )
        for (row, count), on_top in zip(big, best, strict=True)
    ]  # fmt: skip
    told = "Ratings over the size of the weights. " + _leaders(spots, "smaller")
    note = (
        '<p class="note dim">Size of the weights as the hosts tell it; a running model needs more for its context. '
        f"{words(_leaders(spots, 'smaller'))}</p>"
    )
    return plots.scatter(spots, "Quality against memory", told, ("GB", "rating")) + note


def _leaders(spots: Sequence[plots.Spot], word: str) -> str:
    names = [spot.name for spot in spots if spot.best]
    return f"Ringed: no other is both better and {word} ({', '.join(names)})."


def _table(rows: Sequence[Rating], paces: Mapping[str, Pace], sizes: Mapping[str, int]) -> str:
    """The same in figures."""
    if not any(canonical(row.name) in paces or canonical(row.name) in sizes for row in rows):
        return ""
    columns = ("Rating", "Tokens/s", "First token", "Fair runs", "Memory")
    head = "<th scope='col'>Model</th>" + "".join(f"<th scope='col' class='num'>{text}</th>" for text in columns)
    body = "".join(_row(row, paces.get(canonical(row.name)), sizes.get(canonical(row.name))) for row in rows)
    return (
        '<section><h3>In figures</h3><div class="scroll card"><table class="grid" aria-label="Quality, speed '
        f'and memory"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _row(row: Rating, one: Pace | None, count: int | None) -> str:
    told = (
        f"{row.rating:.0f}",
        f"{one.middle:.1f}" if one else DASH,
        seconds(one.ttft_s) if one else DASH,
        f"{one.runs:,}" if one else DASH,
        size(count),
    )
    cells = "".join(f'<td class="num">{text}</td>' for text in told)
    return f'<tr><th scope="row"><span class="name">{words(row.name)}</span></th>{cells}</tr>'
