"""One row of the API: where it is, what answers, and what its description says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

Tag = Literal["Compare", "Kept", "Battles", "Models", "System"]
Endpoint = Callable[[Request], Awaitable[Response]] | ASGIApp


class Query(Struct, frozen=True):
    """A parameter after the question mark; none is ever required."""

    name: str
    type: Literal["string", "boolean", "integer"]
    description: str


class Operation(Struct, frozen=True):
    """A route under /api with its documentation; `path` is relative to /api.

    `body`, `answer` name schemas; `errors` lists the statuses this row can answer besides those of every row.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    endpoint: Endpoint
    tag: Tag
    summary: str
    description: str
    answer: str
    body: str | None = None
    body_type: str = "application/json"
    errors: tuple[int, ...] = ()
    media_type: str = "application/json"
    examples: tuple[tuple[str, Any], ...] = ()
    answer_examples: tuple[tuple[str, Any], ...] = ()
    query: tuple[Query, ...] = ()


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as a JSON answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
