"""Which scope a named key must have for a method and a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from arena.errors import ArenaError
from arena.keys import Scope
from arena.proxy.table import Table

# What is neither here nor in the proxy's table needs an admin's key: the page, its own routes, and what is added later.
ANY_KEY: Final = frozenset({"/api/models", "/api/loaded", "/openapi.json", "/docs", "/redoc"})
CHAT: Final = frozenset({"/api/chat", "/api/stream_chat", "/api/votes/direct"})
BATTLES: Final = "/api/battles"
LEADERBOARD: Final = "/api/leaderboard"
PRESETS: Final = "/api/presets"
CONVERSATIONS: Final = "/api/conversations"
MANAGE: Final = frozenset({"/api/pull_model", "/api/delete_model", "/api/load_model", "/api/unload_model"})


def needs(table: Table) -> Callable[[str, str], Scope | None]:
    """What tells the scope for a method and a path, None where any key will do; `table` is the proxy's."""

    def needed(method: str, path: str) -> Scope | None:
        read_as = "GET" if method == "HEAD" else method
        route = table.get(read_as, path)
        if route is not None:
            return route.scope
        if path.startswith("/olla/") and method != "WEBSOCKET":
            try:
                return table.find(method, path).scope
            except ArenaError:  # nothing is there: every key may be told so
                return None
        return _of_the_api(read_as, path)

    return needed


def _of_the_api(method: str, path: str) -> Scope | None:
    if method == "GET" and path in ANY_KEY:
        return None
    if method == "POST" and path in CHAT:
        return "chat"
    if f"{path}/".startswith(tuple(f"{part}/" for part in (BATTLES, LEADERBOARD, PRESETS, CONVERSATIONS))):
        return "chat"
    if path in MANAGE or path == "/api/endpoints" or f"{path}/".startswith("/api/pulls/"):
        return "manage"
    return "admin"
