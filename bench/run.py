"""The benchmark: python bench/run.py [CASE ...] [--rounds N] [--only NAME,NAME] [--awake] [--with-litellm]

Every candidate gets a fresh server and upstream in every round, and every other round runs in reverse order. Loopback
only; bounded in count and time; only processes started here are ended. See README.md for how to read the figures.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
import disconnects
import lab
import page
import proxying
from candidates import CANDIDATES, Setup, Target
from gates import GATES
from report import Results, table

ALL = ("direct", "limit_c", "nginx", "arena", "arena+token", "aiohttp", "httpx", "requests")
OURS = ("arena", "arena+token")
PROXIES = ("direct", "nginx", "proxy", "proxy asgi")
LITELLM = "litellm"


@dataclass(frozen=True)
class Case:
    """What is driven, through whom, and what stands behind them."""

    body: Callable[[Target], Iterator[dict[str, Any]]]
    candidates: tuple[str, ...]
    setup: Setup = Setup()  # noqa: RUF009 - frozen


CASES = {
    "burst": Case(cases.burst, ALL),
    "rates": Case(cases.rates, ALL),
    "first": Case(cases.first, ALL),
    "hold": Case(cases.hold, ALL),
    "cancel": Case(cases.cancel, ALL),
    "slow": Case(cases.slow, ("direct", "limit_c", *OURS, "aiohttp")),
    # a probe of its own would stand in the queue that the clients are to find full
    "disconnects": Case(disconnects.run, OURS, Setup(fleet=("check_interval: 0",))),
    "page": Case(page.run, ("arena",)),
    "proxy": Case(proxying.small, (*PROXIES, LITELLM)),
    "proxy-stream": Case(proxying.stream, (*PROXIES, LITELLM)),
    "proxy-first": Case(cases.first, PROXIES),
    "proxy-hold": Case(cases.hold, PROXIES),
    "proxy-recover": Case(proxying.recover, ("nginx", "proxy", "proxy asgi"), Setup(upstreams=2)),
    "proxy-fair": Case(proxying.fair, ("proxy", "proxy asgi"), Setup(fleet=(f"max_in_flight: {proxying.PLACES}",))),
}
FOOTNOTES = {
    LITELLM: "litellm translates every request and answer to OpenAI's form and back; it does more than the others."
}
NOISE = {"rates": "p50_us", "first": "p50_us", "burst": "tokens_per_s", "proxy": "p50_us", "proxy-first": "p50_us"}
NOISY = 0.3
SERVER = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "msgspec", "gradio")
PEERS = ("aiohttp", "httpx", "requests")


def version(package: str) -> str:
    """An installed package's version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def machine() -> str:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    tools = " ".join(f"{name} {version(name)}" for name in SERVER + PEERS)
    nginx = shutil.which("nginx")
    if nginx:
        said = subprocess.run([nginx, "-v"], capture_output=True, text=True).stderr
        tools += " nginx " + said.strip().rpartition("/")[2]
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=lab.ROOT, capture_output=True, text=True).stdout.strip()
    return (
        f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, commit {commit or '?'}\n{tools}"
    )


def load_average() -> str:
    """The machine's load over 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


class Run:
    """One interleaved run over some cases."""

    def __init__(self, only: tuple[str, ...], rounds: int, results: Path) -> None:
        self.only, self.rounds, self.file = only, rounds, results
        self.rows: list[dict[str, object]] = []

    def case(self, name: str) -> None:
        """All rounds of one case."""
        case = CASES[name]
        wanted = [each for each in case.candidates if each in self.only and self._there(each)]
        for number in range(self.rounds):
            for candidate in wanted if number % 2 == 0 else reversed(wanted):
                try:
                    with Target(CANDIDATES[candidate], case.setup) as target:
                        for row in case.body(target):
                            self._record(name, candidate, number, row)
                except (lab.LabError, OSError, subprocess.SubprocessError, page.Unavailable) as error:
                    trouble = f"{type(error).__name__}: {error}"[:200]
                    self._record(name, candidate, number, {"load": "-", "void": trouble})

    def _there(self, name: str) -> bool:
        why = CANDIDATES[name].missing()
        if why:
            print(f"missing: {name} ({why})")
        return why is None

    def _record(self, case: str, candidate: str, number: int, row: dict[str, object]) -> None:
        whole = {"case": case, "candidate": candidate, "round": number, "at": round(time.time()), **row}
        self.rows.append(whole)
        with self.file.open("a") as out:
            out.write(json.dumps(whole) + "\n")
        shown = {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items() if v is not None}
        print(f"  {case} {candidate} round {number + 1}: {shown}", flush=True)


def noise(results: Results, names: list[str], rounds: int) -> list[str]:
    """What speaks against the figures: one round only, or rounds in which "direct" itself moved by more than NOISY."""
    found = []
    if rounds == 1:
        found.append("one round: nobody knows how far the figures would move in another")
    for case in names:
        for load in results.loads(case) if case in NOISE else ():
            spread = results.spread(case, load, NOISE[case])
            if spread > NOISY:
                found.append(f"NOISY: direct moved by {spread:.0%} in {case} {load}; compare ratios only")
    return found


def main() -> int:
    """Run, print tables and gates; 0 even if a gate fails (machines are shared), 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", choices=[*CASES, []], help="some of: " + " ".join(CASES) + " (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="some of: " + ",".join(CANDIDATES))
    parser.add_argument("--awake", action="store_true", help="keep every core awake meanwhile (see README.md)")
    parser.add_argument("--with-litellm", action="store_true", help="LiteLLM too, from $ARENA_BENCH_LITELLM")
    given = parser.parse_args()
    usual = tuple(each for each in CANDIDATES if each != LITELLM or given.with_litellm)
    only = tuple(part for part in given.only.split(",") if part) or usual
    if unknown := set(only) - set(CANDIDATES):
        parser.error(f"no such candidate: {', '.join(sorted(unknown))}")
    if why := lab.missing_tools():
        print(f"cannot measure here: {why}")
        return 2
    lab.build()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended, also when a run is cut short
    folder = lab.HERE / "results"
    folder.mkdir(exist_ok=True)
    names = given.case or list(CASES)
    command = "python bench/run.py " + " ".join(sys.argv[1:])
    awake = "kept awake by a spinner on each (--awake)" if given.awake else "left to sleep between requests"
    print(f"{command}\n{machine()}\ncores: {awake}; load average before: {load_average()}", flush=True)
    run = Run(only, given.rounds, folder / time.strftime("%Y%m%d-%H%M%S.jsonl"))
    with lab.Spinners() if given.awake else nullcontext():
        for name in names:
            run.case(name)
    report(run, names)
    return 0


def report(run: Run, names: list[str]) -> None:
    """Tables, noise and gates."""
    results = Results(run.rows)
    for name in names:
        print(f"\n## {name}\n\n{table(results, name, CANDIDATES)}")
    print("".join(f"\n{note}" for who, note in FOOTNOTES.items() if any(row["candidate"] == who for row in run.rows)))
    print(f"load average after: {load_average()}; {run.rounds} rounds; median [least-greatest]; rows in {run.file}")
    print("\n".join(noise(results, names, run.rounds)) or "quiet: direct moved by less than 30 % everywhere")
    for candidate in [each for each in GATES if any(row["candidate"] == each for row in run.rows)]:
        print(f"\n## gates, {candidate}\n\n" + "\n".join(gate.line() for gate in GATES[candidate](results, candidate)))


if __name__ == "__main__":
    raise SystemExit(main())
