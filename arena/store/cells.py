"""Votes as the ratings read them: many at once, as texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Text,
    bindparam,
    cast,
    func,
    select,
    type_coerce,
)

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
    """The votes one by one, a page at a time. Those on two of the same are left out."""
    return (VotePage(*told) for told in _told(connection, wanted, styles=False))


def styled_pages(connection: Connection, wanted: CellFilter) -> Iterator[tuple[VotePage, str]]:
    """The same of votes whose styles are known, and a JSON list of the pairs of these."""
    return ((VotePage(*told), styles) for *told, styles in _told(connection, wanted, styles=True))


def _told(connection: Connection, wanted: CellFilter, *, styles: bool) -> Iterator[list[str]]:
    """The fields of a page, with styles where they are wanted.

    The database tells each as a text: handing over the values of a million rows would take longer than the ratings.
    """
    a, b = (votes.c[f"{wanted.per}_{side}"] for side in "ab")
    style = (votes.c.style_a, votes.c.style_b) if styles else ()
    found = select(votes).where(a != b, *(each.is_not(None) for each in style), *conditions(wanted))
    what = a, b, votes.c.verdict, votes.c.sides, votes.c.repeats
    who = votes.c.voter, votes.c.address, votes.c.at
    if wanted.voters is not None:
        # by the index of the voters, which asked with each page would lead to all their votes anew
        rows = found.with_only_columns(*what, *who, *style).execution_options(yield_per=PAGE)
        for part in connection.execute(rows).partitions():
            fields = zip(*((row[:5], *row[5:8], *([row[8:]] if styles else ())) for row in part), strict=True)
            yield [msgspec.json.encode(field).decode() for field in fields]
        return
    within = votes.c.number.between(bindparam("first", type_=BigInteger), bindparam("last", type_=BigInteger))
    told = found.with_only_columns(*_lists(connection.dialect.name, what, who, style)).where(within)
    ahead = select(func.min(votes.c.number)).where(votes.c.number > bindparam("last", type_=BigInteger))
    last = wanted.after
    while wanted.upto is None or last < wanted.upto:
        start = connection.execute(ahead, {"last": last}).scalar_one()  # however far it is
        if start is None:
            return
        last = start + PAGE - 1
        texts = connection.execute(told, {"first": start, "last": last}).one()
        if texts[0] not in (None, "[]"):
            yield [str(each) for each in texts]


def _lists(
    dialect: str, what: Sequence[Column[Any]], who: Sequence[Column[Any]], style: Sequence[Column[Any]]
) -> list[ColumnElement[str]]:
    """What tells the fields of a page."""
    bare = [type_coerce(each, Text) for each in style]  # which is JSON
    if dialect == "sqlite":
        pair = [func.json_array(*map(func.json, bare))] if bare else []
        return [func.json_group_array(each) for each in (func.json_array(*what), *who, *pair)]
    pair = [func.json_build_array(*(cast(each, JSON) for each in bare))] if bare else []
    return [
        cast(func.array_to_json(func.array_agg(each)), Text) for each in (func.json_build_array(*what), *who, *pair)
    ]
