"""The fleet as the status routes show it: hosts, totals, models, statistics. Nothing here asks a host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from arena import __version__
from arena.api import figures
from arena.exchange import Refusals
from arena.fleet import Endpoint, Fleet
from arena.fleet.book import Counts, Histogram
from arena.names import canonical
from arena.types import ModelInfo

Json = dict[str, Any]
State = Literal["healthy", "degraded", "unhealthy"]
RECENT_MODELS = 10
VIOLATIONS = {
    "rate_limits": "too_many_requests",
    "size_limits": "payload_too_large",
    "credentials": "unauthorized",
    "permissions": "forbidden",
}
"""What callers were turned away for, each with the code of its error."""


def usable(endpoint: Endpoint) -> bool:
    """Has it answered, and may it be given work: not drained, nor at rest, nor behind an open breaker?"""
    return endpoint.state == "healthy" and endpoint.breaker.state != "open"


def state(fleet: Fleet) -> State:
    """Can requests be served: by all hosts, by some, by none?"""
    up = sum(map(usable, fleet.endpoints))
    return "unhealthy" if not up else "healthy" if up == len(fleet.endpoints) else "degraded"


def in_memory(endpoint: Endpoint, model: str) -> bool:
    """Does the endpoint hold the model in its memory, by its last word?"""
    return any(canonical(item.name) == canonical(model) for item in endpoint.in_memory)


class Snapshot:
    """The fleet at one moment, by its own books. `clock` and `wall` tell seconds."""

    def __init__(
        self, fleet: Fleet, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._fleet = fleet
        self._now_s, self._at = clock(), wall()
        self._by_endpoint = fleet.book.by_endpoint()

    @property
    def timestamp(self) -> str:
        """When it was taken."""
        return figures.moment(self._at)

    def status(self, refusals: Refusals) -> Json:
        """`/internal/status`; `refusals` are what was turned away before it came here."""
        held = refusals.held()
        violations = {word: refusals.counts[code] for word, code in VIOLATIONS.items()}
        return {
            "timestamp": self.timestamp,
            "proxy": {"engine": "arena", "profile": "auto", "balancer": self._fleet.spec.strategy},
            "endpoints": [self._in_status(endpoint) for endpoint in self._ordered()],
            "security": {
                "status": "elevated" if held else "normal",
                "blocked_ips": held,
                "violations": violations,
            },
            "system": {**self._system(), "security_violations": sum(violations.values())},
            "queue": self._queue(),
        }

    def endpoints(self) -> Json:
        """`/internal/status/endpoints`."""
        up = sum(endpoint.health.state == "healthy" for endpoint in self._fleet.endpoints)
        return {
            "timestamp": self.timestamp,
            "total_count": len(self._fleet.endpoints),
            "healthy_count": up,
            "routable_count": sum(map(usable, self._fleet.endpoints)),
            "endpoints": [self._in_list(endpoint) for endpoint in self._ordered()],
        }

    def models(self, *, detailed: bool = False, grouped: bool = False) -> Json:
        """`/internal/status/models`; `detailed` lists all models, `grouped` adds them by family."""
        found = self._models()
        families: dict[str, list[str]] = {}
        for info, _ in found.values():
            families.setdefault(info.family or "unknown", []).append(info.name)
        listed = [self._model(info, hosts) for info, hosts in found.values()]
        told: Json = {
            "timestamp": self.timestamp,
            "total_models": len(found),
            "total_families": len(families),
            "total_endpoints": len(self._fleet.endpoints),
            "models_by_family": families,
            "recent_models": listed if detailed else listed[:RECENT_MODELS],
        }
        if grouped:
            told["model_groups"] = [
                {"family": family, "count": len(names), "models": names} for family, names in families.items()
            ]
        return told

    def model_stats(self, *, with_endpoints: bool = False) -> Json:
        """`/internal/stats/models`; `with_endpoints` also tells of each model on each host."""
        by_model = self._fleet.book.by_model()
        keys: dict[str, set[str]] = {}
        for _, model, key in self._fleet.book.rows:
            keys.setdefault(model, set()).add(key)
        models = [self._stats(model, counts, len(keys[model])) for model, counts in by_model.items() if model]
        models.sort(key=lambda item: (-item["total_requests"], item["name"]))
        totals = self._fleet.book.totals()
        told: Json = {
            "timestamp": self.timestamp,
            "models": models,
            "summary": {
                "total_models": len(models),
                "total_requests": totals.requests,
                "successful_requests": totals.successes,
                "failed_requests": totals.failed_requests,
                "success_rate": _success_rate(totals),
                "total_traffic": figures.size(totals.sent_bytes + totals.received_bytes),
                "tokens": _tokens(totals),
            },
        }
        if with_endpoints:
            told["endpoints"] = self._stats_by_endpoint()
        return told

    def sticky(self) -> Json:
        """`/internal/stats/sticky`."""
        if not self._fleet.spec.sticks:
            return {"enabled": False}
        pins = self._fleet.sticky
        return {
            "enabled": True,
            "active_sessions": len(pins),
            "insertions": pins.insertions,
            "hits": pins.hits,
            "misses": pins.misses,
            "repins": pins.repins,
            "evictions": pins.evictions,
            "max_sessions": pins.spec.max_sessions,
            "idle_ttl_seconds": pins.spec.idle_ttl_s,
        }

    def translators(self) -> Json:
        """`/internal/stats/translators`: the requests of Anthropic's clients, and which were translated."""
        routes = self._fleet.book.by_route().items()
        served = [counts for path, counts in routes if path.endswith("/v1/messages")]
        requests, streams = sum(counts.requests for counts in served), sum(counts.streams for counts in served)
        good, bad = sum(counts.successes for counts in served), sum(counts.failures for counts in served)
        rate = figures.share(good / (good + bad) if good + bad else None)
        translated = sum(counts.translations for counts in served)
        passed = figures.share((requests - translated) / requests if requests else None)
        translator: Json = {
            "translator_name": "anthropic",
            "total_requests": requests,
            "successful_requests": good,
            "failed_requests": bad,
            "success_rate": rate,
            "passthrough_requests": requests - translated,
            "passthrough_rate": passed,
            "translation_requests": translated,
            "streaming_requests": streams,
            "non_streaming_requests": requests - streams,
            "average_latency": figures.latency(sum(counts.success_s for counts in served) / good if good else None),
        }
        summary: Json = {
            "total_translators": 1,
            "active_translators": int(requests > 0),
            "total_requests": requests,
            "overall_success_rate": rate,
            "overall_passthrough_rate": passed,
            "total_passthrough": requests - translated,
            "total_translations": translated,
            "total_streaming": streams,
            "total_non_streaming": requests - streams,
        }
        return {"translators": [translator] if requests else [], "summary": summary}

    # hosts

    def _ordered(self) -> list[Endpoint]:
        return sorted(
            self._fleet.endpoints, key=lambda one: (-one.spec.priority, one.health.state != "healthy", one.name)
        )

    def _counts(self, endpoint: Endpoint) -> Counts:
        return self._by_endpoint.get(endpoint.name) or Counts()

    def _in_status(self, endpoint: Endpoint) -> Json:
        counts, health = self._counts(endpoint), endpoint.health
        since_s = self._since(health.checked_s)
        until_s = 0.0 if health.next_check_s is None else max(0.0, health.next_check_s - self._now_s)
        return {
            **self._common(endpoint, counts),
            "connections": endpoint.in_flight,
            "requests": counts.attempts,
            "traffic": figures.size(counts.sent_bytes + counts.received_bytes),
            "last_check": figures.ago(since_s),
            "next_check": f"in {figures.span(until_s)}",
            "issues": endpoint.error or "",
            "models": {"count": len(endpoint.holds), "last_updated": figures.ago(since_s)},
        }

    def _in_list(self, endpoint: Endpoint) -> Json:
        counts, health = self._counts(endpoint), endpoint.health
        told = {
            **self._common(endpoint, counts),
            "model_count": len(endpoint.holds),
            "request_count": counts.attempts,
            "active_connections": endpoint.in_flight,
            "health_check": figures.ago(self._since(health.checked_s)),
        }
        if health.latency_s is not None:
            told["response_time"] = figures.latency(health.latency_s)
        if endpoint.error:
            told["issues"] = endpoint.error
        return told

    def _common(self, endpoint: Endpoint, counts: Counts) -> Json:
        """What both lists of hosts tell."""
        times = counts.total
        told: Json = {
            "id": figures.identity(endpoint.url),
            "name": endpoint.name,
            "type": endpoint.kind,
            "url": endpoint.url,
            "status": endpoint.state,
            "priority": endpoint.spec.priority,
            "success_rate": figures.share(counts.success_rate),
            "avg_latency": figures.latency(counts.total.mean),
            "min_latency_ms": figures.milliseconds(times.least if times.count else None),
            "max_latency_ms": figures.milliseconds(times.most if times.count else None),
            "version": endpoint.version,
            "weight": endpoint.weight,
            "draining": endpoint.draining,
            "breaker": endpoint.breaker.state,
            "resting_s": {model or "*": round(left_s, 1) for model, left_s in endpoint.rests.items()},
            "in_flight": endpoint.in_flight,
            "max_in_flight": endpoint.spec.max_in_flight,
            "in_flight_per_model": endpoint.in_flight_per_model,
            "loaded": [
                {
                    "name": item.name,
                    "size": item.size_bytes,
                    "size_vram": item.vram_bytes,
                    "context_length": item.context_length,
                    "expires_at": item.expires_at,
                }
                for item in endpoint.in_memory
            ],
            "tokens": _tokens(counts),
            "ttft": _quantiles(counts.first),
            "retries": counts.retries,
        }
        if counts.total.count:
            told["avg_latency_ms"] = figures.milliseconds(counts.total.mean)
        for name, at_s in (
            ("health_check_at", endpoint.health.checked_s),
            ("next_check_at", endpoint.health.next_check_s),
        ):
            if at_s is not None:
                told[name] = figures.moment(self._at + at_s - self._now_s)
        return told

    # totals

    def _system(self) -> Json:
        totals, endpoints = self._fleet.book.totals(), self._fleet.endpoints
        up = sum(endpoint.health.state == "healthy" for endpoint in endpoints)
        return {
            "status": self._grade(up),
            "endpoints_up": f"{up}/{len(endpoints)}",
            "success_rate": _success_rate(totals),
            "avg_latency": figures.latency(totals.total.mean),
            "total_traffic": figures.size(totals.sent_bytes + totals.received_bytes),
            "uptime": figures.span(self._at - self._fleet.book.started_at),
            "version": __version__,
            "commit": "",
            "start_time": figures.moment(self._fleet.book.started_at),
            "active_connections": sum(endpoint.in_flight for endpoint in endpoints),
            "total_requests": totals.requests,
            "total_failures": totals.failed_requests,
            "has_traffic": totals.requests > 0,
            "total_retries": totals.retries,
            "tokens": _tokens(totals),
        }

    def _grade(self, up: int) -> str:
        """By the hosts that are up, and by how the last requests went: what was long ago is no longer the state."""
        hosts = up / len(self._fleet.endpoints) if self._fleet.endpoints else 0.0
        told = [entry.outcome == "succeeded" for entry in self._fleet.book.recent if entry.outcome != "left"]
        success = sum(told) / len(told) if told else 1.0
        if hosts < 0.5 or success < 0.9:
            return "critical"
        return "degraded" if hosts < 0.8 or success < 0.95 else "healthy"

    def _queue(self) -> Json:
        queue = self._fleet.queue
        return {
            "waiting": queue.waiting,
            "max_waiting": queue.spec.max_waiting,
            "max_wait_seconds": queue.spec.max_wait_s,
            "waited": _quantiles(self._fleet.book.totals().queue),
        }

    # models

    def _models(self) -> dict[str, tuple[ModelInfo, list[Endpoint]]]:
        """Every model by canonical name, with the hosts that have it, ordered by name."""
        found: dict[str, tuple[ModelInfo, list[Endpoint]]] = {}
        for endpoint in self._fleet.endpoints:
            for key, info in endpoint.holds.items():
                found.setdefault(key, (info, []))[1].append(endpoint)
        return {key: found[key] for key in sorted(found)}

    def _model(self, info: ModelInfo, hosts: list[Endpoint]) -> Json:
        since_s = min((s for host in hosts if (s := self._since(host.health.checked_s)) is not None), default=None)
        told: Json = {
            "name": info.name,
            "type": hosts[0].kind,
            "family": info.family,
            "size": figures.size(info.size_bytes) if info.size_bytes else "",
            "params": info.parameter_size,
            "quant": info.quantization,
            "last_seen": figures.ago(since_s),
            "endpoints": [host.name for host in hosts],
            "endpoint_ids": [figures.identity(host.url) for host in hosts],
            "loaded_on": [host.name for host in hosts if in_memory(host, info.name)],
        }
        if since_s is not None:
            told["last_seen_at"] = figures.moment(self._at - since_s)
        if info.capabilities:
            told["capabilities"] = info.capabilities
        return told

    def _stats(self, model: str, counts: Counts, keys: int) -> Json:
        return {
            "name": model,
            "total_requests": counts.requests,
            "successful_requests": counts.successes,
            "failed_requests": counts.failed_requests,
            "success_rate": _success_rate(counts),
            "total_traffic": figures.size(counts.sent_bytes + counts.received_bytes),
            "average_latency": figures.latency(counts.total.mean),
            "p95_latency": figures.latency(counts.total.quantile(0.95)),
            "p99_latency": figures.latency(counts.total.quantile(0.99)),
            "last_requested": figures.moment(counts.last_at),
            "unique_clients": keys,
            "routing_hits": counts.attempts - counts.retries,
            "routing_misses": counts.refused,
            "routing_fallbacks": counts.retries,
            "tokens": _tokens(counts),
            "ttft": _quantiles(counts.first),
        }

    def _stats_by_endpoint(self) -> Json:
        told: dict[str, dict[str, Json]] = {}
        for (endpoint, model, _), counts in self._fleet.book.rows.items():
            if endpoint and model:
                item = told.setdefault(endpoint, {}).setdefault(
                    model, {"total_requests": 0, "successful_requests": 0, "failed_requests": 0}
                )
                item["total_requests"] += counts.attempts
                item["successful_requests"] += counts.successes
                item["failed_requests"] += counts.failures
        return told

    def _since(self, at_s: float | None) -> float | None:
        return None if at_s is None else self._now_s - at_s


def _success_rate(counts: Counts) -> str:
    """The share of requests that succeeded in the end; those that no endpoint was found for count, as failed ones."""
    ended = counts.successes + counts.failed_requests
    return figures.share(counts.successes / ended if ended else None)


def _tokens(counts: Counts) -> Json:
    """Of those of the answers, `estimated` are not by a server's count but by that of their pieces."""
    return {
        "prompt": counts.prompt_tokens,
        "completion": counts.completion_tokens,
        "estimated": counts.estimated_tokens,
    }


def _quantiles(histogram: Histogram) -> Json:
    return {f"p{share}_ms": figures.milliseconds(histogram.quantile(share / 100)) for share in (50, 95, 99)}
