"""A YAML document as plain values, with the line of every key, so that a complaint can say where.

Less than YAML allows: one document, no anchors (a few lines of them can stand for gigabytes), no tags, no key twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from arena.errors import SettingsError

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 12
MAX_NUMBER: Final = 30
TAG: Final = "tag:yaml.org,2002:"

Place = tuple[int | str, ...]
"""The way to a value: keys and positions from the top."""


class Problem(Struct, frozen=True):
    """What is wrong, and where: the line (None: unknown) and the key as one would say it ("" for the whole)."""

    line: int | None
    key: str
    reason: str


class Document(Struct, frozen=True):
    """What a file says: `data`, and the line on which each place begins, counted from 1."""

    name: str
    data: dict[str, Any]
    lines: dict[Place, int]

    def line(self, place: Place) -> int | None:
        """The line of `place`, or of the nearest place around it that is there."""
        return next((self.lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self.lines), None)

    def refuse(self, problems: Sequence[Problem]) -> SettingsError:
        """The error to raise for `problems`: the first of them in the file, and how many there are besides."""
        first, *others = sorted(problems, key=lambda problem: problem.line or 0)
        where = f"{self.name}:{first.line}" if first.line else self.name
        key = f"{first.key}: " if first.key else ""
        more = f" (and {len(others)} more error{'s' if len(others) > 1 else ''})" if others else ""
        return SettingsError(f"{where}: {key}{first.reason}{more}")


def read(path: Path) -> Document:
    """The document in the file at `path`. Raises SettingsError, in one line that names the file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SettingsError(f"{path}: the file is larger than {MAX_BYTES // 1024} KiB")
        return parse(content.decode("utf-8-sig"), str(path))
    except OSError as error:
        raise SettingsError(f"{path}: the file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: the file is not UTF-8 text") from None


def parse(text: str, name: str) -> Document:
    """The document in `text`, which errors call `name`. Raises SettingsError."""
    lines: dict[Place, int] = {}
    try:
        data = _Reader(text, lines).document()
    except _Wrong as wrong:
        raise SettingsError(f"{name}:{wrong.line}: {wrong.reason}") from None
    except yaml.MarkedYAMLError as error:
        at = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        glob = error.context in ("while scanning an alias", "while scanning an anchor")
        hint = "put a value that begins with * or & into quotes" if glob else error.problem or error.context
        raise SettingsError(f"{name}{at}: this is not YAML: {hint}") from None
    except yaml.YAMLError:
        raise SettingsError(f"{name}: this is not YAML: it holds characters that are not text") from None
    if data is None:
        raise SettingsError(f"{name}: the file is empty")
    if not isinstance(data, dict):
        raise SettingsError(f"{name}: the file must be a mapping of keys to values")
    return Document(name, data, lines)


def written(value: object) -> list[str]:
    """`value` as lines of YAML, in the order in which it holds its keys."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    return text.splitlines()


class _Wrong(Exception):
    def __init__(self, event: Event, reason: str) -> None:
        super().__init__(reason)
        self.line = _line(event)
        self.reason = reason


class _Reader:
    """Builds values straight from the parser's events; PyYAML's own loaders know no lines and take a key twice."""

    def __init__(self, text: str, lines: dict[Place, int]) -> None:
        self._loader = yaml.SafeLoader(text)
        self._lines = lines

    def document(self) -> Any:
        """The one document's value; None where there is none."""
        self._expect(StreamStartEvent)
        if self._at(StreamEndEvent):
            return None
        self._next()
        value = self._value(self._next(), ())
        self._next()
        if not self._at(StreamEndEvent):
            raise _Wrong(self._next(), "the file holds more than one document; keep one, without ---")
        return value

    def _value(self, event: Event, place: Place) -> Any:
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor is not None):
            raise _Wrong(event, "anchors and aliases (& and *) are not read here; write the value out, or quote it")
        self._lines.setdefault(place, _line(event))
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if isinstance(event, CollectionStartEvent) and event.tag is not None:
            raise _Wrong(event, "tags (!) are not read here")
        if len(place) >= MAX_DEPTH:
            raise _Wrong(event, "this is nested too deeply")
        return self._mapping(place) if isinstance(event, MappingStartEvent) else self._sequence(place)

    def _mapping(self, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self._until(MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.anchor is not None:
                raise _Wrong(event, "a key must be plain text")
            key = event.value
            if key in found:
                raise _Wrong(event, f"the key {key} is there twice, first in line {self._lines[*place, key]}")
            self._lines[*place, key] = _line(event)
            found[key] = self._value(self._next(), (*place, key))
        return found

    def _sequence(self, place: Place) -> list[Any]:
        found: list[Any] = []
        for event in self._until(SequenceEndEvent):
            found.append(self._value(event, (*place, len(found))))
        return found

    def _scalar(self, event: ScalarEvent) -> Any:
        tag: str = event.tag or self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        kind, text = tag.removeprefix(TAG), event.value
        if kind in ("str", "timestamp"):
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("true", "yes", "on")
        if kind in ("int", "float") and len(text) <= MAX_NUMBER:
            try:
                return int(text) if kind == "int" else float(text)
            except ValueError:
                pass
        raise _Wrong(event, "this is neither text nor a plain number; put it into quotes if it is text")

    def _until(self, end: type[Event]) -> Iterator[Event]:
        while not self._at(end):
            yield self._next()
        self._next()

    def _expect(self, kind: type[Event]) -> None:
        assert self._at(kind)
        self._next()

    def _at(self, kind: type[Event]) -> bool:
        return bool(self._loader.check_event(kind))

    def _next(self) -> Event:
        event: Event = self._loader.get_event()  # type: ignore[no-untyped-call]
        return event


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
