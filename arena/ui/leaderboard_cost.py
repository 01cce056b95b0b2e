"""Quality against what it costs: speed from fair runs, memory from the sizes of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from arena.leaderboard import Pace
from arena.names import canonical
from arena.ratings import Rating
from arena.types import ModelInfo
from arena.ui import plots
from arena.ui.parts import DASH, seconds, size
from arena.ui.plots import words


def cost(
    rows: Sequence[Rating], hues: Mapping[str, str], paces: Mapping[str, Pace], models: Mapping[str, ModelInfo]
) -> str:
    """Both plots with their table; in plain words where there is nothing to plot."""
    sizes = {key: info.size_bytes for key, info in models.items() if info.size_bytes}
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
            "each other: put the models on different hosts, or ask in the Compare tab <b>one after another</b>. What "
            "is measured there counts until the server is restarted, and for good if you vote on it.</p>"
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
