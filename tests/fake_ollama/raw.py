"""Asking the fake on a raw socket, so that its tests see every byte."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any

from tests.fake_ollama.server import FakeOllama
from tests.fake_ollama.wire import RST_ON_CLOSE

WITHIN_S = 30


@dataclass(frozen=True)
class Answer:
    """All bytes of one answer, and whether the connection ended with RST."""

    wire: bytes
    reset: bool = False

    @property
    def head(self) -> str:
        """Status line and headers."""
        return self.wire.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.head.split(" ")[1])

    @property
    def headers(self) -> dict[str, str]:
        """The headers, names in lower case."""
        return {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in self.head.split("\r\n")[1:])}

    @property
    def framed(self) -> bytes:
        """The body as it came, chunk sizes and all."""
        return self.wire.partition(b"\r\n\r\n")[2]

    @property
    def chunks(self) -> list[bytes]:
        """The chunks of a chunked body; raises ValueError where the framing is broken or unfinished."""
        rest, chunks = self.framed, list[bytes]()
        while True:
            size, _, rest = rest.partition(b"\r\n")
            count = int(size, 16)
            if rest[count : count + 2] != b"\r\n":
                raise ValueError("a chunk is cut")
            if not count:
                return chunks
            chunks.append(rest[:count])
            rest = rest[count + 2 :]

    @property
    def body(self) -> bytes:
        """The body without its framing."""
        return b"".join(self.chunks) if "chunked" in self.headers.get("transfer-encoding", "") else self.framed

    @property
    def lines(self) -> list[Any]:
        """The NDJSON lines, blank ones left out."""
        return [json.loads(line) for line in self.body.split(b"\n") if line.strip()]

    @property
    def text(self) -> str:
        """The text of a chat stream."""
        return "".join(line["message"]["content"] for line in self.lines)

    @property
    def json(self) -> Any:
        """The body as one JSON value."""
        return json.loads(self.body)


def request(method: str, path: str, body: object = None, *headers: str, close: bool = True) -> bytes:
    """The bytes of a request with a Host, a length, and `headers`."""
    payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(payload)}", *headers]
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def chat(model: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "hello there"}], **fields}


async def connect(fake: FakeOllama) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the fake."""
    return await asyncio.open_connection("127.0.0.1", fake.port, limit=2**28)


def depart(writer: asyncio.StreamWriter, how: str) -> None:
    """Close with FIN ("fin") or RST ("rst")."""
    if how == "rst":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
    writer.transport.abort()


async def exchange(port: int, data: bytes) -> Answer:
    """Send bytes, read until the other side closes."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**28)
    except ConnectionResetError:
        return Answer(b"", reset=True)
    writer.write(data)
    received = bytearray()
    try:
        async with asyncio.timeout(WITHIN_S):
            while piece := await reader.read(2**20):
                received += piece
    except ConnectionResetError:
        return Answer(bytes(received), reset=True)
    finally:
        writer.transport.abort()
    return Answer(bytes(received))


async def ask(fake: FakeOllama, method: str, path: str, body: object = None, *headers: str) -> Answer:
    """One request on a connection of its own."""
    return await exchange(fake.port, request(method, path, body, *headers))


async def ask_chat(fake: FakeOllama, model: str, **fields: Any) -> Answer:
    """One chat request on a connection of its own."""
    return await ask(fake, "POST", "/api/chat", chat(model, **fields))
