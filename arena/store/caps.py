"""How many ballots one voter, and one network, may cast a day: whoever stuffs is stopped, and stands in the log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, time, timedelta

from msgspec import Struct
from sqlalchemy import Column, Connection, func, select

from arena.errors import TooManyRequests
from arena.store.tables import votes
from arena.types import Vote

log = logging.getLogger(__name__)


class Caps(Struct, frozen=True):
    """Ballots a day (UTC) of one voter, and from one network; 0 is any number."""

    voter: int = 0
    address: int = 0


def check(connection: Connection, vote: Vote, caps: Caps) -> None:
    """May one more ballot, with this vote on it, be kept? Within its transaction, so that no race goes beyond.

    Raises TooManyRequests, which says when the next day begins.
    """
    _check(connection, vote, votes.c.voter, caps.voter, "You have", "ARENA_VOTES_PER_VOTER")
    _check(connection, vote, votes.c.address, caps.address, "Your network has", "ARENA_VOTES_PER_ADDRESS")


def _check(connection: Connection, vote: Vote, column: Column[str], cap: int, who: str, setting: str) -> None:
    name: str = getattr(vote, column.name)
    if not cap or not name:
        return
    today, rest_s = _day(vote.at)
    tomorrow = today + timedelta(days=1)
    within = (column == name, votes.c.at >= today.isoformat(), votes.c.at < tomorrow.isoformat())
    ballots = func.count((votes.c.battle_id + " " + votes.c.voter).distinct())
    cast = connection.execute(select(ballots).where(*within)).scalar_one()
    if cast >= cap:
        log.warning("no more votes of the %s %s today: %d were cast", column.name, name, cast)
        raise TooManyRequests(
            f"{who} cast {cap} votes today, and no more are taken until midnight UTC; this one was not saved. "
            f"The operator can change this limit ({setting}).",
            code="too_many_votes",
            retry_after_s=rest_s,
        )


def _day(at: str) -> tuple[datetime, float]:
    """When the day of a moment began, and how many seconds of it are left."""
    moment = datetime.fromisoformat(at)
    began = datetime.combine(moment.date(), time(tzinfo=UTC))
    return began, (began + timedelta(days=1) - moment).total_seconds()
