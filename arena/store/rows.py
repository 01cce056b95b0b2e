"""The rows of a store as they are copied: any may be damaged, so each is checked before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, ForeignKey, Integer, Table, Text, exc, exists, select, type_coerce

from arena.errors import BadRequest
from arena.store import secret
from arena.store.documents import Document, Snapshot
from arena.store.tables import Json, battles, configurations, documents, facts, sides, snapshots, votes
from arena.types import Configuration, Vote

ROWS: Final = 1000
"""Rows copied at a time."""
LAST: Final = 2**31 - 1
"""The highest number that a column of either database takes."""
REPLACEMENT: Final = "\ufffd"
"""What stands for NUL, which PostgreSQL takes in no text."""


class _Battle(Struct):
    id: str
    at: str
    mode: str
    prompts: list[str]


class _Side(Struct):
    battle_id: str
    side: str
    configuration_id: str
    answers: list[str]
    metrics: list[dict[str, Any]]
    manifests: list[dict[str, Any]]


class _Fact(Struct):
    name: str
    value: str


_TYPES: Final[dict[Table, type[Struct]]] = {
    battles: _Battle,
    configurations: Configuration,
    documents: Document,
    facts: _Fact,
    sides: _Side,
    snapshots: Snapshot,
    votes: Vote,
}
_NUMBERS: Final = {table: [each.name for each in table.columns if isinstance(each.type, Integer)] for table in _TYPES}

Told = Callable[[str], None]
"""Hears of each row that is left out: its table, its key, and what is wrong with it."""


class Damaged(BadRequest):
    """What is kept, or was, cannot be read any more; the message names the table and the row."""


class Rows:
    """The rows of a store, to be read table by table, what others refer to first.

    One that is damaged ends it, unless somebody is told: then it is `left_out`, with what refers to it.
    """

    def __init__(self, connection: Connection, left_out: Told | None = None) -> None:
        self._connection, self._left_out = connection, left_out
        self._gone: set[tuple[Table, Any]] = set()

    def of(self, table: Table) -> Iterator[list[dict[str, Any]]]:
        """All rows of a table, ROWS at a time.

        Raises ValueError, which names the table, and the row where that could be read.
        """
        names = [column.name for column in table.columns if isinstance(column.type, Json)]
        columns = [type_coerce(each, Text).label(each.name) if each.name in names else each for each in table.columns]
        try:
            with _any_bytes(self._connection):
                self._gone |= {key for each in table.foreign_keys for key in self._dangling(each)}
                found = self._connection.execution_options(yield_per=ROWS).execute(select(*columns))
                keys = [f"{each.name}" for each in columns]  # plain texts, where SQLAlchemy has a class of its own
                for part in found.partitions(ROWS):
                    rows = (dict(zip(keys, row, strict=True)) for row in part)
                    yield [kept for row in rows if (kept := self._kept(table, row, names)) is not None]
        except exc.DBAPIError as error:
            raise ValueError(f"{table.name}: {error.orig}") from error

    def _dangling(self, reference: ForeignKey) -> Iterator[tuple[Table, Any]]:
        """What rows belong to by their keys, and is not there at all: SQLite does not see it while it only reads."""
        there, named = reference.column, reference.parent
        for (key,) in self._connection.execute(select(named).where(~exists().where(there == named)).distinct()):
            yield there.table, key

    def _kept(self, table: Table, row: dict[str, Any], json: list[str]) -> dict[str, Any] | None:
        """The row with its JSON read; None for one that is left out."""
        key = next(iter(table.primary_key)).name
        try:
            self._check_references(table, row)
            return _checked(table, row, json)
        except secret.BadSecret:  # without it a store's pseudonyms are others
            raise
        except ValueError as error:
            told = f"{table.name}, {key} {row[key]!a:.80}: {error}"
            if self._left_out is None:
                raise ValueError(told) from None
            self._left_out(told)
            self._gone.add((table, row[key]))
            return None

    def _check_references(self, table: Table, row: dict[str, Any]) -> None:
        for each in table.foreign_keys:
            if (each.column.table, row[each.parent.name]) in self._gone:
                raise ValueError(f"the row of {each.column.table.name} that it belongs to is not there")


@contextmanager
def _any_bytes(connection: Connection) -> Iterator[None]:
    """Texts of SQLite that are not UTF-8 do not end the reading: the row is told by its check."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "sqlite":
        yield
        return
    driver.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = str


def _checked(table: Table, row: dict[str, Any], json: list[str]) -> dict[str, Any]:
    """The row, its texts without NUL. Raises ValueError."""
    texts = "".join(value for value in row.values() if isinstance(value, str))
    if not texts.isascii():
        _check_texts(row)
    for name in json:
        row[name] = None if row[name] is None else msgspec.json.decode(row[name])
    msgspec.convert(row, _TYPES[table])
    _check_values(row, _NUMBERS[table])
    if row.get("name") == "salt":
        secret.read(row["value"])
    if "\0" in texts:
        row |= {name: value.replace("\0", REPLACEMENT) for name, value in row.items() if isinstance(value, str)}
    return row


def _check_texts(row: dict[str, Any]) -> None:
    """Raises ValueError for a text with bytes that are none."""
    for name, value in row.items():
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{name} is no text in UTF-8") from None


def _check_values(row: dict[str, Any], numbers: list[str]) -> None:
    """Raises ValueError for what has its type, and cannot be."""
    if "at" in row:
        datetime.fromisoformat(row["at"])
    for name in numbers:
        least = int(name == "number")
        if not least <= row[name] <= LAST:
            raise ValueError(f"{name} must be {least} to {LAST}")
