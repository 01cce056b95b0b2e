"""The HTTP API of both client generations under /api, with its description at /openapi.json and /docs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router

from arena.api import battle, catalog, compare, docs, errors, fleet, kept, leaderboard, system, votes
from arena.api.openapi import document
from arena.api.operation import Endpoint, Operation
from arena.arena import Arena
from arena.exchange import Begin

__all__ = ["include_api"]


def include_api(app: FastAPI, arena: Arena) -> Callable[[str, str], Begin | None]:
    """Add every API route, their description and the error form to `app`; call it before a page is mounted at /.

    Returns what tells, of a method and a path, how to answer it straight on a connection; None for most.
    """
    chat = compare.Chat(arena)
    features = (kept, battle, votes, leaderboard, catalog, system, fleet)
    operations = (*compare.operations(chat), *(row for feature in features for row in feature.operations(arena)))
    described = document(operations, arena.settings)
    # A router of its own, so that a page mounted at / never answers for an unknown path or method under /api.
    app.router.routes.append(Mount("/api", app=Router([*_routes(operations)], redirect_slashes=False)))
    app.router.routes += docs.routes(described)

    def openapi() -> dict[str, Any]:
        return described

    app.openapi = openapi  # type: ignore[method-assign]
    for kind, handler in errors.HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, errors.on_bug)
    return chat.direct


def _routes(operations: Iterable[Operation]) -> Iterator[BaseRoute]:
    """One for each path, so that who comes with another method is told all that it has."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation.endpoint
    for path, endpoints in paths.items():
        yield Route(path, _by_method(endpoints), methods=[*endpoints])


def _by_method(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    """What answers a path; of several methods, each is a function of the request."""
    if len(endpoints) == 1:
        return next(iter(endpoints.values()))

    async def answer(request: Request) -> Response:
        endpoint = cast(Callable[[Request], Awaitable[Response]], endpoints[request.method.replace("HEAD", "GET")])
        return await endpoint(request)

    return answer
