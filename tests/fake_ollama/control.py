"""The control plane on a port of its own, which no fault touches, and the canary that nothing must contact."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.fake_ollama.wire import Connection

if TYPE_CHECKING:
    from tests.fake_ollama.exchange import Record
    from tests.fake_ollama.server import FakeOllama


@dataclass(frozen=True)
class Hit:
    """One request that reached the canary; `at` is monotonic seconds."""

    method: str
    path: str
    headers: dict[str, str]
    at: float


class Canary:
    """A port that only remembers who came."""

    def __init__(self, hit: Callable[[], None]) -> None:
        self.hits: list[Hit] = []
        self._hit = hit

    async def serve(self, connection: Connection) -> None:
        """Note one request and answer 204."""
        request = await connection.request()
        if request is not None:
            self.hits.append(Hit(request.method, request.target, dict(request.headers), time.monotonic()))
            self._hit()
            await connection.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


async def serve_control(fake: FakeOllama, connection: Connection) -> None:
    """Answer requests to the control plane."""
    while (request := await connection.request()) is not None:
        body = request.parsed()
        try:
            status, answer = await _control(fake, request.method, request.path, body if isinstance(body, dict) else {})
        except (AssertionError, TypeError, ValueError) as error:
            status, answer = 409 if isinstance(error, AssertionError) else 400, {"error": str(error)}
        text = answer if isinstance(answer, str) else json.dumps(answer)
        data = text.encode()
        head = f"HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        await connection.send(head.encode() + data)


async def _control(fake: FakeOllama, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    match method, path:
        case "POST", "/state":
            fake.state(**body)
        case "POST", "/reset":
            fake.reset()
        case "POST", "/release":
            fake.release(str(body.get("key", "")), int(body.get("n", 1)))
        case "POST", "/expect":
            await _expect(fake, body)
        case "GET", "/log":
            return 200, "".join(json.dumps(as_json(record)) + "\n" for record in fake.log)
        case "GET", "/open":
            names = Counter(record.scenario for record in fake.log if record.ended is None)
            return 200, {"count": fake.open, "scenarios": names}
        case "GET", "/canary":
            return 200, {"url": fake.canary_url, "hits": [vars(hit) for hit in fake.canary_hits]}
        case _:
            return 404, {"error": "the control plane has no such route"}
    return 200, {"open": fake.open, "cut": fake.cut}


async def _expect(fake: FakeOllama, body: dict[str, Any]) -> None:
    """Wait for `arrived` requests, `closed` ones, or `idle`, at most `ms` milliseconds in each."""
    within_s = float(body.get("ms", 1000)) / 1000
    if "arrived" in body:
        await fake.arrived(int(body["arrived"]), within_s)
    if "closed" in body:
        await fake.closed(int(body["closed"]), within_s)
    if body.get("idle"):
        await fake.idle(within_s)


def as_json(record: Record) -> dict[str, Any]:
    """A log record as JSON; a body that is no JSON is left to its hash."""
    body = None if isinstance(record.body, bytes) else record.body
    return {**vars(record), "body": body}
