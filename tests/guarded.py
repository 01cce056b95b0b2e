"""A guard with an application that notes what reaches it, and a clock moved by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

from arena.exchange import Refusals
from arena.guard import Guard
from arena.guard.asgi import Message, Receive, Scope, Send
from arena.settings import Settings

TOKEN = "a-token-of-more-than-16-characters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = {"Accept": "text/html,application/xhtml+xml"}
Pairs = dict[str, str] | list[tuple[str, str]]


class Clock:
    """Seconds moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answer:
    """What came out of the guard."""

    def __init__(self, messages: list[Message]) -> None:
        assert messages[0]["type"] == "http.response.start"
        assert [m["type"] for m in messages[1:]] == ["http.response.body"] * (len(messages) - 1)
        self.status: int = messages[0]["status"]
        self.headers = [(name.decode(), value.decode()) for name, value in messages[0]["headers"]]
        self.body = b"".join(m.get("body", b"") for m in messages[1:])

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came twice"
        return values[0] if values else None

    @property
    def error(self) -> tuple[str, str]:
        assert len(self.body) <= 1024
        assert self.header("content-type") == "application/json"
        content = json.loads(self.body)
        assert set(content) == {"error", "code"}
        return content["error"], content["code"]


class Inside:
    """The application behind the guard: notes what reached it, answers with `headers`."""

    def __init__(self) -> None:
        self.seen: list[Scope] = []
        self.received = b""
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
        self.answers_first = False
        self.hung_up = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        if scope["type"] != "http":
            return
        start: Message = {"type": "http.response.start", "status": 200, "headers": list(self.headers)}
        if self.answers_first:
            await send(start)
        more = True
        while more:
            message = await receive()
            self.hung_up = message["type"] == "http.disconnect"
            self.received += message.get("body", b"")
            more = message.get("more_body", False)
        if not self.answers_first:
            await send(start)
        await send({"type": "http.response.body", "body": b"inside"})


class House:
    """A guard with an application and a clock, asked through `ask`."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.inside = Inside()
        self.drained = 0
        self.refusals = Refusals()
        self.guard = Guard(
            self.inside,
            Settings(**settings),
            refusals=self.refusals,
            on_drain=self._note_drain,
            clock=self.clock,
        )

    def _note_drain(self) -> None:
        self.drained += 1

    async def ask(
        self,
        method: str = "GET",
        path: str = "/api/models",
        headers: Pairs | None = None,
        *,
        query: str = "",
        body: list[bytes] | None = None,
        host: str | None = "127.0.0.1:7860",
        peer: str = "127.0.0.1",
        scheme: str = "http",
    ) -> Answer:
        scope = self.scope(method, path, headers, query=query, host=host, peer=peer, scheme=scheme)
        pieces: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in body or [b""]]
        pieces[-1]["more_body"] = False
        source: AsyncIterator[Message] = _each(pieces)
        sent: list[Message] = []

        async def receive() -> Message:
            return await anext(source)

        async def send(message: Message) -> None:
            sent.append(message)

        await self.guard(scope, receive, send)
        return Answer(sent)

    @staticmethod
    def scope(
        method: str,
        path: str,
        headers: Pairs | None = None,
        *,
        query: str = "",
        host: str | None = "127.0.0.1:7860",
        peer: str = "127.0.0.1",
        scheme: str = "http",
        kind: str = "http",
    ) -> Scope:
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
        if host is not None:
            pairs.insert(0, ("Host", host))
        scope = {
            "type": kind,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
            "client": (peer, 50000),
            "scheme": scheme,
        }
        return scope | ({"method": method} if kind == "http" else {})

    async def sign_in(self, token: str = TOKEN, target: str = "/", **options: Any) -> Answer:
        form = urlencode({"token": token, "next": target}).encode()
        length = {"Content-Length": str(len(form)), **options.pop("headers", {})}
        return await self.ask("POST", "/signin", length, body=[form], **options)


async def _each(messages: list[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message
    raise AssertionError("the application read on after the last message")


def session_of(answer: Answer) -> str:
    """The cookie pair a sign-in answer sets."""
    assert answer.status == 303
    cookie = answer.header("set-cookie")
    assert cookie is not None
    return cookie.partition(";")[0]
