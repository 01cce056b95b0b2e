"""The proxy's routes under /olla (and those beside it) as a bare ASGI application, for every server there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from arena.api.body import ClientLeft, read
from arena.api.carrier import carry, inbound_of
from arena.arena import Arena
from arena.endings import finished
from arena.errors import ArenaError
from arena.exchange import Inbound
from arena.proxy import Proxy
from arena.proxy.table import Route as ProxyRoute
from arena.proxy.table import Rows, tidied

NOTHING = ("/olla", "/internal", "/internal/{path:path}")
"""What is ours where it is no route, so that a 404 is told as the proxy tells it."""
ENCODED_SLASH = (b"%2f", b"%5c")
ONE_MODEL = "/v1/models/"
"""The only paths in which a slash may come encoded: it belongs to a model's name there."""


def include_proxy(app: FastAPI, arena: Arena, more: Rows | None = None) -> Proxy:
    """Add the proxy to `app`, with `more` routes beside its own; call it before a page is mounted at /."""
    proxy = Proxy(arena.fleet, arena.settings, settled=arena.started, more=more)
    carrier = ProxyRoutes(proxy)
    paths = dict.fromkeys(path for _, path in proxy.table if not path.startswith("/olla/"))
    app.router.routes += [
        Mount("/olla", app=carrier),
        *(Route(path, carrier) for path in (*paths, *NOTHING)),
    ]
    return proxy


class ProxyRoutes:
    """Carries requests and answers of the proxy over ASGI."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.routes = [
            Route(path.removeprefix("/olla"), self, methods=[method])
            for method, path in proxy.table
            if path.startswith("/olla/")
        ]
        """What is served below /olla, for whoever lists an application's routes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        inbound = inbound_of(scope)
        if (path := tidied(inbound.path)) != inbound.path:
            inbound = Inbound(inbound.method, path, inbound.query, inbound.headers, inbound.caller)
        raw_path = (scope.get("raw_path") or b"").lower()
        if any(slash in raw_path for slash in ENCODED_SLASH) and ONE_MODEL not in inbound.path:
            inbound = Inbound(inbound.method, "/olla//", b"", inbound.headers, inbound.caller)  # no route, but a 400
        try:
            route = self._route(inbound)
            if route is not None and route.upload is not None:
                await self._upload(route, inbound, receive, send)
            else:
                body = b"" if route is None else await read(receive)  # for nobody: it may be as large as a file
                await carry(self._proxy.begin, inbound, body, receive, send)
        except ClientLeft:
            return

    def _route(self, inbound: Inbound) -> ProxyRoute | None:
        """The route, if there is one."""
        try:
            return self._proxy.table.find(inbound.method, inbound.path)
        except ArenaError:
            return None

    async def _upload(self, route: ProxyRoute, inbound: Inbound, receive: Receive, send: Send) -> None:
        assert route.upload is not None
        if not self._proxy.fleet.endpoints:
            await self._proxy.settled()
        work = asyncio.ensure_future(route.upload(self._proxy, inbound, pieces(receive)))
        try:
            await asyncio.wait([work])
        finally:
            work.cancel()
            await finished([work])
        if isinstance(work.exception(), ClientLeft):
            raise ClientLeft
        await carry(self._proxy.replying(route, work), inbound, b"", receive, send)


async def pieces(receive: Receive) -> AsyncGenerator[bytes, None]:
    """A request's body as it comes in. Raises ClientLeft when the client hangs up before its end."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        if body := message.get("body", b""):
            yield body
        if not message.get("more_body"):
            return
