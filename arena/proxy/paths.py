"""A host's own paths, which are nobody's business, taken out of what it tells."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

_PATH = r"""(?:file:|[/~\\]|[A-Za-z]:[\\/])"""
_ABSOLUTE = re.compile(_PATH)
_LINE = re.compile(rf"""^([ \t]*#?[ \t]*(FROM|ADAPTER)[ \t]+)(["']?)({_PATH}[^\r\n]*?)\3[ \t]*$""", re.I | re.M)


def shortened(told: dict[str, Any], model: str = "") -> dict[str, Any]:
    """What a host told of a model, without paths: a file is called by its name, a blob by its `model`'s, if given."""
    changes: dict[str, Any] = {}
    details = told.get("details")
    if isinstance(details, dict) and _is_path(parent := details.get("parent_model")):
        changes["details"] = {**details, "parent_model": _file(parent)}
    if isinstance(modelfile := told.get("modelfile"), str):
        changes["modelfile"] = _LINE.sub(lambda line: line[1] + _named(line[4], line[2], model), modelfile)
    return {**told, **changes} if changes else told


def _is_path(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _ABSOLUTE.match(value) is not None


def _named(path: str, command: str, model: str) -> str:
    file = _file(path)
    is_blob = re.fullmatch(r"sha256[-:][0-9a-f]+", file)
    return model if model and is_blob and command.upper() == "FROM" else file


def _file(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
