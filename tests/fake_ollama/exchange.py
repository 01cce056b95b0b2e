"""One request being answered: its record in the log, its head's style, and the plain ways to reply."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tests.fake_ollama.dialects import encoded, openai_error
from tests.fake_ollama.plan import Plan
from tests.fake_ollama.wire import Connection, Parting, Request

if TYPE_CHECKING:
    from tests.fake_ollama.server import FakeOllama

JSON = "application/json; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"

REASONS = {
    100: "Continue", 200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently", 302: "Found",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
}  # fmt: skip

Ended = Literal["complete", "fin", "rst", "capped"]


@dataclass
class Record:
    """What the log keeps of one request. Times are `time.monotonic()` in seconds, None while they lie ahead.

    A client that closes with bytes unread sends RST, not FIN: the kernel decides that.
    `ended`: None while being served; complete: the scenario was played to its end; fin, rst: the client left before;
    capped: the fake's own limit, or its closing, ended it. `parting` and `parted_at` tell how and when the client
    closed the connection in the end; the last request of the connection carries them.
    """

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    raw_headers: tuple[tuple[str, str], ...]
    body: Any
    body_sha256: str
    model: str
    scenario: str
    accepted_at: float
    requested_at: float
    first_byte_at: float | None = None
    last_byte_at: float | None = None
    ended_at: float | None = None
    ended: Ended | None = None
    parting: Parting | None = None
    parted_at: float | None = None
    tokens: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def cut(self) -> bool:
        """Did the client leave before the end?"""
        return self.ended in ("fin", "rst")


def record_of(connection: Connection, request: Request) -> Record:
    """A fresh record of a request that has just arrived."""
    body = request.parsed()
    return Record(
        connection=connection.number,
        method=request.method,
        path=request.target,
        headers=dict(request.headers),
        raw_headers=request.headers,
        body=body,
        body_sha256=hashlib.sha256(request.body).hexdigest(),
        model=model_of(body),
        scenario="",
        accepted_at=connection.accepted_at,
        requested_at=time.monotonic(),
        bytes_in=len(request.body),
    )


def model_of(body: Any) -> str:
    """The model that a request names: `model`, its alias `name`, or the source of a copy."""
    if not isinstance(body, dict):
        return ""
    named = body.get("model") or body.get("name") or body.get("source")
    return named if isinstance(named, str) else ""


@dataclass(frozen=True)
class HeadStyle:
    """How the head of a good answer is bent."""

    before: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    byte_gap_s: float = 0


@dataclass
class Exchange:
    """A request with the connection to answer it on."""

    fake: FakeOllama
    connection: Connection
    request: Request
    record: Record
    plan: Plan = field(default_factory=lambda: Plan(""))
    style: HeadStyle = field(default_factory=HeadStyle)
    keep_alive: bool = True

    @property
    def body(self) -> dict[str, Any]:
        """The request's JSON object; empty where it is none."""
        return self.record.body if isinstance(self.record.body, dict) else {}

    @property
    def openai(self) -> bool:
        """Is this one of OpenAI's routes?"""
        return self.request.path.startswith("/v1/")

    async def send(self, data: bytes) -> None:
        """Bytes to the client, noting when."""
        await self.connection.send(data)
        now = time.monotonic()
        self.record.first_byte_at = self.record.first_byte_at or now
        self.record.last_byte_at = now
        self.record.bytes_out += len(data)

    async def pause(self, seconds: float) -> None:
        """Wait that long, unless the client leaves."""
        if seconds > 0:
            await self.connection.wait(seconds=seconds)

    async def hang(self) -> None:
        """Wait until the client leaves."""
        await self.connection.wait()

    def head(self, status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
        """Status line and headers as they go out."""
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in (*headers, *self.style.headers)]
        if not self.keep_alive:
            lines.append("Connection: close")
        return self.style.before + "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    async def send_head(self, head: bytes) -> bytes:
        """Send the head at once where its style says so; returns what is left to go out with the first line."""
        if not self.style.byte_gap_s:
            return head
        for index in range(len(head)):
            await self.send(head[index : index + 1])
            await self.pause(self.style.byte_gap_s)
        return b""

    async def reply(
        self, status: int, body: bytes, content_type: str = JSON, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """A complete answer with a length."""
        kind = (("Content-Type", content_type),) if content_type else ()
        head = self.head(status, (*kind, *headers, ("Content-Length", str(len(body)))))
        head = await self.send_head(head)
        await self.send(head if self.request.method == "HEAD" else head + body)

    async def json(self, value: object, status: int = 200) -> None:
        """A complete JSON answer."""
        await self.reply(status, encoded(value))

    async def error(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """An error before any output, worded as the route does."""
        kinds = {400: "invalid_request_error", 404: "not_found_error"}
        value = openai_error(text, kinds.get(status, "api_error")) if self.openai else {"error": text}
        await self.reply(status, encoded(value), headers=headers)

    def finish(self) -> None:
        """Send FIN after what was sent; nothing more can follow."""
        self.keep_alive = False
        self.connection.finish()

    def reset(self) -> None:
        """Cut the connection with RST."""
        self.keep_alive = False
        self.connection.reset()
