"""The cases: each drives one running target and yields one row a load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import lab
from candidates import Target, judge

Row = dict[str, Any]
Case = Callable[[Target], Iterator[Row]]


def burst(target: Target) -> Iterator[Row]:
    """No delay upstream, 64 tokens a write: what a token costs at full speed when one request fans out to k models."""
    for streams, tokens, requests in ((2, 24000, 6), (6, 16000, 3), (16, 6000, 3), (64, 1500, 3)):
        target.warm(streams)
        got = target.load(f"bench-n{tokens}-b64", streams, 1, requests, tokens, t=4)
        verdict = judge(got, streams * requests)
        yield {
            "load": f"k={streams}",
            **verdict,
            "us_per_token": per_token(got),
            "tokens_per_s": got["tokens"] / got["wall_s"],
            "delivered": got["tokens"],
            "asked": streams * requests * tokens,
        }
        if any(verdict.values()):
            target.restart()


def rates(target: Target) -> Iterator[Row]:
    """Tokens at the pace of real models, for four seconds: CPU a token and one-way latency."""
    for name, streams, at_once, rate in (("6x50", 6, 1, 50), ("64x30", 4, 16, 30), ("256x30", 4, 64, 30)):
        target.warm(streams)
        tokens = 4 * rate
        got = target.load(f"bench-d{1_000_000 // rate}-n{tokens}", streams, at_once, at_once, tokens, t=12, r=200)
        late = got["lat_us"] or {}
        verdict = judge(got, streams * at_once)
        yield {
            "load": name,
            **verdict,
            "us_per_token": per_token(got),
            "p50_us": late.get("p50"),
            "p99_us": late.get("p99"),
            "core_percent": None if got["server_cpu_s"] is None else 100 * got["server_cpu_s"] / got["wall_s"],
            "delivered": got["tokens"],
            "asked": streams * at_once * tokens,
        }
        if any(verdict.values()):
            target.restart()


def first(target: Target) -> Iterator[Row]:
    """Time from request to each stream's first token; the upstream's own takes 1 ms. Two models a request, one at 1."""
    for streams in (1, 16, 64, 256):
        models = 1 if streams == 1 else 2
        at_once = streams // models
        requests, tokens, delay = (100, 3, 2000) if streams == 1 else (4 * at_once, 20, 50000)
        target.warm(models)
        word = f"bench-t1000-d{delay}-n{tokens}"
        got = target.load(word, models, at_once, requests, tokens, t=20, r=0 if streams == 1 else 900)
        took = got["ttft_us"] or {}
        verdict = judge(got, models * requests)
        yield {"load": str(streams), **verdict, "p50_us": took.get("p50"), "p99_us": took.get("p99")}
        if any(verdict.values()):
            target.restart()


def hold(target: Target) -> Iterator[Row]:
    """Many slow streams at once, one token a second: are all alive and right, and what does each hold in memory?"""
    for streams in (1000, 2000):
        if streams > 1000:
            target.restart()  # memory that the first load left behind would flatter the second
        target.warm(1)
        before_kib = target.server.rss_kib() if target.server else 0.0
        before_cpu = target.server.cpu_s() if target.server else 0.0
        args = target.args("bench-d1000000-n10", 1, streams, streams, 10, t=20, r=3000)
        running = lab.start_load(target.port, *args)
        alive, end = 0, time.monotonic() + 9
        while alive < streams and time.monotonic() < end:
            time.sleep(0.2)
            alive = lab.call(target.up_port, "/_stats")["active"]
        held_kib = target.server.rss_kib() if target.server else 0.0
        threads = target.server.threads() if target.server else 0
        got = lab.finish_load(running)
        late = got["lat_us"] or {}
        verdict = judge(got, streams)
        yield {
            "load": str(streams),
            **verdict,
            "alive": alive,
            "complete": got["complete"],
            "tokens": got["tokens"],
            "kib_per_stream": (held_kib - before_kib) / max(alive, 1) if target.server else None,
            "threads": threads or None,
            "p50_us": late.get("p50"),
            "p99_us": late.get("p99"),
            "cpu_s": target.server.cpu_s() - before_cpu if target.server else None,
        }


PHASES = {
    "streaming": "bench-d20000-n400",
    "slow": "bench-d2000000-n10",
    "before first token": "bench-t5000000-d20000-n10",
}


def cancel(target: Target, wait_s: float = 8) -> Iterator[Row]:
    """12 clients hang up on 3 models each: how long until the upstream sees each of the 36 connections close."""
    target.warm(3)
    for name, word in PHASES.items():
        lab.call(target.up_port, "/_reset", method="POST")
        got = target.load(f"{word}-g__TAG__", 3, 4, 12, None, x=300, t=10)
        took = freed_ms(target, dict(map(tuple, got["cuts"])), 36, wait_s)
        yield {
            "load": name,
            "void": None if len(got["cuts"]) in (12, 36) else f"only {len(got['cuts'])} clients hung up",
            "freed": len(took),
            "of": 36,
            "median_ms": statistics.median(took) if took else None,
            "worst_ms": max(took, default=None),
        }
        if len(took) < 36:
            target.restart()


def freed_ms(target: Target, cuts: dict[int, int], expected: int, wait_s: float) -> list[float]:
    """Milliseconds from each hang-up to the upstream's connection closing, for those that closed within `wait_s`."""
    end = time.monotonic() + wait_s
    while True:
        aborts = lab.call(target.up_port, "/_aborts")
        if len(aborts) >= expected or time.monotonic() > end:
            return [(each["at_ns"] - cuts[each["tag"]]) / 1e6 for each in aborts if each["tag"] in cuts]
        time.sleep(0.05)


def slow(target: Target) -> Iterator[Row]:
    """8 clients ask 4 models each for all they have, then read nothing for 4 s: does the server pile it up?"""
    readers, streams, tokens = 8, 4, 30000
    target.warm(streams)
    before_kib = target.server.rss_kib() if target.server else 0.0
    args = target.args(f"bench-n{tokens}-b64", streams, readers, readers, tokens, w=4000, t=60)
    running = lab.start_load(target.port, *args)
    peak_kib = before_kib
    for _ in range(35):
        time.sleep(0.1)
        peak_kib = max(peak_kib, target.server.rss_kib() if target.server else 0.0)
    got = lab.finish_load(running)
    yield {
        "load": f"{readers}x{streams}x{tokens}",
        **judge(got, readers * streams),
        "mib_per_reader": (peak_kib - before_kib) / 1024 / readers if target.server else None,
        "passed_mib": got["bytes"] / 2**20 / readers,
        "complete": got["complete"],
        "wall_s": got["wall_s"],
    }


def per_token(got: Row) -> float | None:
    """Microseconds of the server's CPU a token delivered."""
    cpu = got["server_cpu_s"]
    return None if cpu is None or not got["tokens"] else cpu / got["tokens"] * 1e6
