"""Medians over the rounds, and the tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Key = tuple[str, str, str]  # case, load, candidate


@dataclass(frozen=True)
class Stat:
    """Median, least and greatest of one figure over the rounds that count."""

    median: float
    least: float
    greatest: float

    def text(self, digits: int) -> str:
        """`median [least-greatest]`; only the median where all agree."""
        middle, low, high = (f"{value:,.{digits}f}" for value in (self.median, self.least, self.greatest))
        return middle if low == high else f"{middle} [{low}-{high}]"


@dataclass(frozen=True)
class Column:
    """A figure of a case: its key, its head, the digits shown, and what it is compared with (the ratio comes first)."""

    key: str
    head: str
    digits: int = 0
    against: str = ""
    difference: bool = False


FIRST = (
    Column("p50_us", "first token p50 us", 0, "direct", difference=True),
    Column("p99_us", "p99 us"),
)
HOLD = (
    Column("alive", "alive"),
    Column("complete", "complete and right"),
    Column("kib_per_stream", "KiB a stream", 1),
    Column("threads", "threads"),
    Column("p50_us", "latency p50 us"),
    Column("p99_us", "p99 us"),
    Column("cpu_s", "CPU s", 1),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "burst": (
        Column("us_per_token", "CPU us a token", 2, "limit_c"),
        Column("tokens_per_s", "tokens/s"),
        Column("delivered", "delivered"),
        Column("asked", "of"),
    ),
    "rates": (
        Column("us_per_token", "CPU us a token", 1, "limit_c"),
        Column("core_percent", "% of a core", 1),
        Column("p50_us", "latency p50 us"),
        Column("p99_us", "p99 us"),
    ),
    "first": FIRST,
    "hold": HOLD,
    "cancel": (
        Column("freed", "freed"),
        Column("of", "of"),
        Column("median_ms", "median ms", 1),
        Column("worst_ms", "worst ms", 1),
    ),
    "slow": (
        Column("mib_per_reader", "held a reader MiB", 1),
        Column("passed_mib", "passed on in all, MiB", 1),
        Column("complete", "complete and right"),
        Column("wall_s", "s", 1),
    ),
    "disconnects": (
        Column("freed", "freed"),
        Column("of", "of"),
        Column("p50_ms", "p50 ms", 1),
        Column("p99_ms", "p99 ms", 1),
        Column("worst_ms", "worst ms", 1),
    ),
    "page": (
        Column("renderer_percent", "renderer, % of a core", 1),
        Column("server_percent", "server, % of a core", 1),
        Column("browser_percent", "rest of the browser", 1),
        Column("tokens_per_s", "slowest column, tokens/s", 1),
        Column("characters", "characters shown"),
    ),
    "proxy": (
        Column("us_per_request", "CPU us a request", 1, "nginx"),
        Column("requests_per_s", "requests/s"),
        Column("p50_us", "p50 us"),
        Column("p99_us", "p99 us"),
    ),
    "proxy-stream": (
        Column("us_per_token", "CPU us a token", 2, "nginx"),
        Column("tokens_per_s", "tokens/s"),
        Column("p50_us", "latency p50 us"),
        Column("p99_us", "p99 us"),
    ),
    "proxy-first": FIRST,
    "proxy-hold": HOLD,
    "proxy-recover": (
        Column("requests", "requests"),
        Column("failed", "failed"),
        Column("failing_s", "s until none fails", 2),
        Column("back_s", "s until it serves again", 2),
    ),
    "proxy-fair": (
        Column("waited_answers", "waits so many answers", 2),
        Column("waited_ms", "waits p50 ms", 1),
        Column("worst_ms", "worst ms", 1),
        Column("served_per_s", "answers/s", 1),
        Column("flood_waited_ms", "flood waits p50 ms", 1),
        Column("flood_per_s", "its answers/s", 1),
    ),
}


class Results:
    """All rows of a run, folded to Stats."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def loads(self, case: str) -> list[str]:
        """The loads of a case in the order they ran."""
        return list(dict.fromkeys(row["load"] for row in self.rows if row["case"] == case))

    def candidates(self, case: str, order: Iterable[str]) -> list[str]:
        """The candidates of a case, in `order`."""
        there = {row["candidate"] for row in self.rows if row["case"] == case}
        return [name for name in order if name in there]

    def stat(self, case: str, load: str, candidate: str, key: str) -> Stat | None:
        """A figure over the rounds that count; None if no round does."""
        values = [row[key] for row in self._rows(case, load, candidate) if not row["void"] and row.get(key) is not None]
        return Stat(statistics.median(values), min(values), max(values)) if values else None

    def voids(self, case: str, load: str, candidate: str) -> list[str]:
        """Why rounds were void."""
        return [row["void"] for row in self._rows(case, load, candidate) if row["void"]]

    def behind(self, case: str, load: str, candidate: str) -> list[str]:
        """What was missing in rounds that were right but not ended in time."""
        return [row["behind"] for row in self._rows(case, load, candidate) if row.get("behind") and not row["void"]]

    def spread(self, case: str, load: str, key: str) -> float:
        """How far apart the rounds of "direct" lie: 0.3 means 30 %."""
        stat = self.stat(case, load, "direct", key)
        return (stat.greatest - stat.least) / stat.median if stat and stat.median else 0.0

    def _rows(self, case: str, load: str, candidate: str) -> list[Row]:
        wanted = (case, load, candidate)
        return [row for row in self.rows if (row["case"], row["load"], row["candidate"]) == wanted]


def table(results: Results, case: str, order: Iterable[str]) -> str:
    """One case as a Markdown table: a line for each load and candidate, ratios before figures."""
    columns = COLUMNS[case]
    heads = ["load", "candidate"]
    for column in columns:
        if column.against:
            heads.append(f"{'added over' if column.difference else 'x'} {column.against}")
        heads.append(column.head)
    lines = [" | ".join(heads), " | ".join(["---"] * 2 + ["---:"] * (len(heads) - 2))]
    names = results.candidates(case, order)
    for load in results.loads(case):
        lines += [_line(results, case, load, name, columns) for name in names]
    return "\n".join(f"| {line} |" for line in lines if line)


def _line(results: Results, case: str, load: str, name: str, columns: tuple[Column, ...]) -> str:
    voids = results.voids(case, load, name)
    cells = [load, name]
    seen = False
    for column in columns:
        stat = results.stat(case, load, name, column.key)
        seen = seen or stat is not None
        if column.against:
            base = results.stat(case, load, column.against, column.key)
            cells.append(_compared(stat, base, column))
        cells.append(stat.text(column.digits) if stat else "-")
    behind = results.behind(case, load, name)
    if voids:
        cells[1] += f" (VOID {len(voids)}x: {voids[-1]})"
    if behind:
        cells[1] += f" (behind: {behind[-1]})"
    return " | ".join(cells) if seen or voids else ""


def _compared(stat: Stat | None, base: Stat | None, column: Column) -> str:
    if stat is None or base is None or not base.median:
        return "-"
    return f"{stat.median - base.median:+,.0f}" if column.difference else f"{stat.median / base.median:.1f}"
