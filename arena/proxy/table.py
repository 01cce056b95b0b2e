"""Which path is what: one table for every carrier, for the guard's scopes and for the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from msgspec import Struct

from arena.errors import BadRequest, MethodNotAllowed, NoSuchEndpoint, NotFound
from arena.proxy import blobs, manage, merge, messages, tokens, usage
from arena.proxy.adapt import Adapt
from arena.proxy.dialect import Dialect, dialect_of
from arena.proxy.reply import Action, Known, Upload
from arena.proxy.shared import Remembered, Together
from arena.types import NATIVE

Scope = Literal["chat", "embed", "manage", "admin"]

MAX_PATH: Final = 1024
MAX_QUERY: Final = 2048

ANY: Final = None
OPENAI: Final = frozenset({"openai"})
ABSENT: Final = (
    "lmstudio", "lm-studio", "lm_studio", "vllm", "vllm-mlx", "sglang", "lmdeploy", "llamacpp", "lemonade", "litellm",
    "dmr", "omlx",
)  # fmt: skip
"""Kinds of servers that Olla knows by name. Here they are endpoints of type openai, under the common prefixes."""

STREAMING: Final = ("/api/generate", "/api/chat")
"""Ollama's own routes, which stream unless they are told not to."""
_ADAPTED: Final[Mapping[str, Adapt]] = {
    "/v1/messages": messages.adapted,
    "/v1/chat/completions": usage.adapted,
    "/v1/completions": usage.adapted,
}
_SEGMENT: Final = r"[A-Za-z0-9_~:@+,=-][A-Za-z0-9._~:@+,=-]*"
_CLEAN: Final = re.compile(rf"/(?:{_SEGMENT}(?:/{_SEGMENT})*/?)?")
_DOUBLED: Final = re.compile("(/olla/(?:ollama|openai|openai-compatible|proxy|anthropic))//+")
_MODEL_LIST: Final = re.compile(r"/(?:api/v1|api/v0|engines/v1|v1)/models")


class Route(Struct, frozen=True):
    """One way to answer. Without `known`, `action` or `upload` it goes to an endpoint of one of `kinds`, at `target`.

    `known` answers out of memory; where it is None, or returns None, `action` does, but while the server starts not
    before it is clear who answers. `adapt` may change how a request is handed on. `scope` is what a named key must have
    for it; None: any key will do. `streams`: does the answer come as a stream where the body does not say?
    """

    dialect: Dialect
    kinds: frozenset[str] | None = ANY
    scope: Scope | None = None
    target: bytes = b""
    known: Known | None = None
    action: Action | None = None
    upload: Upload | None = None
    adapt: Adapt | None = None
    streams: bool = False


class NotThisMethod(MethodNotAllowed):
    """The path is known for other methods: those in `allow`."""

    def __init__(self, message: str, allow: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allow = allow


Rows = Mapping[tuple[str, str], Route]


def _handed_on(path: str, scope: Scope, kinds: frozenset[str] | None) -> Route:
    target, streams = path.encode("ascii"), path in STREAMING
    return Route(dialect_of(path), kinds, scope, target=target, adapt=_ADAPTED.get(path), streams=streams)


def _native() -> dict[tuple[str, str], Route]:
    """Ollama's own routes, relative to a prefix."""
    alive = Route("native", NATIVE, known=merge.alive)
    version = Remembered(merge.version)
    rows: dict[tuple[str, str], Route] = {
        ("GET", "/"): alive,
        ("GET", ""): alive,
        ("GET", "/api/tags"): Route("native", NATIVE, action=Together(merge.tags).asked),
        ("GET", "/api/ps"): Route("native", NATIVE, action=Together(merge.ps).asked),
        ("GET", "/api/version"): Route("native", NATIVE, known=version.known, action=version.asked),
        ("POST", "/api/show"): Route("native", NATIVE, action=merge.show),
    }
    for path in STREAMING:
        rows["POST", path] = _handed_on(path, "chat", NATIVE)
    for path in ("/api/embed", "/api/embeddings"):
        rows["POST", path] = _handed_on(path, "embed", NATIVE)
    for method, path, action in (
        ("POST", "/api/pull", manage.pull),
        ("POST", "/api/push", manage.push),
        ("POST", "/api/create", manage.create),
        ("POST", "/api/copy", manage.copy),
        ("DELETE", "/api/delete", manage.delete),
        ("POST", "/api/delete", manage.delete),
    ):
        rows[method, path] = Route("native", NATIVE, "manage", action=action)
    return rows


def _v1(kinds: frozenset[str] | None) -> dict[tuple[str, str], Route]:
    """The routes of OpenAI's and Anthropic's clients, relative to a prefix, on hosts of `kinds`."""
    rows = {("GET", "/v1/models"): Route("openai", kinds, action=Together(merge.v1_models).asked)}
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"):
        rows["POST", path] = _handed_on(path, "chat", kinds)
    rows["POST", "/v1/embeddings"] = _handed_on("/v1/embeddings", "embed", kinds)
    rows["POST", tokens.PATH] = Route("anthropic", kinds, "chat", action=tokens.count_tokens)
    return rows


def _openai_only() -> dict[tuple[str, str], Route]:
    """What OpenAI-compatible servers have beyond the standard."""
    embedding = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/score", "/score", "/pooling")
    other = (
        "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech", "/v1/images/generations",
        "/v1/moderations", "/tokenize", "/detokenize", "/infill",
    )  # fmt: skip
    return {
        **{("POST", path): _handed_on(path, "embed", OPENAI) for path in embedding},
        **{("POST", path): _handed_on(path, "chat", OPENAI) for path in other},
    }


class Table:
    """All routes. `more` are further ones that we answer ourselves, with whole paths; /* at an end is any rest."""

    def __init__(self, more: Rows | None = None) -> None:
        rows: dict[tuple[str, str], Route] = {}
        native = _native()
        for prefix, part in (
            ("/olla/ollama", {**native, **_v1(NATIVE)}),
            ("/olla/openai", {**_openai_only(), **_v1(ANY)}),
            ("/olla/openai-compatible", {**_openai_only(), **_v1(ANY)}),
            ("/olla/proxy", {**_openai_only(), **native, **_v1(ANY)}),
        ):
            rows |= {(method, prefix + path): route for (method, path), route in part.items()}
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            rows["POST", f"/olla/anthropic{path}"] = rows["POST", f"/olla/proxy{path}"]
        rows["GET", "/olla/anthropic/v1/models"] = Route("anthropic", action=Together(merge.anthropic_models).asked)
        rows |= {row: route for row, route in (more or {}).items() if not row[1].endswith("/*")}
        self._rows: Rows = rows
        self._methods: dict[str, tuple[str, ...]] = {}
        for method, path in self._rows:
            also = ("HEAD",) if method == "GET" else ()
            self._methods[path] = (*self._methods.get(path, ()), method, *also)
        one, anthropic_one = Together(merge.v1_model).asked, Together(merge.anthropic_model).asked
        self._one_model = {
            "/olla/ollama/v1/models/": Route("openai", NATIVE, action=one),
            "/olla/openai/v1/models/": Route("openai", action=one),
            "/olla/openai-compatible/v1/models/": Route("openai", action=one),
            "/olla/proxy/v1/models/": Route("openai", action=one),
            "/olla/anthropic/v1/models/": Route("anthropic", action=anthropic_one),
            **{path[:-1]: route for (_, path), route in (more or {}).items() if path.endswith("/*")},
        }
        self._blob = {
            "HEAD": Route("native", NATIVE, "manage", action=blobs.has_blob),
            "POST": Route("native", NATIVE, "manage", upload=blobs.put_blob),
        }

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every (method, path) that is written out."""
        return iter(self._rows)

    def get(self, method: str, path: str) -> Route | None:
        """The route of a path that is written out, or None."""
        return self._rows.get((method, path))

    def find(self, method: str, path: str) -> Route:
        """The route. Raises NotFound, NotThisMethod, BadRequest, or NoSuchEndpoint where a kind of server is absent."""
        path = tidied(path)
        route = self._rows.get((method, path)) or (self._rows.get(("GET", path)) if method == "HEAD" else None)
        if route is not None:
            return route
        check_path(path)
        if path in self._methods:
            raise NotThisMethod("Method not allowed", self._methods[path])
        if path.startswith(("/olla/ollama/api/blobs/", "/olla/proxy/api/blobs/")):
            return _of(self._blob, method)
        for prefix, listed in self._one_model.items():
            if path.startswith(prefix):
                return _of({"GET": listed, "HEAD": listed}, method)
        return _absent(path)


def tidied(path: str) -> str:
    """`path` with one slash behind a prefix where a client has put more, having been given a base URL with one."""
    found = _DOUBLED.match(path)
    return path if found is None else f"{found[1]}/{path[found.end() :]}"


def check_path(path: str, query: bytes = b"") -> None:
    """Raises BadRequest for a path that two servers could read in two ways, or a query that is none."""
    if len(path) > MAX_PATH or not _CLEAN.fullmatch(path):
        raise BadRequest("The request path is not valid")
    if len(query) > MAX_QUERY or any(byte < 0x21 or byte > 0x7E for byte in query):
        raise BadRequest("The query of the request is not valid")


def _of(routes: Mapping[str, Route], method: str) -> Route:
    if method not in routes:
        raise NotThisMethod("Method not allowed", tuple(routes))
    return routes[method]


def _absent(path: str) -> Route:
    """What is left: the place of a kind of server that no fleet of ours has, or nothing at all."""
    provider = f"{path}//".split("/")[2]
    if path.startswith("/olla/") and provider in ABSENT:
        inner = path.removeprefix(f"/olla/{provider}")
        if _MODEL_LIST.fullmatch(inner):
            return Route("openai", known=merge.no_models)
        raise NoSuchEndpoint(f"There is no endpoint of the type {provider}; OpenAI-compatible ones are at /olla/openai")
    raise NotFound("Resource not found")
