"""The two files: the keys, and what they have used."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import msgspec
from filelock import FileLock, Timeout
from msgspec import Struct

from arena.errors import ArenaError, BadRequest, Conflict, NotFound, SettingsError
from arena.keys.key import Key, Scope, Use

log = logging.getLogger(__name__)

FILE: Final = "keys.json"
PREFIX: Final = "arena-"
FILE_BYTES: Final = 4 * 1024 * 1024
LOCK_S: Final = 5.0
_RULES: Final = {
    "$.name": "its name must be up to 64 letters, digits and . _ -, starting with a letter or digit",
    "$.models": "a model, or a pattern of models, must be 1 to 255 characters of ASCII without blanks",
}
"""What a regular expression asks for, in words."""


class _KeyFile(Struct, forbid_unknown_fields=True):
    version: Literal[1]
    keys: tuple[Key, ...]


def usage_path(path: Path) -> Path:
    """Where the counters lie that belong to the file of keys at `path`."""
    return path.with_name(f"{path.stem}-usage{path.suffix}")


def read(path: Path) -> tuple[Key, ...]:
    """The keys kept at `path`; none if there is no such file. Raises SettingsError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise SettingsError(f"{path}: the file of keys is larger than {FILE_BYTES} bytes")
        keys = msgspec.json.decode(data, type=_KeyFile).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise SettingsError(f"{path}: the file of keys cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path}: the file of keys is damaged: {error}") from None
    if len({key.name for key in keys}) < len(keys) or len({key.digest for key in keys}) < len(keys):
        raise SettingsError(f"{path}: two keys have the same name or digest; remove one of them")
    return keys


def read_use(path: Path) -> dict[str, Use]:
    """The counters that belong to the file of keys at `path`, by digest. Counters that are damaged begin anew."""
    try:
        return msgspec.json.decode(usage_path(path).read_bytes(), type=dict[str, Use])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s cannot be read; the use of keys begins anew: %s", usage_path(path), error)
        return {}


def add(
    path: Path,
    name: str,
    *,
    scopes: tuple[Scope, ...],
    models: tuple[str, ...] | None = None,
    per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    tokens_per_day: int | None = None,
    concurrent: int | None = None,
) -> str:
    """Make a key and keep its digest in the file at `path`; the key itself is returned, and kept nowhere.

    Raises BadRequest for a wrong name or limit, Conflict for a name that is taken, SettingsError for a bad file.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    asked = {
        "name": name,
        # A slow hash makes guessable passwords dear to guess. Nobody guesses 256 random bits, so the fast one keeps
        # them as well, and costs each request a microsecond instead of a tenth of a second.
        "digest": sha256(secret.encode()).hexdigest(),
        "scopes": scopes,
        "models": models,
        "per_minute": per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "concurrent": concurrent,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        key = msgspec.convert(asked, Key)
    except msgspec.ValidationError as error:
        reason = next((rule for place, rule in _RULES.items() if place in str(error)), error)
        raise BadRequest(f"This key cannot be made: {reason}") from None

    def added(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(other.name == name for other in keys):
            raise Conflict(f"There is a key called {name} already; remove it first, or choose another name")
        return (*keys, key)

    _rewrite(path, added)
    return secret


def remove(path: Path, name: str) -> None:
    """Take a key out of the file at `path`; a running server knows within LOOK_S. Raises NotFound."""

    def removed(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise NotFound(f"No key is called {name}")
        return left

    _rewrite(path, removed)


def _rewrite(path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Replace the file in one step; two commands at a time take turns."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_S):
            data = msgspec.json.encode(_KeyFile(1, change(read(path))))
            replace(path, msgspec.json.format(data, indent=2) + b"\n", durable=True)
    except Timeout:
        raise Conflict(f"{path} is being changed by another command; try again") from None
    except OSError as error:
        raise ArenaError(f"{path} cannot be written: {error.strerror}") from None


def replace(path: Path, data: bytes, *, durable: bool) -> None:
    """Write `data` to a file of mode 600 that takes the place of `path` whole. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(handle)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
