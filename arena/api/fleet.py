"""The fleet's own levers: read its file again, rest an endpoint, change its share."""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.responses import Response

from arena.api import fields
from arena.api.body import json_object
from arena.api.operation import Operation, json_response
from arena.arena import Arena
from arena.errors import BadRequest, SettingsError

MAX_WEIGHT = 1000.0


class Levers:
    """The fleet routes over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    async def reload(self, _: Request) -> Response:
        """Read the fleet file again; a bad one changes nothing."""
        self._arena.catalog.check_management()
        try:
            await self._arena.reload_fleet()
        except SettingsError as error:
            raise BadRequest(error.message, code="settings") from None
        return json_response({"status": "reloaded", "endpoints": [e.name for e in self._arena.fleet.endpoints]})

    async def drain(self, request: Request) -> Response:
        """Give an endpoint no new work, or work again."""
        name, value = await self._lever(request, "on", True)
        if not isinstance(value, bool):
            raise BadRequest("on must be true or false")
        self._arena.fleet.drain(name, value)
        return json_response({"status": "draining" if value else "serving", "endpoint": name})

    async def weight(self, request: Request) -> Response:
        """Change an endpoint's share."""
        name, value = await self._lever(request, "weight", None)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        if not 0 < number <= MAX_WEIGHT:
            raise BadRequest(f"weight must be a number above 0, at most {MAX_WEIGHT:g}")
        self._arena.fleet.weight(name, float(number))
        return json_response({"status": "weighted", "endpoint": name, "weight": number})

    async def _lever(self, request: Request, key: str, default: object) -> tuple[str, object]:
        """The endpoint that a request names, and the value it sets."""
        self._arena.catalog.check_management()
        body = await json_object(request.scope, request.receive)
        fields.only(body, "endpoint", key)
        name = fields.endpoint_name(body.get("endpoint"), [e.name for e in self._arena.fleet.endpoints])
        if name is None:
            raise BadRequest("endpoint is required: one of the names that GET /api/endpoints lists")
        return name, body.get(key, default)


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The fleet routes."""
    levers = Levers(arena)
    errors = (400, 403, 413, 415)
    return (
        Operation(
            "POST",
            "/fleet/reload",
            levers.reload,
            "System",
            "Read the fleet file again",
            "As `kill -HUP` does. Running answers go on, also on endpoints that are gone from the file. A file with a "
            "mistake changes nothing: the answer is 400 and says where the mistake is.",
            "FleetReloaded",
            errors=(400, 403),
        ),
        Operation(
            "POST",
            "/fleet/drain",
            levers.drain,
            "System",
            "Rest an endpoint",
            "It gets no new work until the same request with `on: false`, or a restart; what runs there goes on.",
            "FleetLever",
            "FleetDrain",
            errors=errors,
        ),
        Operation(
            "POST",
            "/fleet/weight",
            levers.weight,
            "System",
            "Change an endpoint's share of the work",
            "Until the fleet file says otherwise. Twice the weight is twice the work.",
            "FleetLever",
            "FleetWeight",
            errors=errors,
        ),
    )
