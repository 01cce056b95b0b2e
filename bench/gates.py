"""The promises that are checked at the end of a run, each with its figure and its limit."""

from __future__ import annotations

from dataclasses import dataclass

from report import Results


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


class Figures:
    """What one candidate reached, over the rounds that count; None where that was not run."""

    def __init__(self, results: Results, name: str) -> None:
        self.results, self.name = results, name

    @property
    def troubled(self) -> int:
        """Loads that lost something, got something wrong or came late."""
        rows = self.results.rows
        return sum(row["candidate"] == self.name and bool(row["void"] or row.get("behind")) for row in rows)

    def median(self, case: str, load: str, key: str, who: str = "") -> float | None:
        """The middle round."""
        stat = self.results.stat(case, load, who or self.name, key)
        return stat.median if stat else None

    def worst(self, case: str, load: str, key: str) -> float | None:
        """The round with the greatest figure."""
        stat = self.results.stat(case, load, self.name, key)
        return stat.greatest if stat else None

    def least(self, case: str, load: str, key: str) -> float | None:
        """The round with the least figure."""
        stat = self.results.stat(case, load, self.name, key)
        return stat.least if stat else None

    def added_ms(self, case: str, load: str) -> float | None:
        """Milliseconds to the first token beyond those of direct access."""
        mine, direct = self.median(case, load, "p50_us"), self.median(case, load, "p50_us", "direct")
        return None if mine is None or direct is None else (mine - direct) / 1000

    def ratio(self, case: str, load: str, key: str, against: str) -> float | None:
        """How many times the figure of another candidate."""
        mine, theirs = self.median(case, load, key), self.median(case, load, key, against)
        return mine / theirs if mine is not None and theirs else None


def arena_gates(results: Results, name: str) -> list[Gate]:
    """What the arena promises."""
    of = Figures(results, name)
    found = [
        Gate("loads with anything lost, wrong or late", of.troubled, 0),
        Gate("first token added over direct, 1 stream, median", of.added_ms("first", "1"), 0.5, " ms"),
        Gate("first token added over direct, 64 streams, median", of.added_ms("first", "64"), 1, " ms"),
        Gate("64 x 30 tokens/s, CPU over the C limit", of.ratio("rates", "64x30", "us_per_token", "limit_c"), 4, "x"),
    ]
    found += [
        Gate(f"burst {load}, CPU over the C limit", of.ratio("burst", load, "us_per_token", "limit_c"), 6, "x")
        for load in ("k=2", "k=6", "k=16", "k=64")
    ]
    found += _held(of, "hold", 32)
    for phase in ("streaming", "slow", "before first token"):
        freed, took = of.least("cancel", phase, "freed"), of.worst("cancel", phase, "worst_ms")
        found += [
            Gate(f"cut while {phase}: upstream freed, of 36", freed, 36, "", at_least=True),
            Gate(f"cut while {phase}: worst", took, 50, " ms"),
        ]
    slow = results.loads("slow")
    stages = of.median("disconnects", "all stages", "of")
    found += [
        Gate("slow readers: held for each", of.worst("slow", slow[0], "mib_per_reader") if slow else None, 8, " MiB"),
        Gate("disconnects: freed", of.least("disconnects", "all stages", "freed"), stages or 500, "", at_least=True),
        Gate("disconnects: p99", of.worst("disconnects", "all stages", "p99_ms"), 100, " ms"),
    ]
    found += [
        Gate(f"page, {load}: renderer", of.median("page", load, "renderer_percent"), 50, " % of a core")
        for load in ("fresh", "with 4k tokens")
    ]
    return found


def proxy_gates(results: Results, name: str) -> list[Gate]:
    """What the proxy promises, answered on the connection itself."""
    of = Figures(results, name)
    found = [Gate("loads with anything lost, wrong or late", of.troubled, 0), *_requests(of, 1.5)]
    found += [
        Gate(f"{load}, CPU a token over nginx", of.ratio("proxy-stream", load, "us_per_token", "nginx"), 1.3, "x")
        for load in ("16 flood", "64x30")
    ]
    found += [
        Gate(f"first token added over direct, {words}, median", of.added_ms("proxy-first", load), limit, " ms")
        for load, words, limit in (("1", "1 stream", 0.3), ("64", "64 streams", 0.6), ("256", "256 streams", 0.6))
    ]
    return [*found, *_held(of, "proxy-hold", 16), *_fleet(of)]


def asgi_gates(results: Results, name: str) -> list[Gate]:
    """What it promises under any other server."""
    of = Figures(results, name)
    found = [Gate("loads with anything lost, wrong or late", of.troubled, 0)]
    return [*found, *_requests(of, 5), *_fleet(of)]


def _requests(of: Figures, limit: float) -> list[Gate]:
    return [
        Gate(f"{load}, CPU a request over nginx", of.ratio("proxy", load, "us_per_request", "nginx"), limit, "x")
        for load in ("GET c=1", "GET c=32", "POST c=1", "POST c=32")
    ]


def _held(of: Figures, case: str, limit_kib: float) -> list[Gate]:
    complete, kib = of.least(case, "2000", "complete"), of.median(case, "2000", "kib_per_stream")
    return [
        Gate("2,000 slow streams complete and right", complete, 2000, "", at_least=True),
        Gate("2,000 slow streams, memory a stream", kib, limit_kib, " KiB"),
    ]


def _fleet(of: Figures) -> list[Gate]:
    killed, shared = "one of two", "16 against 1"
    return [
        Gate("one of two upstreams killed: failed requests", of.worst("proxy-recover", killed, "failed"), 0),
        Gate("it is back: until it serves again", of.worst("proxy-recover", killed, "back_s"), 2, " s"),
        Gate("16 against 1: the one waits for so many answers", of.median("proxy-fair", shared, "waited_answers"), 1.5),
    ]


GATES = {"arena": arena_gates, "arena+token": arena_gates, "proxy": proxy_gates, "proxy asgi": asgi_gates}
"""By candidate."""
