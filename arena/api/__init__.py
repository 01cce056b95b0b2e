"""The HTTP API of both client generations under /api, with its description at /openapi.json and /docs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, Route, Router

from arena.api import battle, catalog, compare, docs, errors, fleet, leaderboard, system, votes
from arena.api.openapi import document
from arena.arena import Arena
from arena.exchange import Begin

__all__ = ["include_api"]


def include_api(app: FastAPI, arena: Arena) -> Callable[[str, str], Begin | None]:
    """Add every API route, their description and the error form to `app`; call it before a page is mounted at /.

    Returns what tells, of a method and a path, how to answer it straight on a connection; None for most.
    """
    chat = compare.Chat(arena)
    features = (battle, votes, leaderboard, catalog, system, fleet)
    operations = (*compare.operations(chat), *(row for feature in features for row in feature.operations(arena)))
    described = document(operations, arena.settings)
    routes: list[BaseRoute] = [
        Route(operation.path, operation.endpoint, methods=[operation.method]) for operation in operations
    ]
    # A router of its own, so that a page mounted at / never answers for an unknown path or method under /api.
    app.router.routes.append(Mount("/api", app=Router(routes, redirect_slashes=False)))
    app.router.routes += docs.routes(described)

    def openapi() -> dict[str, Any]:
        return described

    app.openapi = openapi  # type: ignore[method-assign]
    for kind, handler in errors.HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, errors.on_bug)
    return chat.direct
