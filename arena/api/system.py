"""Is the server alive, and which endpoints answer."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from arena import __version__
from arena.api import samples
from arena.api.operation import Operation, json_response
from arena.api.stream import while_client_stays
from arena.arena import Arena
from arena.errors import ArenaError
from arena.fleet import Endpoint
from arena.names import canonical

HEALTH_WAIT_S = 0.5
"""Longest time a health check waits for an endpoint; a silent one counts as not reachable."""


class System:
    """The system routes over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    async def health(self, request: Request) -> Response:
        """Always 200: `healthy` if at least one endpoint answers, else `degraded`."""
        endpoints = self._arena.fleet.endpoints
        answers = await while_client_stays(request.receive, _models_of(endpoints))
        return json_response(
            {
                "status": "healthy" if answers else "degraded",
                "service": "ollama-arena",
                "models_available": len(frozenset[str]().union(*answers)),
                "ollama_reachable": bool(answers),
                "endpoints_reachable": len(answers),
                "endpoints_configured": len(endpoints),
                "engine": self._arena.engine_state,
                "version": __version__,
            }
        )

    async def endpoints(self, request: Request) -> Response:
        """What every endpoint is and says."""
        statuses = await while_client_stays(request.receive, self._arena.fleet.statuses())
        return json_response(
            {"endpoints": statuses, "engine": {"state": self._arena.engine_state, "error": self._arena.engine_error}}
        )


async def _models_of(endpoints: tuple[Endpoint, ...]) -> list[frozenset[str]]:
    """The models of each endpoint that answers within HEALTH_WAIT_S; the question itself goes on for others."""
    tasks = [asyncio.create_task(_names(endpoint)) for endpoint in endpoints]
    if not tasks:
        return []
    try:
        done, _ = await asyncio.wait(tasks, timeout=HEALTH_WAIT_S)
    finally:
        for task in tasks:
            task.cancel()
    return [names for task in done if (names := task.result()) is not None]


async def _names(endpoint: Endpoint) -> frozenset[str] | None:
    try:
        return frozenset(canonical(info.name) for info in await endpoint.models())
    except ArenaError:
        return None


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The system routes."""
    system = System(arena)
    return (
        Operation(
            "GET",
            "/health",
            system.health,
            "System",
            "Is the server alive",
            "Always 200 while the server runs, and open without a token. `degraded`: no endpoint answers.",
            "Health",
            answer_examples=samples.HEALTH_ANSWERS,
        ),
        Operation(
            "GET",
            "/endpoints",
            system.endpoints,
            "System",
            "Which endpoints answer, and as what",
            "One entry for each Ollama server, in the order of the settings, and the embedded engine's state.",
            "Endpoints",
        ),
    )
