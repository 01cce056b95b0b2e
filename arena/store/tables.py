"""The schema as it is now; `migrations/` leads every older store to it. docs/store.md explains the columns."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

VERDICTS = "verdict IN ('a', 'b', 'tie', 'both_bad')"


class Json(TypeDecorator[Any]):
    """A value kept as JSON text, the same in every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> str | None:
        """From a value to its text."""
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        """From the text to a value."""
        return None if value is None else msgspec.json.decode(value)


metadata = MetaData()

facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

configurations = Table(
    "configurations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("digest", Text),
    Column("options", Json, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("label", Text, nullable=False),
)

battles = Table(
    "battles",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("prompts", Json, nullable=False),
)

sides = Table(
    "sides",
    metadata,
    Column("battle_id", Text, ForeignKey("battles.id", ondelete="CASCADE"), primary_key=True),
    Column("side", Text, primary_key=True),
    Column("configuration_id", Text, ForeignKey("configurations.id"), nullable=False),
    Column("answers", Json, nullable=False),
    Column("metrics", Json, nullable=False),
    Column("manifests", Json, nullable=False),
)

votes = Table(
    "votes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("battle_id", Text, nullable=False),
    Column("voter", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("configuration_a", Text, nullable=False),
    Column("configuration_b", Text, nullable=False),
    Column("model_a", Text, nullable=False),
    Column("model_b", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("blind", Boolean(create_constraint=False), nullable=False),
    Column("rated", Boolean(create_constraint=False), nullable=False),
    Column("category", Text, nullable=False),
    Column("tags", Json, nullable=False),
    Column("turns", Integer, nullable=False),
    Column("style_a", Json),
    Column("style_b", Json),
    Column("pair", Text, nullable=False, server_default="ab"),
    Column("sides", Integer, nullable=False, server_default="2"),
    Column("prompt", Text, nullable=False, server_default=""),
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("dwell_s", Float),
    Column("source", Text, nullable=False, server_default=""),
    UniqueConstraint("battle_id", "voter", "pair", name="one_vote_per_pair_and_voter"),
    CheckConstraint(VERDICTS, name="a_known_verdict"),
    Index("votes_of_a_voter", "voter", "at"),
    Index("votes_on_a_prompt", "voter", "prompt"),
    Index("votes_from_an_address", "address", "at"),
    sqlite_autoincrement=True,
)

documents = Table(
    "documents",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("at", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("content", Json, nullable=False),
    Column("address", Text, nullable=False, server_default=""),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Text, nullable=False),
    Column("last_vote", Integer, nullable=False),
    Column("content", Json, nullable=False),
    sqlite_autoincrement=True,
)
