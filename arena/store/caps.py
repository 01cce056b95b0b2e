"""How many ballots one voter, and one network, may cast a day: whoever stuffs is stopped, and stands in the log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, time, timedelta
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, func, select

from arena.errors import TooManyRequests
from arena.store.tables import votes

log = logging.getLogger(__name__)

_WHO: Final = {"voter": "You have", "address": "Your network has"}


class Caps(Struct, frozen=True):
    """Ballots a day (UTC) of one voter, and from one network; 0 is any number."""

    voter: int = 0
    address: int = 0


def left(connection: Connection, caps: Caps, at: str, *, voter: str, address: str) -> int | None:
    """How many ballots more may be cast on the day of the moment `at`; None is any number.

    Within a ballot's own transaction no race goes beyond. Raises TooManyRequests where there are none left, which says
    when the next day begins.
    """
    rests = [_left(connection, caps, at, "voter", voter), _left(connection, caps, at, "address", address)]
    return min((rest for rest in rests if rest is not None), default=None)


def _left(connection: Connection, caps: Caps, at: str, kind: str, name: str) -> int | None:
    cap, column = int(getattr(caps, kind)), votes.c[kind]
    if not cap or not name:
        return None
    today, rest_s = _day(at)
    within = (column == name, votes.c.at >= today.isoformat(), votes.c.at < (today + timedelta(days=1)).isoformat())
    ballots = func.count((votes.c.battle_id + " " + votes.c.voter).distinct())
    cast = int(connection.execute(select(ballots).where(*within)).scalar_one())
    if cast >= cap:
        log.warning("no more votes of the %s %s today: %d were cast", kind, name, cast)
        raise TooManyRequests(
            f"{_WHO[kind]} cast {cap} votes today, and no more are taken until midnight UTC. "
            f"The operator can change this limit (ARENA_VOTES_PER_{kind.upper()}).",
            code="too_many_votes",
            retry_after_s=rest_s,
        )
    return cap - cast


def _day(at: str) -> tuple[datetime, float]:
    """When the day of a moment began, and how many seconds of it are left."""
    moment = datetime.fromisoformat(at)
    began = datetime.combine(moment.date(), time(tzinfo=UTC))
    return began, (began + timedelta(days=1) - moment).total_seconds()
