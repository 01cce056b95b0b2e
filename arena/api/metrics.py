"""The fleet's books as Prometheus reads them. The registry is made for each reading: nothing is kept twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from arena import __version__
from arena.api.fleet_status import VIOLATIONS
from arena.exchange import Refusals
from arena.fleet import Fleet
from arena.fleet.book import OTHER, Counts, Histogram

MEDIA_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
MAX_MODELS: Final = 100
"""Models that have their own label, those asked for most; the others share one."""
BREAKER: Final = {"closed": 0, "half-open": 1, "open": 2}


def exposition(fleet: Fleet, refusals: Refusals) -> bytes:
    """All figures of `fleet` as text, and what was turned away before it came there."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(fleet, refusals))
    return generate_latest(registry)


class FleetCollector:
    """Reads the books and the endpoints when it is asked."""

    def __init__(self, fleet: Fleet, refusals: Refusals) -> None:
        self._fleet = fleet
        self._refusals = refusals

    def collect(self) -> Iterator[Metric]:
        """Every family of metrics."""
        info = InfoMetricFamily("arena_build", "The version that answers.")
        info.add_metric([], {"version": __version__, "strategy": self._fleet.spec.strategy})
        yield info
        yield from self._traffic()
        yield from self._times()
        yield from self._keys()
        yield from self._states()
        yield from self._residents()
        yield from self._pins()
        yield from self._door()

    def _traffic(self) -> Iterator[Metric]:
        """What was asked, by endpoint and model."""
        requests = CounterMetricFamily(
            "arena_requests",
            "Attempts at an endpoint by outcome; refused: no endpoint could be given.",
            labels=["endpoint", "model", "status"],
        )
        retries = CounterMetricFamily(
            "arena_retries", "Attempts that followed another endpoint's failure.", labels=["endpoint", "model"]
        )
        tokens = CounterMetricFamily("arena_tokens", "Tokens counted.", labels=["endpoint", "model", "kind"])
        traffic = CounterMetricFamily("arena_bytes", "Bytes of bodies.", labels=["endpoint", "model", "direction"])
        seconds = CounterMetricFamily(
            "arena_model_seconds", "What the endpoints say they spent.", labels=["endpoint", "model", "phase"]
        )
        for (endpoint, model), counts in self._by_endpoint_and_model().items():
            names = [endpoint, model]
            for status in ("successes", "failures", "left", "refused"):
                requests.add_metric([*names, _SINGULAR[status]], getattr(counts, status))
            retries.add_metric(names, counts.retries)
            tokens.add_metric([*names, "prompt"], counts.prompt_tokens)
            tokens.add_metric([*names, "completion"], counts.completion_tokens)
            traffic.add_metric([*names, "sent"], counts.sent_bytes)
            traffic.add_metric([*names, "received"], counts.received_bytes)
            for phase in ("load", "prompt", "eval"):
                seconds.add_metric([*names, phase], getattr(counts, f"{phase}_s"))
        yield from (requests, retries, tokens, traffic, seconds)

    def _times(self) -> Iterator[Metric]:
        """How long it took, by endpoint; refused requests have no endpoint, but they may have waited."""
        by_endpoint = self._fleet.book.by_endpoint()
        for field, name, words in (
            ("first", "arena_time_to_first_token_seconds", "From the choice of an endpoint to its first byte."),
            ("gap", "arena_inter_token_gap_seconds", "Mean time between two tokens of an answer."),
            ("total", "arena_request_duration_seconds", "From the choice of an endpoint to the end of the answer."),
            ("queue", "arena_queue_wait_seconds", "Time spent in the queue for a place."),
        ):
            family = HistogramMetricFamily(name, words, labels=["endpoint"])
            for endpoint, counts in by_endpoint.items():
                histogram: Histogram = getattr(counts, field)
                family.add_metric([endpoint], buckets=_buckets(histogram), sum_value=histogram.total)
            yield family

    def _keys(self) -> Iterator[Metric]:
        """What each named key has used; "" is the one token, or open access."""
        requests = CounterMetricFamily("arena_key_requests", "Requests by named key.", labels=["key"])
        tokens = CounterMetricFamily("arena_key_tokens", "Tokens by named key.", labels=["key", "endpoint", "kind"])
        for key, counts in self._fleet.book.by_key().items():
            requests.add_metric([key], counts.requests)
        for (endpoint, key), counts in self._fleet.book.by_endpoint_and_key().items():
            tokens.add_metric([key, endpoint, "prompt"], counts.prompt_tokens)
            tokens.add_metric([key, endpoint, "completion"], counts.completion_tokens)
        yield from (requests, tokens)

    def _states(self) -> Iterator[Metric]:
        """How the endpoints are now."""
        waiting = GaugeMetricFamily("arena_queue_waiting", "Requests that wait for a place.")
        waiting.add_metric([], self._fleet.queue.waiting)
        yield waiting
        for name, words, figure in (
            ("arena_endpoint_up", "1 if the endpoint answers.", lambda one: one.health.state == "healthy"),
            ("arena_endpoint_draining", "1 while it gets no new work.", lambda one: one.draining),
            ("arena_endpoint_in_flight", "Requests running there.", lambda one: one.in_flight),
            ("arena_endpoint_connections", "Connections open to it.", lambda one: one.pool.open_connections),
            ("arena_endpoint_connections_idle", "Those that wait for use.", lambda one: one.pool.idle_connections),
            ("arena_endpoint_breaker", "0 closed, 1 half-open, 2 open.", lambda one: BREAKER[one.breaker.state]),
            ("arena_endpoint_models", "Models installed there.", lambda one: len(one.holds)),
            ("arena_endpoint_weight", "Its share of the work.", lambda one: one.weight),
            ("arena_endpoint_priority", "Its priority.", lambda one: one.spec.priority),
        ):
            family = GaugeMetricFamily(name, words, labels=["endpoint"])
            for endpoint in self._fleet.endpoints:
                family.add_metric([endpoint.name], float(figure(endpoint)))
            yield family
        resting = GaugeMetricFamily(
            "arena_endpoint_resting_seconds",
            "For how long it asks to be left alone with a model; an empty one stands for all.",
            labels=["endpoint", "model"],
        )
        for endpoint in self._fleet.endpoints:
            for model, left_s in endpoint.rests.items():
                resting.add_metric([endpoint.name, model], left_s)
        yield resting

    def _residents(self) -> Iterator[Metric]:
        """What is in the endpoints' memory."""
        size = GaugeMetricFamily(
            "arena_resident_model_bytes", "Memory of a loaded model.", labels=["endpoint", "model", "memory"]
        )
        for endpoint in self._fleet.endpoints:
            for item in endpoint.in_memory[:MAX_MODELS]:
                size.add_metric([endpoint.name, item.name, "total"], item.size_bytes)
                size.add_metric([endpoint.name, item.name, "vram"], item.vram_bytes)
        yield size

    def _pins(self) -> Iterator[Metric]:
        """Conversations that stay where they were."""
        pins = self._fleet.sticky
        family = CounterMetricFamily("arena_sticky", "Conversations by what became of their place.", labels=["result"])
        for result, count in (
            ("hit", pins.hits),
            ("miss", pins.misses),
            ("repin", pins.repins),
            ("eviction", pins.evictions),
        ):
            family.add_metric([result], count)
        yield family

    def _door(self) -> Iterator[Metric]:
        """What did not come in."""
        refused = CounterMetricFamily("arena_refusals", "Requests turned away at the door.", labels=["code"])
        for code in (*VIOLATIONS.values(), *sorted(self._refusals.counts.keys() - set(VIOLATIONS.values()))):
            refused.add_metric([code], self._refusals.counts[code])
        held = GaugeMetricFamily("arena_addresses_held", "Addresses that wait after too many wrong tokens.")
        held.add_metric([], self._refusals.held())
        yield from (refused, held)

    def _by_endpoint_and_model(self) -> dict[tuple[str, str], Counts]:
        rows = self._fleet.book.rows
        asked: dict[str, int] = {}
        for (_, model, _), counts in rows.items():
            asked[model] = asked.get(model, 0) + counts.attempts + counts.refused
        shown = set(sorted(asked, key=lambda model: -asked[model])[:MAX_MODELS])
        sums: dict[tuple[str, str], Counts] = {}
        for (endpoint, model, _), counts in rows.items():
            sums.setdefault((endpoint, model if model in shown else OTHER), Counts()).add(counts)
        return sums


_SINGULAR: Final[dict[str, Any]] = {
    "successes": "success",
    "failures": "failure",
    "left": "left",
    "refused": "refused",
}


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Counts of what lies at or below each bound."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
