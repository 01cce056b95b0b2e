"""Every route of the whole application, the page's own included, found at run time: none is open by oversight."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from arena.api import internal
from arena.app import create_app
from arena.exchange import Refusals
from arena.guard import PUBLIC_PATHS, Guard
from arena.proxy.table import Table
from arena.settings import load
from tests.guarded import BEARER, PAGE, TOKEN, House

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# A new route of ours belongs here once it is clear that its token, its origin and its limits are as they should be.
OURS = {
    "/olla",
    "/internal",
    "/internal/{path:path}",
    "/api/chat",
    "/api/stream_chat",
    "/api/battles",
    "/api/battles/{id}",
    "/api/battles/{id}/page",
    "/api/battles/{id}/stream",
    "/api/battles/{id}/vote",
    "/api/conversations",
    "/api/conversations/{id}",
    "/api/presets",
    "/api/presets/{name}",
    "/api/leaderboard",
    "/api/leaderboard/matrix",
    "/api/leaderboard/settings",
    "/api/leaderboard/timeline",
    "/api/votes",
    "/api/votes/direct",
    "/api/votes/import",
    "/api/votes/preferences",
    "/api/models",
    "/api/loaded",
    "/api/pull_model",
    "/api/pulls",
    "/api/pulls/{id}",
    "/api/pulls/{id}/cancel",
    "/api/delete_model",
    "/api/load_model",
    "/api/unload_model",
    "/api/health",
    "/api/endpoints",
    "/api/fleet/reload",
    "/api/fleet/drain",
    "/api/fleet/weight",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/version",
    "/internal/health",
    "/internal/status",
    "/internal/status/endpoints",
    "/internal/status/models",
    "/internal/stats/models",
    "/internal/stats/sticky",
    "/internal/stats/translators",
    "/internal/process",
    "/internal/metrics",
}
UNKNOWN = (
    "/nowhere",
    "/api/nowhere",
    "/api/health/x",
    "/signin/x",
    "/gradio_api/nowhere",
    "/.env",
    "/olla/ollama/api/tags",
)
REFUSALS: dict[str, tuple[dict[str, str], dict[str, str], int]] = {
    "no token": ({}, {}, 401),
    "wrong token": ({"Authorization": "Bearer wrong"}, {}, 401),
    "another header": ({"X-Auth-Token": TOKEN}, {}, 401),
    "wrong key": ({"X-API-Key": "wrong"}, {}, 401),
    "another session": ({"Cookie": "arena_session=of-somebody-else"}, {}, 401),
    "another host": (BEARER, {"host": "evil.example"}, 403),
}
FOREIGN = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)


def found(app: Any, prefix: str = "") -> Iterator[tuple[str, frozenset[str]]]:
    """(path, methods) of every route of `app` and of what is mounted or included in it."""
    for route in app.routes:
        if hasattr(route, "effective_route_contexts"):
            for inner in route.effective_route_contexts():
                yield prefix + inner.path, frozenset(inner.methods)
        elif hasattr(route, "routes") and route.routes:
            yield from found(route, prefix + route.path)
        elif hasattr(route, "methods"):
            yield prefix + route.path, frozenset(route.methods or METHODS)
        else:
            raise AssertionError(f"a route of a kind this test does not know: {route!r}")


def filled(path: str) -> str:
    """A path of the route: every parameter is 1."""
    return re.sub(r"\{[^}]*\}", "1", path)


@pytest.fixture(scope="module")
def routes() -> list[tuple[str, frozenset[str]]]:
    """All routes of the application as it is served."""

    async def build() -> Guard:
        # inside a running loop, as a server does it: else Gradio opens one for every lock it makes
        return create_app(load(engine="off", token=TOKEN))

    return list(found(asyncio.run(build()).app))


@pytest.fixture
def locked() -> House:
    """The guard alone: what it lets through is noted, not run."""
    return House(token=TOKEN)


def test_our_routes_are_all_classified(routes: list[tuple[str, frozenset[str]]]) -> None:
    page_begins = [path for path, _ in routes].index("/login/")
    ours = {path for path, _ in routes[:page_begins]}
    assert {path for path in ours if not path.startswith("/olla/")} == OURS
    assert {path for path in ours if path.startswith("/olla/")} == {
        path for _, path in Table(internal.rows(Refusals())) if path.startswith("/olla/")
    }
    assert len(routes) > 80, "the page's own routes were not found"
    assert {"/config", "/gradio_api/queue/join", "/gradio_api/cancel", "/monitoring"} <= {path for path, _ in routes}


@pytest.mark.anyio
@pytest.mark.parametrize("why", REFUSALS)
async def test_no_route_opens_without_the_token(
    routes: list[tuple[str, frozenset[str]]], locked: House, why: str
) -> None:
    headers, options, status = REFUSALS[why]
    public = set()
    for path in {filled(path) for path, _ in routes} | set(UNKNOWN):
        for method in METHODS:
            locked.clock.now += 60  # wrong tokens are counted: this is not about that
            peer = f"10.{len(path) % 250}.0.1"
            answer = await locked.ask(method, path, headers, peer=peer, **options)  # type: ignore[arg-type]
            if answer.status != status:
                public.add(path)
    # behind another host name nothing is public
    assert public == (set() if status == 403 else PUBLIC_PATHS - {"/signin"})
    assert len(PUBLIC_PATHS) == 4
    assert {scope["path"] for scope in locked.inside.seen} <= {"/api/health", "/internal/health"}


@pytest.mark.anyio
async def test_every_change_from_another_site_is_refused(
    routes: list[tuple[str, frozenset[str]]], locked: House
) -> None:
    tried = 0
    for path, methods in routes:
        for method in methods - {"GET", "HEAD", "OPTIONS"}:
            for headers in FOREIGN:
                answer = await locked.ask(method, filled(path), {**BEARER, "Content-Type": "text/plain", **headers})
                assert answer.status == 403, f"{method} {path} {headers}"
                tried += 1
    assert tried > 100
    assert not locked.inside.seen


@pytest.mark.anyio
async def test_a_browser_is_asked_to_sign_in_everywhere(
    routes: list[tuple[str, frozenset[str]]], locked: House
) -> None:
    for path in {filled(path) for path, _ in routes} - PUBLIC_PATHS:
        answer = await locked.ask("GET", path, PAGE)
        assert answer.status == 303, path
        assert (answer.header("location") or "").startswith("/signin?next=/")


@pytest.mark.anyio
async def test_no_websocket_is_open(routes: list[tuple[str, frozenset[str]]], locked: House) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    paths = {filled(path) for path, _ in routes} - PUBLIC_PATHS
    for path in paths:
        await locked.guard(locked.scope("", path, kind="websocket", scheme="ws"), None, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"] * len(paths)
    assert not locked.inside.seen
