"""The OpenAPI document, built from the rows that also make the routes: what is described is what is served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args

from arena import __version__
from arena.api import samples
from arena.api.operation import Operation, Tag
from arena.api.schemas import reference, schemas
from arena.settings import Settings

_ABOUT = (
    "Compare language models side by side. Every error, on every route, is "
    '`{"error": "...", "code": "..."}`, sometimes with `details`: the words of the program that failed. On any route '
    "405 means that it has no such method, 408 that the request took too long to arrive, 414 that its address is too "
    "long, and 431 that its head is too large."
)
_MEANINGS = {
    400: "The request is wrong; `error` names the key and the remedy.",
    401: "No token, or a wrong one (only where WEB_CHAT_TOKEN is set).",
    403: "Not from this host or origin, or not on this server.",
    404: "No such thing.",
    405: "Not with this method.",
    409: "It is in another state already, or not yet; `code` says which.",
    413: "The body is too large.",
    415: "The body is not JSON, or is compressed.",
    429: "A limit per caller was reached; `Retry-After` says when to try again.",
    500: "An Ollama server failed (its own words are in `details`), or the arena did.",
    503: "Too busy, or stopping; try again.",
}
_EVERYWHERE = (400, 403, 429, 503)
_PUBLIC = "/health"
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


def document(operations: Sequence[Operation], settings: Settings) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `operations`."""
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(f"/api{operation.path}", {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ollama Arena", "version": __version__, "description": _ABOUT},
        "servers": [{"url": settings.root_path or "/"}],
        "tags": [{"name": name} for name in get_args(Tag)],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": {str(status): _error(status) for status in _MEANINGS},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "WEB_CHAT_TOKEN"}},
        },
        "security": [{"token": []}, {}] if settings.token is None else [{"token": []}],
    }


def _described(operation: Operation) -> dict[str, Any]:
    path_names = _PATH_PARAMETER.findall(operation.path)
    statuses = {*operation.errors, *_EVERYWHERE} | (set() if operation.path == _PUBLIC else {401})
    row: dict[str, Any] = {
        "operationId": f"{operation.method}_{operation.path}".lower().translate(str.maketrans("/", "_", "{}")),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "responses": {
            "200": {
                "description": "Done.",
                "content": _content(operation.media_type, operation.answer, operation.answer_examples),
            },
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)},
        },
    }
    if operation.body is not None:
        content = _content(operation.body_type, operation.body, operation.examples)
        row["requestBody"] = {"required": True, "content": content}
    parameters = [
        *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path_names),
        *(
            {"name": each.name, "in": "query", "description": each.description, "schema": {"type": each.type}}
            for each in operation.query
        ),
    ]
    if parameters:
        row["parameters"] = parameters
    if operation.path == _PUBLIC:
        row["security"] = []
    return row


def _error(status: int) -> dict[str, Any]:
    return {
        "description": _MEANINGS[status],
        "content": _content("application/json", "Error", samples.ERRORS[status]),
    }


def _content(media_type: str, schema: str, examples: samples.Examples) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": reference(schema)}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples}
    return {media_type: content}
