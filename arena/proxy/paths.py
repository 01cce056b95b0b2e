"""A host's own paths, which are nobody's business, taken out of what it tells."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

_ABSOLUTE = re.compile(r"""(?:file:|[/~\\]|[A-Za-z]:[\\/])""")
_LINE = re.compile(r"^([ \t]*(?:#[ \t]*)?(FROM|ADAPTER)[ \t]+)([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
"""Each line is read once, however long it is."""


def shortened(told: dict[str, Any], model: str = "") -> dict[str, Any]:
    """What a host told of a model, without paths: a file is called by its name, a blob by its `model`'s, if given."""
    changes: dict[str, Any] = {}
    details = told.get("details")
    if isinstance(details, dict) and _is_path(parent := details.get("parent_model")):
        changes["details"] = {**details, "parent_model": _file(parent)}
    if isinstance(modelfile := told.get("modelfile"), str):
        changes["modelfile"] = _LINE.sub(lambda line: _without_path(line, model), modelfile)
    return {**told, **changes} if changes else told


def _is_path(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _ABSOLUTE.match(value) is not None


def _without_path(line: re.Match[str], model: str) -> str:
    value = line[3].strip(" \t").strip("\"'")
    return line[1] + _named(value, line[2], model) if _is_path(value) else line[0]


def _named(path: str, command: str, model: str) -> str:
    file = _file(path)
    is_blob = re.fullmatch(r"sha256[-:][0-9a-f]+", file)
    return model if model and is_blob and command.upper() == "FROM" else file


def _file(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
