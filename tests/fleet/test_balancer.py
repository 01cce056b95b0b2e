"""The strategies: exact turns, exact shares, warm before cold, tiers that spill."""

from __future__ import annotations

from collections import Counter

import pytest

from arena.fleet.spec import Strategy
from tests.fleet.hosts import M, change, quiet_fleet, served_by, taken, tell, three


def test_round_robin_is_exact() -> None:
    names = served_by(three(strategy="round-robin"), 300)
    assert names == ["a", "b", "c"] * 100


def test_round_robin_is_exact_however_long_the_answers_take() -> None:
    fleet = three(strategy="round-robin")
    leases = [taken(fleet) for _ in range(300)]
    assert Counter(lease.endpoint.name for lease in leases) == {"a": 100, "b": 100, "c": 100}


def test_round_robin_stays_fair_where_the_models_overlap() -> None:
    fleet = quiet_fleet({"a": ("x",), "b": ("x", "y"), "c": ("y",)}, strategy="round-robin")
    names = [served_by(fleet, 1, model=model)[0] for _ in range(50) for model in "xy"]
    assert max(Counter(names).values()) - min(Counter(names).values()) <= 20


def test_weights_are_shares_and_evenly_mixed() -> None:
    fleet = three(strategy="weighted")
    fleet.weight("a", 5)
    fleet.weight("c", 0)
    names = served_by(fleet, 600)
    assert Counter(names) == {"a": 500, "b": 100}
    assert "bb" not in "".join(names)
    for name in "ab":
        fleet.weight(name, 0)
    assert served_by(fleet, 1)  # somebody must


def test_the_least_busy_is_taken_in_relation_to_its_weight() -> None:
    fleet = three(strategy="least-outstanding")
    fleet.weight("b", 4)
    assert Counter(taken(fleet).endpoint.name for _ in range(12)) == {"a": 2, "b": 8, "c": 2}


def test_priority_spills_over_when_the_tier_is_full() -> None:
    fleet = three(strategy="priority")
    for endpoint, priority in zip(fleet.endpoints, (1, 2, 2), strict=True):
        change(endpoint, priority=priority, max_in_flight=2)
    leases = [taken(fleet) for _ in range(5)]
    assert [lease.endpoint.name for lease in leases] == ["b", "c", "b", "c", "a"]
    leases[1].close()
    assert taken(fleet).endpoint.name == "c"


def test_warm_first_prefers_by_memory_then_idleness() -> None:
    fleet = three()
    a, b, c = fleet.endpoints
    tell(b, M, loaded=(M,))
    first = taken(fleet)
    assert first.endpoint is b, "resident and idle"
    second = taken(fleet)
    assert second.endpoint is a, "idle and cold, before the busy one that has it in memory"
    assert taken(fleet).endpoint is c
    assert taken(fleet).endpoint is b, "all are busy: the warm one"
    assert not second.contended
    assert first.contended


def test_warm_first_learns_from_traffic() -> None:
    fleet = three()
    with taken(fleet, endpoint="c") as lease:
        lease.first_byte()
        lease.succeeded()
    assert served_by(fleet, 20) == ["c"] * 20


@pytest.mark.parametrize("failing", [True, False])
def test_only_an_answer_makes_a_model_resident(failing: bool) -> None:
    fleet = three()
    with taken(fleet, endpoint="c") as lease:
        if failing:
            lease.failed(status=500)
    assert served_by(fleet, 1) == ["a"]


def test_what_the_server_says_later_replaces_what_traffic_told() -> None:
    fleet = three()
    served_by(fleet, 1, endpoint="c")
    _, _, c = fleet.endpoints
    tell(c, M, at_s=999.0)
    assert M in c.warm, "the question went out before the answer came"
    tell(c, M, at_s=1001.0)
    assert M not in c.warm, "it was unloaded meanwhile"


@pytest.mark.parametrize("strategy", ["warm-first", "priority", "round-robin", "weighted", "least-outstanding"])
def test_every_strategy_serves_every_idle_host_in_the_long_run(strategy: Strategy) -> None:
    fleet = three(strategy=strategy)
    for endpoint in fleet.endpoints:
        tell(endpoint, M, loaded=(M,))
    assert Counter(served_by(fleet, 30)) == {"a": 10, "b": 10, "c": 10}
