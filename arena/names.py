"""Model names: Ollama's grammar `[host[:port]/][namespace/]model[:tag]`, checked once for every door."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from arena.errors import BadRequest

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
PATTERN = rf"\A(?:{_PART}(?::[0-9]{{1,5}})?/)?(?:{_PART}/)?{_PART}(?::{_PART})?\Z"
"""`[host[:port]/][namespace/]model[:tag]` as a regular expression."""
_NAME = re.compile(PATTERN)
MAX_BYTES = 255


def checked(name: object, *, field: str = "model") -> str:
    """Return `name` if it is a legal model name; raise BadRequest naming `field` if it is not."""
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{field} must be a model name such as llama3.2:3b")
    if len(name.encode("utf-8", "replace")) > MAX_BYTES or not _NAME.match(name):
        raise BadRequest(
            f"{field} is not a valid model name: use letters, digits, '_', '.', '-', "
            "one optional namespace before '/' and one optional tag after ':'"
        )
    return name


def canonical(name: str) -> str:
    """The form in which two spellings of one model are equal: lower case, with its tag."""
    name = name.lower()
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def matches(name: str, globs: Iterable[str]) -> bool:
    """Does one of `globs` (`*`, `?`, `[a-z]`; any case) match `name`? `llama3.2` and `llama3.2:latest` are the same."""
    full = canonical(name)
    short = full.removesuffix(":latest")
    return any(fnmatchcase(short, glob) or fnmatchcase(full, glob) for glob in map(str.lower, globs))


def registry_host(name: str) -> str | None:
    """The registry host in `name`, if it names one (`host/namespace/model`, or a first part with a dot or port)."""
    parts = name.split("/")
    if len(parts) == 3 or (len(parts) == 2 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost")):
        return parts[0]
    return None


def check_registry(name: str, allowed: Iterable[str]) -> None:
    """Raises BadRequest for a model name that points to a registry host other than those `allowed`."""
    host = registry_host(name)
    if host is not None and host.lower() not in map(str.lower, allowed):
        raise BadRequest("model names a registry that is not allowed; ARENA_REGISTRY_HOSTS lists those that are")
