"""The books: what every finished lease was, as plain numbers. Whoever shows them brings them into a form."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import inf
from operator import attrgetter
from threading import Lock
from typing import TypeAlias

from msgspec import Struct

from arena.errors import ArenaError
from arena.fleet.lease import Lease, Outcome, Usage, Wanted

MAX_ROWS = 2000
"""Kinds of (endpoint, model, key) that are told apart; what is beyond is counted under the model OTHER."""
MAX_ROUTES = 200
RECENT = 200
OTHER = "(other)"
BATCH = 256
"""So many leases may have ended before they are counted, if nobody asks."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of whole answers and of waiting, in seconds."""
FIRST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""The same for the time to the first byte."""
GAP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""The same for the time between two tokens."""


Row: TypeAlias = tuple[str, str, str]
"""(endpoint, model, key)"""
How: TypeAlias = tuple[Outcome, bool, bool, bool, bool]
"""(outcome, retried, streamed, translated, tokens estimated)"""
Kind: TypeAlias = tuple[Row, str, How]
"""(row, route, how): leases that are counted together."""
Figures: TypeAlias = tuple[float, float, float | None, float, Usage]
"""(at, total_s, first_s, queued_s, usage)"""

_UNKNOWN = Usage()
_FIGURES = attrgetter(
    "prompt_tokens", "completion_tokens", "load_s", "prompt_s", "eval_s", "gap_s", "sent_bytes", "received_bytes"
)


class Histogram:
    """Counts by upper bound; the last is of what lies above all. `least` and `most` are values, and bound quantiles."""

    __slots__ = ("bounds", "counts", "least", "most", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.least, self.most = inf, 0.0

    @property
    def count(self) -> int:
        """Values observed."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Their mean, None if there are none."""
        count = self.count
        return self.total / count if count else None

    def observe(self, value: float) -> None:
        """Enter a value."""
        self.observe_all((value,))

    def observe_all(self, values: Sequence[float]) -> None:
        """Enter many values: sorted, each bound is looked up among them once."""
        if not values:
            return
        ordered, counts, below = sorted(values), self.counts, 0
        for place, bound in enumerate(self.bounds):
            upto = bisect_right(ordered, bound, below)
            counts[place] += upto - below
            below = upto
        counts[-1] += len(ordered) - below
        self.total += sum(ordered)
        self.least, self.most = min(self.least, ordered[0]), max(self.most, ordered[-1])

    def quantile(self, share: float) -> float | None:
        """The value below which `share` (0 to 1) of all lie, as well as the bounds tell; None without values."""
        rank = share * self.count
        if not rank:
            return None
        upto = list(accumulate(self.counts))
        place = bisect_left(upto, rank)
        low = max(self.least, self.bounds[place - 1] if place else 0.0)
        high = min(self.most, self.bounds[place] if place < len(self.bounds) else self.most)
        return high - (high - low) * (upto[place] - rank) / self.counts[place]

    def add(self, other: Histogram) -> None:
        """Enter all that `other` (with the same bounds) has."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)


class Counts:
    """Counters of one kind of request.

    `attempts` are leases; one that came after another had failed for the same request is a retry, so that
    `requests` = attempts - retries. `left`: the client hung up first. `failed_requests` are those whose failure
    the client saw. Of the `completion_tokens`, `estimated_tokens` are those of answers of which nobody told a count.
    Times are in seconds.
    """

    __slots__ = (
        "attempts",
        "completion_tokens",
        "estimated_tokens",
        "eval_s",
        "failures",
        "first",
        "gap",
        "last_at",
        "left",
        "load_s",
        "prompt_s",
        "prompt_tokens",
        "queue",
        "received_bytes",
        "refused",
        "retries",
        "sent_bytes",
        "successes",
        "total",
    )

    def __init__(self) -> None:
        self.attempts = self.retries = self.successes = self.failures = self.left = self.refused = 0
        self.prompt_tokens = self.completion_tokens = self.estimated_tokens = self.sent_bytes = self.received_bytes = 0
        self.load_s = self.prompt_s = self.eval_s = self.last_at = 0.0
        self.total = Histogram(SECONDS)
        self.queue = Histogram(SECONDS)
        self.first = Histogram(FIRST_SECONDS)
        self.gap = Histogram(GAP_SECONDS)

    @property
    def requests(self) -> int:
        """Requests, however many endpoints each was sent to."""
        return self.attempts - self.retries + self.refused

    @property
    def failed_requests(self) -> int:
        """Requests that failed in the end."""
        return max(0, self.failures - self.retries) + self.refused

    @property
    def success_rate(self) -> float | None:
        """The share of attempts that succeeded, of those that had an outcome; None if there are none."""
        told = self.successes + self.failures
        return self.successes / told if told else None

    def take(self, how: How, ended: Sequence[Figures]) -> None:
        """Count attempts that ended in the same way."""
        outcome, retried, _, _, estimated = how
        at, total_s, first_s, queued_s, usages = zip(*ended, strict=True)
        self.attempts += len(ended)
        self.last_at = max(self.last_at, *at)
        self.retries += retried * len(ended)
        self.queue.observe_all(queued_s)
        self.first.observe_all([value for value in first_s if value is not None])
        if outcome == "succeeded":
            self.successes += len(ended)
            self.total.observe_all(total_s)
        elif outcome == "failed":
            self.failures += len(ended)
        else:
            self.left += len(ended)
        prompt, completion, load_s, prompt_s, eval_s, gap_s, sent, received = zip(*map(_FIGURES, usages), strict=True)
        self.prompt_tokens += sum(prompt)
        self.completion_tokens += sum(completion)
        self.estimated_tokens += estimated * sum(completion)
        self.sent_bytes += sum(sent)
        self.received_bytes += sum(received)
        self.gap.observe_all([value for value in gap_s if value is not None])
        self.load_s += sum(filter(None, load_s))
        self.prompt_s += sum(filter(None, prompt_s))
        self.eval_s += sum(filter(None, eval_s))

    def add(self, other: Counts) -> None:
        """Enter all that `other` has."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("total", "queue", "first", "gap"):
            getattr(self, name).add(getattr(other, name))
        self.last_at = max(self.last_at, other.last_at)


_SUMS = tuple(name for name in Counts.__slots__ if name not in ("total", "queue", "first", "gap", "last_at"))


class Served(Struct):
    """What came of the requests to one route; the rest of them are running, or their clients left."""

    requests: int = 0
    successes: int = 0
    failures: int = 0
    streams: int = 0
    translations: int = 0
    success_s: float = 0.0

    def take(self, how: How, ended: Sequence[Figures]) -> None:
        """Count attempts that ended in the same way."""
        outcome, retried, streamed, translated, _ = how
        if retried:
            self.failures -= len(ended)  # the failure before was not the end of it
        else:
            self.requests += len(ended)
            self.translations += translated * len(ended)
        self.streams += streamed * len(ended)
        if outcome == "succeeded":
            self.successes += len(ended)
            self.success_s += sum([figures[1] for figures in ended])
        elif outcome == "failed":
            self.failures += len(ended)


class Entry(Struct, frozen=True):
    """One request as it was: `at` in seconds since 1970, `tried` the endpoints that had failed before.

    `estimated`: its tokens are a count of the pieces it came in.
    """

    at: float
    key: str
    model: str
    endpoint: str
    route: str
    outcome: Outcome | str
    status: int | None
    ttft_s: float | None
    total_s: float
    queued_s: float
    prompt_tokens: int
    completion_tokens: int
    tried: tuple[str, ...]
    error: str | None
    estimated: bool = False


Ended: TypeAlias = tuple[Lease, float, float]
"""(lease, when it ended in seconds since 1970, when on its own clock)"""


def _read(lease: Lease, at: float, now_s: float) -> tuple[Kind, Figures]:
    """What is counted of a lease, and with which others."""
    usage, wanted, first_s = lease.usage or _UNKNOWN, lease.wanted, lease.first_s
    row = (lease.endpoint.name, lease.key, wanted.key)
    how = (lease.outcome, bool(lease.tried), lease.streamed, lease.translated, usage.estimated)
    total_s = now_s - lease.began_s
    first_s = None if first_s is None else first_s - lease.began_s
    return (row, wanted.route, how), (at, total_s, first_s, lease.queued_s, usage)


def _entry(lease: Lease, at: float, now_s: float) -> Entry:
    """What is shown of a lease."""
    usage, wanted, error, first_s = lease.usage or _UNKNOWN, lease.wanted, lease.error, lease.first_s
    return Entry(
        at,
        wanted.key,
        lease.model,
        lease.endpoint.name,
        wanted.route,
        lease.outcome,
        lease.status,
        None if first_s is None else first_s - lease.began_s,
        now_s - lease.began_s,
        lease.queued_s,
        usage.prompt_tokens,
        usage.completion_tokens,
        tuple(lease.tried),
        None if error is None else error.code,
        usage.estimated,
    )


class Book:
    """All counters, by endpoint, model and key, and the last requests.

    `spent` is told of the tokens of every answer to a named key: the key, the model, the endpoint, how many.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.spent: Callable[[str, str, str, int], None] = lambda key, model, endpoint, tokens: None
        self._rows: dict[Row, Counts] = {}
        self._routes: dict[str, Served] = {}
        self._recent: deque[Entry | Ended] = deque(maxlen=RECENT)
        self._ended: deque[tuple[Kind, Figures]] = deque()
        self._counting = Lock()
        self.started_at = wall()

    @property
    def recent(self) -> tuple[Entry, ...]:
        """The last requests, newest first."""
        recent = reversed(tuple(self._recent))
        return tuple(each if isinstance(each, Entry) else _entry(*each) for each in recent)

    def settle(self) -> None:
        """Bring what is kept into its form now: the endpoints of the last requests are needed no longer."""
        self._recent = deque(reversed(self.recent), RECENT)

    @property
    def rows(self) -> dict[Row, Counts]:
        """Everything, by (endpoint, model, key)."""
        self._count()
        return dict(self._rows)

    def enter(self, lease: Lease, now_s: float) -> None:
        """A lease has ended at `now_s` on its own clock. It is counted later, with others, but before anybody looks."""
        ended = lease, self._wall(), now_s
        key, usage = lease.wanted.key, lease.usage
        if key and usage is not None:
            self.spent(key, lease.model, lease.endpoint.name, usage.prompt_tokens + usage.completion_tokens)
        # an error holds on to all that led to it
        self._recent.append(ended if lease.error is None else _entry(*ended))
        self._ended.append(_read(*ended))
        if len(self._ended) >= BATCH:
            self._count()

    def _count(self) -> None:
        """Count what has ended since the last time: all of a kind at once, which costs a fraction of one by one."""
        with self._counting:  # the page asks from threads of its own
            kinds: dict[Kind, list[Figures]] = {}
            while self._ended:
                kind, figures = self._ended.popleft()
                kinds.setdefault(kind, []).append(figures)
            for (row, route, how), ended in kinds.items():
                self._counts(*row).take(how, ended)
                self._served(route).take(how, ended)

    def refuse(self, wanted: Wanted, error: ArenaError, queued_s: float = 0.0) -> None:
        """A request got no endpoint at all."""
        at = self._wall()
        with self._counting:
            counts = self._counts("", OTHER if error.status == 404 else wanted.model or "", wanted.key)
            counts.refused += 1
            counts.last_at = at
            served = self._served(wanted.route)
            served.requests += 1
            served.failures += 1
            if queued_s:
                counts.queue.observe(queued_s)
        model, code = wanted.model or "", error.code
        self._recent.append(
            Entry(
                at,
                wanted.key,
                model,
                "",
                wanted.route,
                "refused",
                error.status,
                None,
                queued_s,
                queued_s,
                0,
                0,
                (),
                code,
            )
        )

    def by_endpoint(self) -> dict[str, Counts]:
        """The counters of each endpoint; those of refused requests stand under ""."""
        return self._summed(0)

    def by_model(self) -> dict[str, Counts]:
        """The counters of each model, by canonical name ("" for requests without one)."""
        return self._summed(1)

    def by_key(self) -> dict[str, Counts]:
        """The counters of each named key ("" for the one token and for open access)."""
        return self._summed(2)

    def by_endpoint_and_key(self) -> dict[tuple[str, str], Counts]:
        """The counters of each named key on each endpoint."""
        sums: dict[tuple[str, str], Counts] = {}
        for (endpoint, _, key), counts in self.rows.items():
            if endpoint:
                sums.setdefault((endpoint, key), Counts()).add(counts)
        return sums

    def by_route(self) -> dict[str, Served]:
        """What came of the requests to each route."""
        self._count()
        return dict(self._routes)

    def totals(self) -> Counts:
        """The counters of everything."""
        sums = Counts()
        for counts in self.rows.values():
            sums.add(counts)
        return sums

    def _summed(self, place: int) -> dict[str, Counts]:
        sums: dict[str, Counts] = {}
        for names, counts in self.rows.items():
            sums.setdefault(names[place], Counts()).add(counts)
        return sums

    def _served(self, route: str) -> Served:
        served = self._routes.get(route)
        if served is None:
            served = self._routes.setdefault(route if len(self._routes) < MAX_ROUTES else OTHER, Served())
        return served

    def _counts(self, endpoint: str, model: str, key: str) -> Counts:
        row = (endpoint, model, key)
        counts = self._rows.get(row)
        if counts is None:
            if len(self._rows) >= MAX_ROWS:
                row = (endpoint, OTHER, key)
            counts = self._rows.setdefault(row, Counts())
        return counts
