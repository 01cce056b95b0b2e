"""An Olla configuration, translated: a fleet file, with a comment for every setting that has no place in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from arena.errors import SettingsError
from arena.fleet.document import Document, Place, Problem, written
from arena.fleet.schema import seconds

STRATEGIES: Final = {
    "least-connections": "least-outstanding",
    "priority": "priority",
    "round-robin": "round-robin",
}
ENDPOINTS: Final = ("discovery", "static", "endpoints")
COPIED: Final = ("url", "name", "priority", "check_interval", "check_timeout")
OPENAI: Final = "openai"
OPEN: Final = ("type", "header")
"""What may be shown of credentials, beside the names of files."""
UNITS_BYTES: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SECRET_HEADER = re.compile("auth|cookie|key|secret|token", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([bkmg]?)(?:i?b)?", re.IGNORECASE)

DEAD: Final = "Olla reads it and does not use it"
GONE: Final = "no counterpart: "
# A key, or the beginning of one, and why it is not in the fleet file. The first that fits is taken.
REASONS: Final = (
    ("server.request_logging", DEAD),
    ("server.rate_limits.per_endpoint", DEAD),
    ("server.rate_limits.", f"{GONE}limits are those of named keys (arena keys add --per-minute)"),
    ("server.cors.", f"{GONE}the origins of ARENA_CORS_ORIGINS may do what the API allows"),
    ("server.request_limits.max_header_size", f"{GONE}heads are limited to 32 KiB"),
    ("server.", f"{GONE}the server has limits of its own, made for streams"),
    ("proxy.engine", f"{GONE}there is one engine"),
    ("proxy.profile_filter", f"{GONE}name the endpoints you want"),
    ("proxy.profile", DEAD),
    ("proxy.retry.", f"{DEAD}; here retry_on says after which statuses another endpoint is asked"),
    ("proxy.max_retries", f"{DEAD}; here every endpoint that could serve a request is tried once"),
    ("proxy.retry_backoff", DEAD),
    ("proxy.sticky_sessions.", f"{GONE}a conversation is known by its header or its first messages"),
    ("proxy.tls_handshake_timeout", f"{GONE}it is part of the time to connect"),
    ("proxy.connection_keep_alive", f"{GONE}connections are kept while they are used"),
    ("proxy.stream_buffer_size", f"{GONE}bytes are passed on as they come"),
    ("discovery.type", f"{GONE}endpoints are those of the file"),
    ("discovery.refresh_interval", DEAD),
    ("discovery.health_check.", f"{DEAD}; here each endpoint has check_interval and check_timeout"),
    ("discovery.model_discovery.retry_", DEAD),
    ("discovery.model_discovery.", f"{GONE}models are looked up with each check, and when one is missed"),
    ("model_registry.", f"{GONE}a model is found on every endpoint that has it, and nowhere else"),
    ("translators.", f"{GONE}Anthropic's messages are passed to servers that know them"),
    ("dashboard.", f"{GONE}the page has a Fleet tab, for who may see the page"),
    ("logging.", f"{GONE}the log goes to standard error"),
)
ENDPOINT_REASONS: Final = {
    "health_check_url": f"{GONE}an endpoint is asked for its models",
    "model_url": f"{GONE}an endpoint is asked for its models where its type has them",
    "preserve_path": f"{GONE}the path of url is kept always",
}


def fleet_file(olla: Document) -> str:
    """The fleet file that does what the Olla configuration `olla` did. Secrets written in it become variables.

    Raises SettingsError where a part of it cannot be understood.
    """
    return "\n".join(_Translation(olla).lines()) + "\n"


class _Translation:
    """One configuration on its way; `_taken` are the places that have found theirs."""

    def __init__(self, olla: Document) -> None:
        self._olla = olla
        self._taken: list[Place] = []

    def lines(self) -> list[str]:
        fleet = self._fleet()
        endpoints = [line for number, body in self._listed_endpoints() for line in self._endpoint(number, body)]
        elsewhere = [*self._elsewhere()]
        lines = [f"# Translated from {self._olla.name}. Look at what it finds: python -m arena fleet check", ""]
        if fleet:
            lines += [*written(fleet), ""]
        if endpoints:
            lines += ["endpoints:", *endpoints]
        if elsewhere:
            lines += ["", "# What is not said here:", *(_comment(line) for line in elsewhere)]
        return lines

    def _take(self, *place: str) -> Any:
        """The value at `place`, or None; it has now found its place."""
        value: Any = self._olla.data
        for part in place:
            value = value.get(part) if isinstance(value, dict) else None
        self._taken.append(place)
        return value

    def _wrong(self, place: Place, reason: str) -> SettingsError:
        key = ".".join(map(str, place))
        return self._olla.refuse([Problem(self._olla.line(place), key, reason)])

    def _fleet(self) -> dict[str, Any]:
        fleet: dict[str, Any] = {}
        balancer = self._take("proxy", "load_balancer")
        if balancer is not None:
            if str(balancer) not in STRATEGIES:
                raise self._wrong(("proxy", "load_balancer"), f"must be one of {', '.join(STRATEGIES)}")
            fleet["strategy"] = STRATEGIES[str(balancer)]
        sticky = {
            ours: value
            for ours, theirs in (
                ("enabled", "enabled"),
                ("idle_ttl", "idle_ttl_seconds"),
                ("max_sessions", "max_sessions"),
            )
            if (value := self._take("proxy", "sticky_sessions", theirs)) is not None
        }
        aliases = self._take("model_aliases")
        return fleet | ({"sticky": sticky} if sticky else {}) | ({"aliases": aliases} if aliases else {})

    def _listed_endpoints(self) -> Iterator[tuple[int, dict[str, Any]]]:
        endpoints = self._take(*ENDPOINTS)
        if not isinstance(endpoints, list | None):
            raise self._wrong(ENDPOINTS, "must be a list")
        for number, body in enumerate(endpoints or ()):
            if not isinstance(body, dict):
                raise self._wrong((*ENDPOINTS, number), "must be a mapping")
            yield number, body

    def _endpoint(self, number: int, body: dict[str, Any]) -> Iterator[str]:
        """The lines of one endpoint, and as comments what they leave out."""
        if "@" in str(body.get("url")):
            raise self._wrong((*ENDPOINTS, number, "url"), "must not hold a user name or password; use auth")
        notes: list[str] = []
        name = str(body.get("name") or f"endpoint {number + 1}")
        fleet = {key: body[key] for key in COPIED if body.get(key) is not None}
        kind = str(body.get("type") or "auto")
        if kind == "auto":
            notes.append("type was auto, taken for ollama: python -m arena fleet check tells")
        elif kind != "ollama":
            fleet["type"] = OPENAI
        models, headers, auth = (self._inside(number, body, key) for key in ("model_filter", "headers", "auth"))
        fleet |= {key: models[key] for key in ("include", "exclude") if models.get(key)}
        if headers:
            fleet["headers"] = {
                header: self._hidden(name, header, value, notes) if _SECRET_HEADER.search(header) else str(value)
                for header, value in headers.items()
            }
        if auth:
            fleet["auth"] = {
                key: value if key in OPEN or key.endswith("_file") else self._hidden(name, key, value, notes)
                for key, value in auth.items()
            }
        known = {*COPIED, "type", "model_filter", "headers", "auth"}
        for key in body.keys() - known:
            notes.append(f"{key}: {ENDPOINT_REASONS.get(key, 'Olla has no such key')}")
        yield from (f"  {line}" for line in written([fleet]))
        yield from (f"    {_comment(note)}" for note in sorted(notes))

    def _inside(self, number: int, body: dict[str, Any], key: str) -> dict[str, Any]:
        value = body.get(key)
        if not isinstance(value, dict | None):
            raise self._wrong((*ENDPOINTS, number, key), "must be a mapping")
        return value or {}

    @staticmethod
    def _hidden(endpoint: str, key: str, value: object, notes: list[str]) -> str:
        """`value` if it stands for a secret, else a variable in place of the secret."""
        text = str(value)
        if "${" in text:
            return text
        variable = re.sub(r"\W+", "_", f"{endpoint}_{key}").upper().strip("_")
        variable = variable if variable[0].isalpha() else f"_{variable}"
        notes.append(f"set the variable {variable} to the {key} that is written in the Olla file")
        return f"${{{variable}}}"

    def _elsewhere(self) -> Iterator[str]:
        """A line for each setting that has not found a place in the file."""
        for place, value in _leaves(self._olla.data):
            if any(place[: len(taken)] == taken for taken in self._taken):
                continue
            key = ".".join(map(str, place))
            if key in VARIABLES:
                variable, said = VARIABLES[key]
                yield f"{key}: set {variable}={said(value)}"
            else:
                yield f"{key}: {_reason(key)}"


def _comment(text: str) -> str:
    """One line, whatever a value may hold."""
    return f"# {' '.join(text.split())}"


def _reason(key: str) -> str:
    found = (reason for start, reason in REASONS if key == start or (start[-1] in "._" and key.startswith(start)))
    return next(found, "Olla has no such key")


def _leaves(value: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Every setting with its place; a list is one setting."""
    if isinstance(value, dict) and value:
        for key, inside in value.items():
            yield from _leaves(inside, (*place, key))
    else:
        yield place, value


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _in_seconds(value: object) -> str:
    try:
        return f"{seconds(value):.12g}" if isinstance(value, int | float | str) else _plain(value)
    except ValueError:
        return _plain(value)


def _in_bytes(value: object) -> str:
    found = _SIZE.fullmatch(_plain(value))
    return str(int(float(found[1]) * UNITS_BYTES[found[2].lower()])) if found else _plain(value)


def _format(value: object) -> str:
    return "json" if value == "json" else "console"


def _level(value: object) -> str:
    return {"warn": "warning", "fatal": "error", "panic": "error"}.get(_plain(value), _plain(value))


# Settings of Olla that are variables here, with how their values are written.
VARIABLES: Final[dict[str, tuple[str, Callable[[object], str]]]] = {
    "server.host": ("ARENA_HOST", _plain),
    "server.port": ("ARENA_PORT", _plain),
    "server.shutdown_timeout": ("ARENA_DRAIN", _in_seconds),
    "server.request_limits.max_body_size": ("ARENA_MAX_PROXY_BODY_BYTES", _in_bytes),
    "server.cors.allowed_origins": ("ARENA_CORS_ORIGINS", _plain),
    "server.rate_limits.trusted_proxy_cidrs": ("ARENA_TRUSTED_PROXIES", _plain),
    "proxy.connection_timeout": ("ARENA_CONNECT_TIMEOUT", _in_seconds),
    "proxy.response_header_timeout": ("ARENA_FIRST_BYTE_TIMEOUT", _in_seconds),
    "proxy.read_timeout": ("ARENA_IDLE_TIMEOUT", _in_seconds),
    "proxy.response_timeout": ("ARENA_TOTAL_TIMEOUT", _in_seconds),
    "logging.level": ("ARENA_LOG_LEVEL", _level),
    "logging.format": ("ARENA_LOG_FORMAT", _format),
}
