"""Votes as the ratings read them: many at once, as texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, ColumnElement, Connection, Row, Text, bindparam, cast, func, select, type_coerce

from arena.store.tables import votes
from arena.types import BETWEEN, Verdict, VotePage

PAGE: Final = 4000  # numbers of votes, told in about a megabyte; fewer cost more questions
_AFTER: Final = "\x1e"  # each text; JSON escapes it


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


class Cell(Struct, frozen=True):
    """`count` equal votes: a, b and verdict as they stood; what is not known is "".

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


def pages(connection: Connection, wanted: CellFilter) -> Iterator[VotePage]:
    """The votes one by one, a page at a time. Those on two of the same are left out.

    The database tells a page as three texts: handing over the values of a million rows would take longer than the
    ratings.
    """
    a, b = (votes.c[f"{wanted.per}_{side}"] for side in "ab")
    json = func.json_array if connection.dialect.name == "sqlite" else func.json_build_array
    what = cast(json(a, b, votes.c.verdict, votes.c.sides, votes.c.repeats), Text)
    day = func.substr(votes.c.at, 1, 10)
    found = (a != b, *conditions(wanted))
    rows = select(what, votes.c.voter, votes.c.address, day).where(*found)
    if wanted.voters is not None:
        # by the index of the voters, which asked with each page would lead to all their votes anew
        for part in connection.execute(rows.execution_options(yield_per=PAGE)).partitions():
            yield _page(part)
        return
    whats, whos, days = (
        func.aggregate_strings(text, _AFTER) for text in (what, votes.c.voter + BETWEEN + votes.c.address, day)
    )
    within = votes.c.number.between(bindparam("first", type_=BigInteger), bindparam("last", type_=BigInteger))
    told, rows = select(whats, whos, days).where(*found, within), rows.where(within)
    upto = wanted.upto
    if upto is None:
        upto = connection.execute(select(func.max(votes.c.number))).scalar_one() or 0
    for start in range(wanted.after + 1, upto + 1, PAGE):
        numbers = {"first": start, "last": min(start + PAGE - 1, upto)}
        texts = connection.execute(told, numbers).one()
        if texts[0] is not None:
            yield _parted(*texts) or _page(connection.execute(rows, numbers).all())


def _parted(whats: str, whos: str, days: str) -> VotePage | None:
    """The texts of each vote; None where a text has in it what parts texts."""
    page = whats.split(_AFTER), whos.split(_AFTER), days.split(_AFTER)
    count = len(page[0])
    return page if len(page[1]) == len(page[2]) == whos.count(BETWEEN) == count else None


def _page(rows: Sequence[Row[tuple[str, str, str, str]]]) -> VotePage:
    whats, voters, addresses, days = zip(*rows, strict=True)
    return list(whats), list(zip(voters, addresses, strict=True)), list(days)
