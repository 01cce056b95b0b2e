"""Reading a request's body: JSON objects only; every other one is a plain 400 or 415.

The guard has already refused what is too large or compressed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.types import Receive, Scope

from arena.errors import BadRequest, UnsupportedMedia


class ClientLeft(Exception):
    """The client hung up before its answer was ready: nobody is there to be answered."""


async def json_object(scope: Scope, receive: Receive) -> dict[str, Any]:
    """The request's JSON object. Raises UnsupportedMedia, BadRequest or ClientLeft."""
    check_type(scope["headers"])
    return decoded(await read(receive))


def check_type(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises UnsupportedMedia unless the body is said to be JSON."""
    content_type = b""
    for name, value in headers:
        if name == b"content-type":
            content_type = value
            break
    if content_type != b"application/json" and content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise UnsupportedMedia("Content-Type must be application/json")


def decoded(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises BadRequest."""
    try:
        data = msgspec.json.decode(body)  # refuses NaN, infinities and halves of characters, which json lets pass
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The request body is not valid JSON (UTF-8, no NaN or Infinity, not too deep)") from None
    if not isinstance(data, dict):
        raise BadRequest('The request body must be a JSON object such as {"model": "llama3.2:3b"}')
    return data


async def read(receive: Receive) -> bytes:
    """The whole body. Raises ClientLeft."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)
