"""How many ballots one voter, and one network, may cast a day: whoever stuffs is stopped, and stands in the log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, time, timedelta

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, func, select

from arena.errors import TooManyRequests
from arena.store.tables import votes
from arena.types import Vote

log = logging.getLogger(__name__)


class Caps(Struct, frozen=True):
    """Ballots a day (UTC) of one voter, and from one network; 0 is any number."""

    voter: int = 0
    address: int = 0


def check(connection: Connection, caps: Caps, vote: Vote) -> None:
    """May one more ballot, with this vote on it, be kept? Within its own transaction no race goes beyond.

    Raises TooManyRequests, which says that the vote is not saved, and when the next day begins.
    """
    try:
        left(connection, caps, vote.at, voter=vote.voter, address=vote.address)
    except TooManyRequests as error:
        log.warning("a vote of the voter %s at the address %s is refused: %s", vote.voter, vote.address, error.message)
        raise TooManyRequests(
            f"This vote was not saved. {error.message}", code=error.code, retry_after_s=error.retry_after_s
        ) from None


def left(connection: Connection, caps: Caps, at: str, *, voter: str, address: str) -> int | None:
    """How many ballots more may be cast on the day of the moment `at`; None is any number.

    Raises TooManyRequests where there are none left, which says when the next day begins.
    """
    limits = (
        (caps.voter, votes.c.voter, voter, "You have", "ARENA_VOTES_PER_VOTER"),
        (caps.address, votes.c.address, address, "Your network has", "ARENA_VOTES_PER_ADDRESS"),
    )
    rests = [
        _left(connection, at, cap, column == name, who, setting)
        for cap, column, name, who, setting in limits
        if cap and name
    ]
    return min(rests, default=None)


def _left(connection: Connection, at: str, cap: int, theirs: ColumnElement[bool], who: str, setting: str) -> int:
    today, rest_s = _day(at)
    within = (theirs, votes.c.at >= today.isoformat(), votes.c.at < (today + timedelta(days=1)).isoformat())
    ballots = func.count((votes.c.battle_id + " " + votes.c.voter).distinct())
    cast = int(connection.execute(select(ballots).where(*within)).scalar_one())
    if cast >= cap:
        raise TooManyRequests(
            f"{who} cast {cap} votes today, and no more are taken until midnight UTC. "
            f"The operator can change this limit ({setting}).",
            code="too_many_votes",
            retry_after_s=rest_s,
        )
    return cap - cast


def _day(at: str) -> tuple[datetime, float]:
    """When the day of a moment began, and how many seconds of it are left."""
    moment = datetime.fromisoformat(at)
    began = datetime.combine(moment.date(), time(tzinfo=UTC))
    return began, (began + timedelta(days=1) - moment).total_seconds()
