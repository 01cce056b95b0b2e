"""Endpoints that know their models and never say a word, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from arena.fleet import Endpoint, EndpointSpec, Fleet, FleetSpec, Lease, Wanted, connect
from arena.types import LoadedModel, ModelInfo
from arena.wire import Timeouts
from tests.fake_ollama.clock import Clock

M = "m:1b"
BRIEF = Timeouts(connect_s=1, first_byte_s=2, idle_s=2)


def tell(endpoint: Endpoint, *models: str, loaded: tuple[str, ...] = (), at_s: float = 0.0) -> None:
    """Let `endpoint` have said that it has `models`, some of them in memory."""
    endpoint._take_loaded(tuple(LoadedModel(name) for name in loaded), at_s)
    endpoint._take_models(tuple(ModelInfo(name) for name in models))


def quiet_fleet(
    hosts: Mapping[str, tuple[str, ...]],
    clock: Clock | None = None,
    *,
    each: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Fleet:
    """A fleet of `hosts` with their models; `each` goes into every endpoint's specification."""
    clock = clock or Clock()
    endpoints = tuple(EndpointSpec(name=name, url="http://127.0.0.1:9", **(each or {})) for name in hosts)
    fleet = Fleet(
        spec=FleetSpec(endpoints=endpoints, **spec), build=lambda item: connect(item, clock=clock), clock=clock
    )
    for endpoint in fleet.endpoints:
        tell(endpoint, *hosts[endpoint.name])
    return fleet


def three(clock: Clock | None = None, **spec: Any) -> Fleet:
    """Three hosts that all have the model M."""
    return quiet_fleet(dict.fromkeys("abc", (M,)), clock, **spec)


def change(endpoint: Endpoint, **changes: Any) -> None:
    """Another specification for `endpoint`, at once."""
    endpoint.adopt(msgspec.structs.replace(endpoint.spec, **changes))


def taken(fleet: Fleet, model: str | None = M, **wanted: Any) -> Lease:
    """A lease that there must be at once."""
    lease = fleet.try_lease(Wanted(model=model, **wanted))
    assert lease is not None
    return lease


def served_by(fleet: Fleet, times: int, **wanted: Any) -> list[str]:
    """Who serves so many requests, one after another."""
    names = []
    for _ in range(times):
        with taken(fleet, **wanted) as lease:
            lease.succeeded()
            names.append(lease.endpoint.name)
    return names


@asynccontextmanager
async def closing(fleet: Fleet) -> AsyncGenerator[Fleet, None]:
    """The fleet, closed in the end."""
    try:
        yield fleet
    finally:
        await fleet.aclose()
