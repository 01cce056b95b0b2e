"""Medians over the rounds, the tables, and the gates."""

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
    "first": (
        Column("p50_us", "first token p50 us", 0, "direct", difference=True),
        Column("p99_us", "p99 us"),
    ),
    "hold": (
        Column("alive", "alive"),
        Column("complete", "complete and right"),
        Column("kib_per_stream", "KiB a stream", 1),
        Column("threads", "threads"),
        Column("p50_us", "latency p50 us"),
        Column("p99_us", "p99 us"),
        Column("cpu_s", "CPU s", 1),
    ),
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


@dataclass(frozen=True)
class Gate:
    """A promise about the arena: what was measured, and the limit it must keep."""

    name: str
    figure: float | None
    limit: float
    unit: str = ""
    at_least: bool = False

    def line(self) -> str:
        """PASS or FAIL with the figure; "not run" without one."""
        limit = f"({'>=' if self.at_least else '<='} {self.limit:g}{self.unit})"
        if self.figure is None:
            return f"not run  {self.name} {limit}"
        kept = self.figure >= self.limit if self.at_least else self.figure <= self.limit
        return f"{'PASS' if kept else 'FAIL'}     {self.name}: {self.figure:.4g}{self.unit} {limit}"


def gates(results: Results, name: str = "arena") -> list[Gate]:
    """Every promise, for one candidate."""

    def median(case: str, load: str, key: str, who: str = name) -> float | None:
        stat = results.stat(case, load, who, key)
        return stat.median if stat else None

    def worst(case: str, load: str, key: str) -> float | None:
        stat = results.stat(case, load, name, key)
        return stat.greatest if stat else None

    def least(case: str, load: str, key: str) -> float | None:
        stat = results.stat(case, load, name, key)
        return stat.least if stat else None

    def added_ms(load: str) -> float | None:
        mine, direct = median("first", load, "p50_us"), median("first", load, "p50_us", "direct")
        return None if mine is None or direct is None else (mine - direct) / 1000

    def ratio(case: str, load: str) -> float | None:
        mine, limit = median(case, load, "us_per_token"), median(case, load, "us_per_token", "limit_c")
        return mine / limit if mine is not None and limit else None

    troubled = [row for row in results.rows if row["candidate"] == name and (row["void"] or row.get("behind"))]
    found = [
        Gate("loads with anything lost, wrong or late", len(troubled), 0),
        Gate("first token added over direct, 1 stream, median", added_ms("1"), 0.5, " ms"),
        Gate("first token added over direct, 64 streams, median", added_ms("64"), 1, " ms"),
        Gate("64 x 30 tokens/s, CPU over the C limit", ratio("rates", "64x30"), 4, "x"),
    ]
    found += [
        Gate(f"burst {load}, CPU over the C limit", ratio("burst", load), 6, "x")
        for load in ("k=2", "k=6", "k=16", "k=64")
    ]
    found += [
        Gate("2,000 slow streams complete and right", least("hold", "2000", "complete"), 2000, "", at_least=True),
        Gate("2,000 slow streams, memory a stream", median("hold", "2000", "kib_per_stream"), 32, " KiB"),
    ]
    for phase in ("streaming", "slow", "before first token"):
        found += [
            Gate(f"cut while {phase}: upstream freed, of 36", least("cancel", phase, "freed"), 36, "", at_least=True),
            Gate(f"cut while {phase}: worst", worst("cancel", phase, "worst_ms"), 50, " ms"),
        ]
    slow = results.loads("slow")
    of = median("disconnects", "all stages", "of")
    found += [
        Gate("slow readers: held for each", worst("slow", slow[0], "mib_per_reader") if slow else None, 8, " MiB"),
        Gate("disconnects: freed", least("disconnects", "all stages", "freed"), of or 500, "", at_least=True),
        Gate("disconnects: p99", worst("disconnects", "all stages", "p99_ms"), 100, " ms"),
    ]
    found += [
        Gate(f"page, {load}: renderer", median("page", load, "renderer_percent"), 50, " % of a core")
        for load in ("fresh", "with 4k tokens")
    ]
    return found
