"""create_app(): the API first, the page last, the guard around all of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from arena.api import carrier, include_api, internal
from arena.api.proxy import include_proxy
from arena.api.scopes import needs
from arena.arena import Arena
from arena.exchange import Begin, Refusals
from arena.guard import Guard, Visitors
from arena.proxy import turned_away
from arena.settings import Settings
from arena.ui import mount_page


def create_app(settings: Settings, *, page: bool = True) -> Guard:
    """Build the whole application: an ASGI app that starts and stops its own Arena in its lifespan.

    `page=False` leaves Gradio out (it takes seconds to import), for programs and tests that need the API only.
    """
    arena = Arena(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with arena.running():
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    api_direct = include_api(app, arena)
    refusals = Refusals()
    proxy = include_proxy(app, arena, internal.rows(refusals))
    if page:
        app = mount_page(app, arena)

    def direct(method: str, path: str) -> Begin | None:
        return api_direct(method, path) or proxy.direct(method, path)

    def drain() -> None:
        arena.compare.drain()
        proxy.drain()

    # whoever uses a server for others from one network is told apart by browser, lest they vote as one
    framed = settings.space_id is not None
    visitors = Visitors(lambda: arena.store.signing_key, arena.begin_store, framed=framed) if settings.shared else None
    return Guard(
        app,
        settings,
        direct=direct,
        carrier=carrier.answer,
        keys=arena.keys,
        needs=needs(proxy.table),
        told=turned_away,
        refusals=refusals,
        visitors=visitors,
        on_drain=drain,
        on_reload=arena.reload_soon,
    )
