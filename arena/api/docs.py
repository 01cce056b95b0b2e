"""The API's description for people: one plain page, no scripts, no outside assets, from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from arena.api.operation import json_response

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 18%, Canvas); }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
h2 { margin: 2.5rem 0 .5rem; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: 0 1rem; }
summary { cursor: pointer; padding: .6rem 0; }
summary b, code, pre { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.method { display: inline-block; min-width: 3.5em; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
td:first-child { min-width: 8rem; }
"""


def routes(document: dict[str, Any]) -> list[Route]:
    """/openapi.json, and the same to read at /docs (and /redoc, where some look for it)."""
    page = "".join(_page(document))

    async def description(_: Request) -> Response:
        return json_response(document)

    async def read(_: Request) -> Response:
        return HTMLResponse(page)

    return [
        Route("/openapi.json", description),
        Route("/docs", read),
        Route("/redoc", read, name="redoc"),
    ]


def _page(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} API</h1><p>{_prose(info['description'])}</p>"
        f"<p>Version {escape(info['version'])}. For programs: <a href='openapi.json'>openapi.json</a>.</p>"
    )
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>"
        for path, methods in document["paths"].items():
            for method, row in methods.items():
                if tag["name"] in row["tags"]:
                    yield from _operation(document, method, path, row)
    yield "<h2>Shapes</h2>"
    for name, schema in document["components"]["schemas"].items():
        # the id lies inside, so that a link to it opens what is folded
        shape = f"<div id='{escape(name)}'>{_shape(schema)}</div>"
        yield f"<details><summary><b>{escape(name)}</b></summary>{shape}</details>"
    yield "</body></html>"


def _operation(document: dict[str, Any], method: str, path: str, row: dict[str, Any]) -> Iterator[str]:
    yield (
        f"<details><summary><b><span class='method'>{method.upper()}</span> {escape(path)}</b> "
        f"{escape(row['summary'])}</summary><p>{_prose(row['description'])}</p>"
    )
    if "requestBody" in row:
        yield "<h3>Request</h3>"
        yield from _content(row["requestBody"]["content"])
    answers = row["responses"]
    yield "<h3>Answer</h3>"
    yield from _content(answers["200"]["content"])
    yield "<h3>Errors</h3><table>"
    for status in answers:
        if status != "200":
            error = document["components"]["responses"][status]
            texts = "".join(
                f"<br><code>{_json(example['value'])}</code>"
                for example in error["content"]["application/json"]["examples"].values()
            )
            yield f"<tr><td><b>{status}</b></td><td>{escape(error['description'])}{texts}</td></tr>"
    yield "</table></details>"


def _content(content: dict[str, Any]) -> Iterator[str]:
    for media_type, body in content.items():
        yield f"<p><code>{escape(media_type)}</code>: {_kind(body['schema'])}</p>"
        compact = media_type != "application/json"
        for example in body.get("examples", {}).values():
            yield f"<pre>{_json(example['value'], compact=compact)}</pre>"


def _shape(schema: dict[str, Any]) -> str:
    if "properties" not in schema:
        return f"<p>{_kind(schema)}</p>"
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{'' if name in required else ' (optional)'}</td>"
        f"<td>{_kind(field)}</td><td>{_prose(field.get('description', ''))}</td></tr>"
        for name, field in schema["properties"].items()
    )
    return f"<p>{_prose(schema.get('description', ''))}</p><table>{rows}</table>"


def _kind(schema: dict[str, Any]) -> str:
    """What a value is, in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " or ".join(_kind(one) for one in schema[key])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"<code>{_json(value)}</code>" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    kinds = schema.get("type", "anything")
    return escape(kinds if isinstance(kinds, str) else " or ".join(kinds))


def _json(value: Any, *, compact: bool = True) -> str:
    text = msgspec.json.encode(value)
    return escape((text if compact else msgspec.json.format(text, indent=2)).decode(), quote=False)


def _prose(text: str) -> str:
    """Escaped text; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
