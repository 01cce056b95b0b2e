"""The strategies: who of those that could serve a request gets it. No I/O, no clock.

Every endpoint that is offered to a strategy is up, has the model and has room; ties go to whoever has waited longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from arena.fleet.endpoint import Endpoint
from arena.fleet.spec import Strategy

TINY = 1e-6
"""Stands in for a weight of zero where something is divided by it."""


class Balancer:
    """Chooses by one strategy, and remembers whose turn it was."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._turn = 0
        self._served: dict[str, int] = {}
        self._credit: dict[str, float] = {}
        self._pick: Callable[[Sequence[Endpoint], str], Endpoint] = {
            "warm-first": self._warm_first,
            "priority": self._priority,
            "round-robin": self._round_robin,
            "weighted": self._weighted,
            "least-outstanding": self._least_outstanding,
        }[strategy]

    def choose(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        """One of `candidates` (at least one) for the model `key` ("" for no model)."""
        chosen = candidates[0] if len(candidates) == 1 else self._pick(candidates, key)
        self._turn += 1
        self._served[chosen.name] = self._turn
        return chosen

    def forget(self, name: str) -> None:
        """This endpoint is gone."""
        self._served.pop(name, None)
        self._credit.pop(name, None)

    def _last(self, endpoint: Endpoint) -> int:
        return self._served.get(endpoint.name, 0)

    def _round_robin(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        """Whoever was served longest ago: with the same candidates each time, exactly in turn."""
        return min(candidates, key=self._last)

    def _least_outstanding(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        return min(candidates, key=lambda endpoint: (load_of(endpoint), self._last(endpoint)))

    def _priority(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        """The highest tier with room. One that is at its limit is no candidate, so the next tier gets what spills."""
        highest = max(endpoint.spec.priority for endpoint in candidates)
        return self._least_outstanding([e for e in candidates if e.spec.priority == highest], key)

    def _weighted(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        """In proportion to the weights and evenly mixed: each gains its weight, the winner pays for all."""
        credit, total = self._credit, 0.0
        for endpoint in candidates:
            total += endpoint.weight
            credit[endpoint.name] = credit.get(endpoint.name, 0.0) + endpoint.weight
        willing = [endpoint for endpoint in candidates if endpoint.weight > 0] or candidates
        chosen = max(willing, key=lambda endpoint: credit[endpoint.name])
        credit[chosen.name] -= total
        return chosen

    def _warm_first(self, candidates: Sequence[Endpoint], key: str) -> Endpoint:
        """Resident and idle, then idle (it can load at once), then resident and busy, then cold and busy."""
        served = self._served
        best, lowest = candidates[0], (4, 0.0, 0, 0)
        for endpoint in candidates:  # a loop, since a key function is a call for each
            busy = endpoint.in_flight
            warmth = (2 if busy else 0) + (key not in endpoint.warm)
            if warmth > lowest[0]:
                continue
            load = busy / (endpoint.weight or TINY) if busy else 0.0
            rank = (warmth, load, -endpoint.spec.priority, served.get(endpoint.name, 0))
            if rank < lowest:
                best, lowest = endpoint, rank
        return best


def load_of(endpoint: Endpoint) -> float:
    """Requests running, in relation to the endpoint's weight."""
    return endpoint.in_flight / (endpoint.weight or TINY)
