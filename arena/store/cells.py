"""Votes counted by the database: what the ratings are computed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, ColumnElement, Connection, Select, Text, bindparam, cast, func, select, type_coerce

from arena.store.tables import votes
from arena.types import Verdict

Detail = Literal["voter", "address", "day", "category"]
DETAILS: Final[tuple[Detail, ...]] = ("voter", "address", "day", "category")
Page = tuple[list[str], list[str], list[str]]
"""Votes, each told by three JSON lists: a, b, verdict, sides, repeats; voter, address; day."""
PAGE: Final = 1000  # numbers of votes; more of their texts fall out of the processor's cache
_SEPARATOR: Final = "\x1f"  # JSON escapes it


class CellFilter(Struct, frozen=True):
    """Which votes to count, and how finely. None takes all.

    `since` and `until` are moments (ISO 8601, UTC; until is not included); `after` and `upto` are numbers of votes,
    for counting what is new (upto is included). `details` adds columns to group by.
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
    details: tuple[Detail, ...] = ()


RATED: Final = CellFilter()
"""Every vote that counts for the ratings by default."""


class Cell(Struct, frozen=True):
    """`count` equal votes: a, b and verdict as they stood; the details that were not asked for are "".

    `sides` is how many the ballots were about: one on k sides is k(k-1)/2 votes. `repeats` is how often their voter had
    compared the two models on the same prompt before.
    """

    a: str
    b: str
    verdict: Verdict
    count: int
    voter: str = ""
    address: str = ""
    day: str = ""
    category: str = ""
    sides: int = 2
    repeats: int = 0


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


def counting(wanted: CellFilter) -> Select[Any]:
    """The query that counts: a, b, verdict, count, sides, repeats, and the details as far as they are asked for."""
    contestants = (votes.c[f"{wanted.per}_a"], votes.c[f"{wanted.per}_b"])
    details = {"voter": votes.c.voter, "address": votes.c.address, "category": votes.c.category}
    more = [_day() if name == "day" else details[name] for name in asked(wanted)]
    by = (*contestants, votes.c.verdict, votes.c.sides, votes.c.repeats, *more)
    return select(*by[:3], func.count(), *by[3:]).where(*conditions(wanted)).group_by(*by)


def pages(connection: Connection, wanted: CellFilter) -> Iterator[Page]:
    """The votes one by one, a page at a time; the details do not matter. Those on two of the same are left out.

    Where hardly any two votes are equal, counting them costs the database more than telling them. It tells a page as
    one text: handing over the values of a million rows would take longer than the ratings.
    """
    json = func.json_array if connection.dialect.name == "sqlite" else func.json_build_array
    a, b = (votes.c[f"{wanted.per}_{side}"] for side in "ab")
    lists = (
        json(a, b, votes.c.verdict, votes.c.sides, votes.c.repeats),
        json(votes.c.voter, votes.c.address),
        json(_day()),
    )
    what, who, day = (cast(each, Text) for each in lists)
    found = (a != b, *conditions(wanted))
    if wanted.voters is not None:
        # by the index of the voters, which asked with each page would lead to all their votes anew
        theirs = select(what, who, day).where(*found).execution_options(yield_per=PAGE)
        for rows in connection.execute(theirs).partitions():
            whats, whos, days = zip(*rows, strict=True)
            yield list(whats), list(whos), list(days)
        return
    told = func.aggregate_strings(what + _SEPARATOR + who + _SEPARATOR + day, _SEPARATOR)
    first, last = bindparam("first", type_=BigInteger), bindparam("last", type_=BigInteger)
    query = select(told).where(votes.c.number.between(first, last), *found)
    upto = wanted.upto
    if upto is None:
        upto = connection.execute(select(func.max(votes.c.number))).scalar_one() or 0
    for start in range(wanted.after + 1, upto + 1, PAGE):
        text = connection.execute(query, {"first": start, "last": min(start + PAGE - 1, upto)}).scalar_one()
        if text:
            texts = text.split(_SEPARATOR)
            yield texts[::3], texts[1::3], texts[2::3]


def asked(wanted: CellFilter) -> tuple[Detail, ...]:
    """The details in the order of their columns."""
    return tuple(name for name in DETAILS if name in wanted.details)


def cell(row: Sequence[Any], details: tuple[Detail, ...]) -> Cell:
    """One row of what was counted."""
    a, b, verdict, count, sides, repeats, *more = row
    return Cell(a, b, verdict, count, sides=sides, repeats=repeats, **dict(zip(details, more, strict=True)))


def _day() -> ColumnElement[str]:
    return func.substr(votes.c.at, 1, 10).label("day")
