"""What operators ask: readiness, hosts, models, statistics, metrics; in Olla's shapes, with more in them."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from arena.api import internal, metrics
from arena.errors import ModelNotFound, Unreachable
from arena.exchange import Refusals
from arena.fleet import Usage, Wanted
from arena.fleet.book import OTHER
from arena.proxy.reply import Known
from arena.proxy.table import Table
from tests.proxy.ground import Answer, Ground, grounds, whole

pytestmark = pytest.mark.anyio

TWO = {"a": ["llama3.2:3b", "tiny:latest"], "b": ["mistral:7b", "tiny:latest"]}
SPECS = {"b": {"priority": 200, "max_in_flight": 3}}


async def told(ground: Ground, answer: Known, query: str = "") -> Any:
    return (await got(ground, answer, query)).json


async def got(ground: Ground, answer: Known, query: str = "", path: str = "/olla/x", **headers: str) -> Answer:
    sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
    inbound = ground.inbound("GET", path, query, sent)
    return await whole(answer(ground, inbound) or pytest.fail("it should be known"))


def serve(
    ground: Ground,
    model: str,
    endpoint: str,
    outcome: str = "succeeded",
    key: str = "",
    route: str = "/api/chat",
    translated: bool = False,
) -> None:
    """One request as the fleet counts it."""
    lease = ground.fleet.try_lease(Wanted(model=model, endpoint=endpoint, key=key, route=route))
    assert lease is not None
    with lease:
        lease.translated = translated
        if outcome == "succeeded":
            lease.first_byte()
            lease.succeeded(Usage(10, 20, load_s=0.5, gap_s=0.02, sent_bytes=1000, received_bytes=2000))
        elif outcome == "failed":
            lease.failed(Unreachable("gone", endpoint=endpoint), 502)


async def test_health_tells_of_the_fleet_and_of_nothing_else() -> None:
    async with grounds(TWO) as ground:
        answer = await got(ground, internal.health)
        assert (answer.status, answer.json) == (200, {"status": "healthy"})
        ground.fleet.endpoint("a").health.refused()
        answer = await got(ground, internal.health)
        assert (answer.status, answer.json) == (200, {"status": "degraded"})
        ground.fleet.drain("b", on=True)
        answer = await got(ground, internal.health)
        assert (answer.status, answer.json) == (503, {"status": "unhealthy"})
    async with grounds({}) as ground:
        assert (await got(ground, internal.health)).status == 503


async def test_an_open_breaker_is_not_healthy() -> None:
    async with grounds({"a": ["tiny"]}) as ground:
        breaker = ground.fleet.endpoint("a").breaker
        for _ in range(5):
            breaker.bad(breaker.enter(0.0))
        assert (await got(ground, internal.health)).status == 503


ENDPOINT_FIELDS = {
    "id", "name", "url", "status", "priority", "connections", "requests", "success_rate", "avg_latency",
    "min_latency_ms", "max_latency_ms", "traffic", "last_check", "next_check", "issues", "models",
}  # fmt: skip
SYSTEM_FIELDS = {
    "status", "endpoints_up", "success_rate", "avg_latency", "total_traffic", "uptime", "version", "commit",
    "start_time", "active_connections", "security_violations", "total_requests", "total_failures", "has_traffic",
}  # fmt: skip


async def test_status_before_and_after_traffic() -> None:
    async with grounds(TWO, specs=SPECS) as ground:
        before = await told(ground, internal.status)
        assert before.keys() >= {"timestamp", "proxy", "endpoints", "security", "system"}
        assert before["proxy"] == {"engine": "arena", "profile": "auto", "balancer": "warm-first"}
        assert before["security"]["status"] == "normal"
        assert before["system"].keys() >= SYSTEM_FIELDS
        assert before["system"]["status"] == "healthy"
        assert (before["system"]["success_rate"], before["system"]["has_traffic"]) == ("N/A", False)
        assert [endpoint["name"] for endpoint in before["endpoints"]] == ["b", "a"]
        assert all(endpoint.keys() >= ENDPOINT_FIELDS for endpoint in before["endpoints"])
        serve(ground, "tiny", "a")
        serve(ground, "tiny", "a", "left")
        ground["b"].load("mistral:7b", {})
        await ground.fleet.endpoint("b").models(0.0)
        lease = ground.fleet.try_lease(Wanted(model="mistral:7b", endpoint="b"))
        assert lease is not None
        with lease:
            after = await told(ground, internal.status)
    a = next(endpoint for endpoint in after["endpoints"] if endpoint["name"] == "a")
    b = next(endpoint for endpoint in after["endpoints"] if endpoint["name"] == "b")
    assert (a["requests"], a["success_rate"], a["traffic"]) == (2, "100.0%", "2.93 KB")
    assert a["avg_latency"].endswith("ms")
    assert a["avg_latency_ms"] >= a["min_latency_ms"] >= 0
    assert a["tokens"] == {"prompt": 10, "completion": 20, "estimated": 0}
    assert (a["models"]["count"], a["breaker"], a["draining"], a["resting_s"]) == (2, "closed", False, {})
    assert (b["connections"], b["in_flight_per_model"], b["max_in_flight"]) == (1, {"mistral:7b": 1}, 3)
    (loaded,) = b["loaded"]
    assert loaded["name"] == "mistral:7b"
    assert loaded["size"] > loaded["size_vram"] > 0
    assert loaded["expires_at"]
    assert after["queue"]["waiting"] == 0
    assert (after["system"]["total_requests"], after["system"]["active_connections"]) == (2, 1)
    assert after["system"]["endpoints_up"] == "2/2"


async def test_the_systems_grade_follows_hosts_and_recent_requests() -> None:
    async with grounds(TWO) as ground:
        for _ in range(13):
            serve(ground, "tiny", "a")
        serve(ground, "mistral:7b", "b", "failed")
        status = await told(ground, internal.status)
        assert status["system"]["status"] == "degraded"
        assert status["system"]["total_failures"] == 1
        serve(ground, "mistral:7b", "b", "failed")
        assert (await told(ground, internal.status))["system"]["status"] == "critical"
    async with grounds({}) as ground:
        assert (await told(ground, internal.status))["system"]["status"] == "critical"


async def test_what_was_turned_away_at_the_door_is_told() -> None:
    refusals = Refusals()
    known = {path: route.known for (_, path), route in internal.rows(refusals).items()}
    status, exposition = known["/internal/status"], known["/internal/metrics"]
    assert status is not None
    assert exposition is not None
    async with grounds(TWO) as ground:
        before = await told(ground, status)
        assert before["security"] == {
            "status": "normal",
            "blocked_ips": 0,
            "violations": {"rate_limits": 0, "size_limits": 0, "credentials": 0, "permissions": 0},
        }
        refusals.counts.update(too_many_requests=3, payload_too_large=2, unauthorized=1, bad_request=7)
        refusals.held = lambda: 1
        after = await told(ground, status)
        found = samples((await got(ground, exposition)).body)
    assert (after["security"]["status"], after["security"]["blocked_ips"]) == ("elevated", 1)
    assert after["security"]["violations"]["rate_limits"] == 3
    assert (before["system"]["security_violations"], after["system"]["security_violations"]) == (0, 6)
    assert found["arena_refusals_total", "code=bad_request"] == 7
    assert (found["arena_refusals_total", "code=forbidden"], found["arena_addresses_held",]) == (0, 1)


async def test_endpoints_are_ordered_by_priority_and_say_what_is_wrong() -> None:
    async with grounds({**TWO, "c": []}, specs=SPECS) as ground:
        ground["a"].state(accept="refuse")
        await ground.fleet.endpoint("a").probe()
        listed = await told(ground, internal.endpoints)
    assert (listed["total_count"], listed["healthy_count"], listed["routable_count"]) == (3, 2, 2)
    assert [endpoint["name"] for endpoint in listed["endpoints"]] == ["b", "c", "a"]
    down = listed["endpoints"][-1]
    assert down["status"] == "offline"
    assert "not reachable" in down["issues"]
    assert "issues" not in listed["endpoints"][0]
    assert down.keys() >= {"id", "type", "model_count", "request_count", "active_connections", "health_check"}


async def test_checks_have_their_times() -> None:
    async with grounds({"a": []}) as ground:
        health = ground.fleet.endpoint("a").health
        health.checked_s = health.next_check_s = health.latency_s = None
        (before,) = (await told(ground, internal.endpoints))["endpoints"]
        assert before["health_check"] == "never"
        assert "health_check_at" not in before
        await ground.fleet.endpoint("a").probe()
        (after,) = (await told(ground, internal.endpoints))["endpoints"]
        assert after["health_check"] == "0s ago"
        assert after["health_check_at"].endswith("Z")
        assert after["response_time"].endswith("ms")


async def test_models_by_family_with_hosts() -> None:
    async with grounds(TWO) as ground:
        ground["a"].load("tiny", {})
        await ground.fleet.endpoint("a").models(0.0)
        status = await told(ground, internal.models, "detailed=true&group=family")
        short = await told(ground, internal.models)
    assert (status["total_models"], status["total_endpoints"]) == (3, 2)
    assert status["models_by_family"]["mistral"] == ["mistral:7b"]
    tiny = next(model for model in status["recent_models"] if model["name"] == "tiny:latest")
    assert tiny["endpoints"] == ["a", "b"]
    assert tiny["loaded_on"] == ["a"]
    assert tiny["capabilities"] == ["completion", "tools"]
    assert len(tiny["endpoint_ids"]) == 2
    assert {group["family"] for group in status["model_groups"]} == set(status["models_by_family"])
    assert "model_groups" not in short
    assert status["total_families"] == len(status["models_by_family"])


async def test_statistics_of_models_count_every_request() -> None:
    async with grounds(TWO) as ground:
        for outcome in ("succeeded", "succeeded", "failed", "left"):
            serve(ground, "tiny", "a", outcome)
        serve(ground, "mistral:7b", "b", key="team")
        stats = await told(ground, internal.model_stats, "include_endpoints=true")
        short = await told(ground, internal.model_stats)
    first, second = stats["models"]
    assert (first["name"], first["total_requests"], first["successful_requests"]) == ("tiny:latest", 4, 2)
    assert (first["failed_requests"], first["success_rate"]) == (1, "66.7%")
    assert first["tokens"] == {"prompt": 20, "completion": 40, "estimated": 0}
    assert first["p95_latency"].endswith("ms")
    assert first["last_requested"].endswith("Z")
    assert (second["name"], second["unique_clients"]) == ("mistral:7b", 1)
    assert stats["summary"]["total_requests"] == 5
    assert stats["endpoints"]["a"]["tiny:latest"] == {
        "total_requests": 4,
        "successful_requests": 2,
        "failed_requests": 1,
    }
    assert "endpoints" not in short


async def test_sticky_statistics() -> None:
    async with grounds(TWO) as ground:
        for _ in range(2):
            lease = ground.fleet.try_lease(Wanted(model="tiny", conversation="one"))
            assert lease is not None
            lease.close()
        sticky = await told(ground, internal.sticky)
    assert (sticky["enabled"], sticky["active_sessions"], sticky["hits"], sticky["misses"]) == (True, 1, 1, 1)
    assert (sticky["max_sessions"], sticky["idle_ttl_seconds"]) == (10_000, 600)
    async with grounds(TWO, strategy="round-robin") as ground:
        assert await told(ground, internal.sticky) == {"enabled": False}


async def test_what_anthropics_clients_asked_is_told_with_how_it_went() -> None:
    async with grounds(TWO) as ground:
        before = await told(ground, internal.translators)
        assert (before["translators"], before["summary"]["overall_success_rate"]) == ([], "N/A")
        serve(ground, "tiny", "a")
        for route, outcome in (
            ("/olla/anthropic/v1/messages", "succeeded"),
            ("/olla/proxy/v1/messages", "succeeded"),
            ("/olla/anthropic/v1/messages", "failed"),
        ):
            serve(ground, "tiny", "a", outcome, route=route, translated="proxy" in route)
        after = await told(ground, internal.translators)
    (anthropic,) = after["translators"]
    assert anthropic["translator_name"] == "anthropic"
    figures_of = [anthropic[f"{word}_requests"] for word in ("total", "passthrough", "translation", "streaming")]
    assert figures_of == [3, 2, 1, 0]
    summary = [
        after["summary"][word] for word in ("total_passthrough", "total_translations", "overall_passthrough_rate")
    ]
    assert summary == [2, 1, "66.7%"]
    assert (anthropic["success_rate"], after["summary"]["active_translators"]) == ("66.7%", 1)


async def test_process_and_version() -> None:
    async with grounds(TWO) as ground:
        process = await told(ground, internal.process)
        version = await told(ground, internal.version)
    assert process.keys() >= {"memory", "garbage_collection", "goroutines", "runtime", "allocations"}
    assert process["goroutines"]["count"] >= 1
    assert process["runtime"]["num_cpu"] >= 1
    assert version.keys() >= {
        "name", "version", "edition", "description", "build", "links", "api", "capabilities",
        "capabilities_experimental", "supported_backends",
    }  # fmt: skip
    assert version["api"]["endpoints"]["internal_status"] == "/internal/status"


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", closed)
    assert internal.resident_bytes() is None


async def test_a_client_that_has_it_already_gets_304_and_one_that_can_unpack_gets_it_packed() -> None:
    async with grounds(TWO) as ground:
        plain = await got(ground, internal.models)
        assert plain.headers["cache-control"] == "private, no-cache"
        packed = await got(ground, internal.models, accept_encoding="br, gzip")
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["etag"] == plain.headers["etag"]
        assert len(packed.body) < len(plain.body)
        assert json.loads(gzip.decompress(packed.body)).keys() == plain.json.keys()
        again = await got(ground, internal.models, if_none_match=f'"x", {plain.headers["etag"]}')
        assert (again.status, again.body) == (304, b"")
        ground["a"].add_model("new:1b")
        await ground.fleet.models(0.0)
        assert (await got(ground, internal.models, if_none_match=plain.headers["etag"])).status == 200


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, as Prometheus reads it."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


async def test_metrics_are_what_the_books_say() -> None:
    async with grounds(TWO, strategy="priority") as ground:
        for outcome in ("succeeded", "failed", "left"):
            serve(ground, "tiny", "a", outcome)
        serve(ground, "mistral:7b", "b", key="team")
        ground["b"].load("mistral:7b", {})
        await ground.fleet.endpoint("b").models(0.0)
        answer = await got(ground, internal.metrics)
        again = await got(ground, internal.metrics)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.body == again.body
    found = samples(answer.body)
    tiny = ("endpoint=a", "model=tiny:latest")
    for status, count in (("success", 1), ("failure", 1), ("left", 1), ("refused", 0)):
        assert found["arena_requests_total", *tiny, f"status={status}"] == count
    assert found["arena_tokens_total", "endpoint=a", "kind=completion", "model=tiny:latest"] == 20
    assert found["arena_key_tokens_total", "endpoint=b", "key=team", "kind=prompt"] == 10
    for name in ("arena_time_to_first_token", "arena_inter_token_gap", "arena_request_duration"):
        assert found[f"{name}_seconds_count", "endpoint=a"] == 1
        assert found[f"{name}_seconds_bucket", "endpoint=a", "le=+Inf"] == 1
    assert found["arena_inter_token_gap_seconds_bucket", "endpoint=a", "le=0.01"] == 0
    assert found["arena_inter_token_gap_seconds_bucket", "endpoint=a", "le=0.025"] == 1
    assert found["arena_queue_wait_seconds_count", "endpoint=a"] == 3
    assert found["arena_endpoint_up", "endpoint=b"] == 1
    assert found["arena_endpoint_breaker", "endpoint=b"] == 0
    connections = [found[f"arena_endpoint_connections{state}", "endpoint=b"] for state in ("", "_idle")]
    assert connections == [1, 1]
    assert found["arena_resident_model_bytes", "endpoint=b", "memory=vram", "model=mistral:7b"] > 0
    assert found["arena_queue_waiting",] == 0
    assert ("arena_build_info", "strategy=priority", "version=0.1.0") in found
    assert found["arena_sticky_total", "result=hit"] == 0


async def test_metrics_have_a_bounded_number_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_MODELS", 2)
    models = [f"m{number}:latest" for number in range(5)]
    async with grounds({"a": models}) as ground:
        for times, model in enumerate(models):
            for _ in range(times + 1):
                serve(ground, model, "a")
        found = samples(metrics.exposition(ground.fleet, Refusals()))
    counted = {
        key[2]: value for key, value in found.items() if key[0] == "arena_requests_total" and "success" in key[3]
    }
    assert counted == {"model=m4:latest": 5, "model=m3:latest": 4, f"model={OTHER}": 6}


async def test_refused_requests_are_counted_without_an_endpoint() -> None:
    async with grounds(TWO) as ground:
        with pytest.raises(ModelNotFound):
            await ground.fleet.lease(Wanted(model="nowhere"))
        found = samples(metrics.exposition(ground.fleet, Refusals()))
        assert found["arena_requests_total", "endpoint=", f"model={OTHER}", "status=refused"] == 1
        stats = await told(ground, internal.model_stats, "include_endpoints=true")
        assert stats["endpoints"] == {}
        assert stats["models"][0]["routing_misses"] == 1
        assert (stats["models"][0]["success_rate"], stats["summary"]["success_rate"]) == ("0.0%", "0.0%")


async def test_every_route_is_in_the_proxys_table() -> None:
    table = Table(internal.rows(Refusals()))
    async with grounds({}) as ground:
        paths = (await told(ground, internal.version))["api"]["endpoints"].values()
    assert "/olla/models" in paths
    for path in paths:
        route = table.find("GET", path)
        assert route is table.find("HEAD", path)
        assert (route.known or route.action) is not None
    assert table.find("GET", "/olla/models/hf.co/org/name:q4") is not table.find("GET", "/olla/models")
    assert table.find("POST", "/internal/health").known is internal.health
    assert table.find("GET", "/internal/process").scope == "admin"
    assert table.find("GET", "/internal/health").scope is None
