"""How fast models are, by what can be defended: fair runs of kept battles, and of what was compared here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any, Final

from msgspec import Struct, to_builtins

from arena.names import canonical
from arena.store import PART_ROWS, Store, StoredBattle
from arena.types import Manifest, Metrics

MOST_VOTES: Final = 20_000
MOST_BATTLES: Final = 1000
"""The latest votes that are looked through when the figures are wanted again, and their latest battles."""
MOST_RUNS: Final = 500
"""Runs of a model that are remembered: the latest ones."""


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

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._read = 0
        self._runs: dict[str, dict[tuple[str, ...], Run]] = {}
        self._ran: deque[tuple[Manifest, Metrics]] = deque(maxlen=MOST_RUNS)

    def ran(self, answers: Iterable[tuple[Manifest, Metrics]]) -> None:
        """Answers outside of battles, as this server has measured them; known until it ends. Does not block."""
        self._ran.extend(answers)

    def paces(self) -> dict[str, Pace]:
        """What is known of each model, by canonical name. Raises StoreUnavailable."""
        with self._lock:
            last = self._store.last_number()
            votes = self._store.votes(max(self._read, last - MOST_VOTES)) if last != self._read else ()
            named = dict.fromkeys(vote.battle_id for _, vote in votes if vote.blind or vote.rated)
            fought = [battle_id for battle_id in named if ":" not in battle_id]  # what was imported has no battle here
            for start in range(0, len(latest := fought[-MOST_BATTLES:]), PART_ROWS):
                part = latest[start : start + PART_ROWS]
                kept = self._store.battles(part)
                for battle_id in part:
                    self._add(kept.get(battle_id))
            self._read = last
            while self._ran:
                manifest, metrics = self._ran.popleft()
                self._enter(manifest.model, to_builtins(manifest), to_builtins(metrics))
            return {model: pace(list(runs.values())) for model, runs in self._runs.items()}

    def _add(self, battle: StoredBattle | None) -> None:
        for side in battle.sides.values() if battle is not None else ():
            for metrics, manifest in zip(side.metrics, side.manifests, strict=False):
                self._enter(side.configuration.model, manifest, metrics)

    def _enter(self, model: str, manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Take a run in, if it is fair. What ran once counts once, in however many pairs it is kept."""
        if (run := fair(metrics)) is None:
            return
        runs = self._runs.setdefault(canonical(model), {})
        runs[tuple(str(manifest.get(name)) for name in ("endpoint", "started_at", "prompt_sha256"))] = run
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
