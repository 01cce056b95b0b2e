"""Votes as the ratings read them: many at once, as texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, Column, ColumnElement, Connection, Text, bindparam, cast, func, select, type_coerce

from arena.store.tables import votes
from arena.types import VotePage

PAGE: Final = 4000  # numbers of votes, told in about a megabyte; fewer cost more questions


class CellFilter(Struct, frozen=True):
    """Which votes to tell, and by whom they are on. None takes all.

    `since` and `until` are moments (ISO 8601, UTC; until is not included); `after` and `upto` are numbers of votes,
    for reading what is new (upto is included).
    """

    blind: bool | None = None
    rated: bool | None = True
    category: str | None = None
    tag: str | None = None
    voters: tuple[str, ...] | None = None
    since: str | None = None
    until: str | None = None
    after: int = 0
    upto: int | None = None
    per: Literal["configuration", "model"] = "configuration"


RATED: Final = CellFilter()
"""Every vote that counts for the ratings by default."""


def conditions(wanted: CellFilter) -> list[ColumnElement[bool]]:
    """What a vote must be like to be counted."""
    found: list[ColumnElement[bool]] = []
    for column in (votes.c.blind, votes.c.rated, votes.c.category):
        if (value := getattr(wanted, column.name)) is not None:
            found.append(column == value)
    if wanted.tag is not None:
        found.append(
            type_coerce(votes.c.tags, Text).contains(msgspec.json.encode(wanted.tag).decode(), autoescape=True)
        )
    if wanted.voters is not None:
        found.append(votes.c.voter.in_(wanted.voters))
    if wanted.since is not None:
        found.append(votes.c.at >= wanted.since)
    if wanted.until is not None:
        found.append(votes.c.at < wanted.until)
    if wanted.after:
        found.append(votes.c.number > wanted.after)
    if wanted.upto is not None:
        found.append(votes.c.number <= wanted.upto)
    return found


def pages(connection: Connection, wanted: CellFilter) -> Iterator[VotePage]:
    """The votes one by one, a page at a time. Those on two of the same are left out.

    The database tells a page as four texts: handing over the values of a million rows would take longer than the
    ratings.
    """
    a, b = (votes.c[f"{wanted.per}_{side}"] for side in "ab")
    found = select(votes).where(a != b, *conditions(wanted))
    what = a, b, votes.c.verdict, votes.c.sides, votes.c.repeats
    who = votes.c.voter, votes.c.address, votes.c.at
    if wanted.voters is not None:
        # by the index of the voters, which asked with each page would lead to all their votes anew
        rows = found.with_only_columns(*what, *who).execution_options(yield_per=PAGE)
        for part in connection.execute(rows).partitions():
            fields = zip(*((row[:5], *row[5:]) for row in part), strict=True)
            yield VotePage(*(msgspec.json.encode(field).decode() for field in fields))
        return
    within = votes.c.number.between(bindparam("first", type_=BigInteger), bindparam("last", type_=BigInteger))
    told = found.with_only_columns(*_lists(connection.dialect.name, what, who)).where(within)
    upto = wanted.upto
    if upto is None:
        upto = connection.execute(select(func.max(votes.c.number))).scalar_one() or 0
    for start in range(wanted.after + 1, upto + 1, PAGE):
        texts = connection.execute(told, {"first": start, "last": min(start + PAGE - 1, upto)}).one()
        if texts[0] not in (None, "[]"):
            yield VotePage(*map(str, texts))


def _lists(dialect: str, what: Sequence[Column[Any]], who: Sequence[Column[Any]]) -> list[ColumnElement[str]]:
    """What tells the fields of a page."""
    if dialect == "sqlite":
        return [func.json_group_array(each) for each in (func.json_array(*what), *who)]
    return [cast(func.array_to_json(func.array_agg(each)), Text) for each in (func.json_build_array(*what), *who)]
