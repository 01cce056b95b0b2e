"""The store's face: plain functions that block, for threads. What returns from a write is on the disk."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, func, or_, select, tuple_

from arena.errors import Conflict
from arena.settings import Settings
from arena.store import caps, secret
from arena.store.battles import Side, StoredBattle
from arena.store.cells import RATED, CellFilter, pages, styled_pages
from arena.store.database import Database
from arena.store.documents import Document, Kind, Snapshot
from arena.store.migrations import migrate
from arena.store.spelling import Spellings
from arena.store.tables import battles, configurations, documents, facts, sides, snapshots, votes
from arena.types import Configuration, Vote, VotePage

FILE = "arena.sqlite3"
UNCAPPED = caps.Caps()
PART_ROWS = 500
"""Votes or battles looked up at a time; SQLite takes a few thousand values in one question."""

PAGE_ROWS = 5000
"""Votes read from the database at a time: no reader holds a view open for long."""

_VOTE_COLUMNS = [votes.c[name] for name in Vote.__struct_fields__]


def url_of(settings: Settings) -> str:
    """Where the settings want the store: ARENA_DATABASE_URL, else a SQLite file in ARENA_DATA."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return f"sqlite:///{settings.data.absolute() / FILE}"


def now() -> str:
    """This moment as the store writes it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Store:
    """Votes, battles, configurations, documents and snapshots over one database URL.

    It opens itself at the first use. Every method may raise StoreUnavailable: then nothing was saved, or, where the
    database went away at the commit, nobody knows; the same call may be made again, and saves once.
    """

    def __init__(self, url: str, *, daily: caps.Caps = UNCAPPED, called: str = "The store") -> None:
        """Errors begin with what it is `called`. Raises SettingsError for a URL that is neither SQLite's nor
        PostgreSQL's; touches nothing yet.
        """
        self.database = Database(url, called)
        self._daily = daily
        self._opening = threading.Lock()
        self._salt = b""

    @property
    def exists(self) -> bool:
        """Is there something to open already, that had better be sound? A database server counts as one."""
        return self.database.file is None or self.database.file.exists()

    def check(self) -> None:
        """Open what is there; where there is nothing yet, make sure it could be made. Raises StoreUnavailable."""
        if self.exists:
            self.open()
        else:
            self.database.check_place()

    def open(self) -> None:
        """Connect, check, and bring the schema up to date; again is fine. Raises StoreUnavailable."""
        with self._opening:
            if self._salt:
                return
            self.database.open()
            opened = False
            try:
                with self.database.writing() as connection:
                    migrate(connection)
                    self._salt = _salt_in(connection)
                opened = True
            finally:
                if not opened:
                    self.database.close()

    def close(self) -> None:
        """Let go of every connection; a later use opens it again."""
        with self._opening:
            self._salt = b""
            self.database.close()

    # ---- votes

    def add_vote(
        self, vote: Vote, battle: StoredBattle | None = None, contestants: Iterable[Configuration] = ()
    ) -> Vote:
        """Keep a vote on two sides, as `add_ballot` does."""
        return self.add_ballot((vote,), battle, contestants)[0]

    def add_ballot(
        self, ballot: Sequence[Vote], battle: StoredBattle | None = None, contestants: Iterable[Configuration] = ()
    ) -> tuple[Vote, ...]:
        """Keep one voter's votes on one battle, one for each pair of its sides, with the battle; returns what is kept.

        All or none is kept, and the same ballot again once; models are called as the store calls them. Raises Conflict
        where this voter has voted otherwise, and TooManyRequests beyond the caps of a day.
        """
        self.open()
        with self.database.writing() as connection:
            kept = _ballot(connection, ballot[0].battle_id, ballot[0].voter)
            if kept:
                if {vote.pair: vote.verdict for vote in kept} != {vote.pair: vote.verdict for vote in ballot}:
                    raise Conflict("This battle has your vote already, and it was another one.", code="voted")
                return kept
            caps.check(connection, self._daily, ballot[0])
            spelled = Spellings(connection)
            new = tuple(
                msgspec.structs.replace(vote, repeats=_repeats(connection, vote)) for vote in map(spelled.vote, ballot)
            )
            fought = [side.configuration for side in battle.sides.values()] if battle else []
            for each in map(spelled.contestant, (*contestants, *fought)):
                _keep_contestant(connection, each)
            if battle is not None:
                _keep_battle(connection, battle)
            connection.execute(votes.insert(), [_row_of(vote) for vote in new])
        return new

    def add_votes(self, many: Iterable[Vote], contestants: Iterable[Configuration] = ()) -> int:
        """Keep votes that come from elsewhere, all or none; those that are here already are left out; how many?"""
        self.open()
        with self.database.writing() as connection:
            spelled = Spellings(connection)
            for each in map(spelled.contestant, contestants):
                _keep_contestant(connection, each)
            kept = 0
            coming = map(spelled.vote, many)
            while part := list(islice(coming, PART_ROWS)):
                here = _here(connection, {vote.battle_id for vote in part})
                new = {key: vote for vote in reversed(part) if (key := _key(vote)) not in here}
                if new:
                    connection.execute(votes.insert(), [_row_of(vote) for vote in reversed(new.values())])
                kept += len(new)
        return kept

    def votes_left(self, voter: str, address: str) -> int | None:
        """How many ballots more these, by their pseudonyms, may cast today; None is any number.

        Raises TooManyRequests where there are none left.
        """
        self.open()
        with self.database.reading() as connection:
            return caps.left(connection, self._daily, now(), voter=voter, address=address)

    def vote(self, battle_id: str, voter: str) -> Vote | None:
        """The vote of `voter` on a battle of two sides."""
        return next(iter(self.ballot(battle_id, voter)), None)

    def ballot(self, battle_id: str, voter: str) -> tuple[Vote, ...]:
        """The votes of `voter` on a battle, one for each pair of its sides; none where there was no vote."""
        self.open()
        with self.database.reading() as connection:
            return _ballot(connection, battle_id, voter)

    def votes(self, since: int = 0) -> Iterator[tuple[int, Vote]]:
        """All votes with their numbers, ascending, after the number `since`."""
        self.open()
        while True:
            query = select(votes.c.number, *_VOTE_COLUMNS).where(votes.c.number > since)
            with self.database.reading() as connection:
                rows = connection.execute(query.order_by(votes.c.number).limit(PAGE_ROWS)).all()
            for number, *values in rows:
                yield number, _vote_of(values)
            if len(rows) < PAGE_ROWS:
                return
            since = rows[-1][0]

    def last_number(self) -> int:
        """The number of the latest vote; 0 before the first."""
        self.open()
        with self.database.reading() as connection:
            return int(connection.execute(select(func.max(votes.c.number))).scalar() or 0)

    def pages(self, wanted: CellFilter = RATED) -> Iterator[VotePage]:
        """The votes one by one, as texts, a page at a time; those on two of the same are left out."""
        self.open()
        with self.database.reading() as connection:
            yield from pages(connection, wanted)

    def styled_pages(self, wanted: CellFilter = RATED) -> Iterator[tuple[VotePage, str]]:
        """The same of the votes whose styles are known, each page with these: a JSON list of pairs of styles."""
        self.open()
        with self.database.reading() as connection:
            yield from styled_pages(connection, wanted)

    def configurations(self) -> dict[str, Configuration]:
        """Every configuration that was voted on, by id."""
        self.open()
        with self.database.reading() as connection:
            return {row.id: Configuration(*row) for row in connection.execute(select(configurations))}

    def battle(self, battle_id: str) -> StoredBattle | None:
        """A kept battle."""
        return self.battles((battle_id,)).get(battle_id)

    def battles(self, battle_ids: Collection[str]) -> dict[str, StoredBattle]:
        """Those of these battles that were kept, by id, in two queries; PART_ROWS are a good number of them."""
        self.open()
        kept = select(battles).where(battles.c.id.in_(battle_ids))
        told = select(sides, configurations).join(configurations).where(sides.c.battle_id.in_(battle_ids))
        with self.database.reading() as connection:
            found = connection.execute(kept).all()
            rows = connection.execute(told.order_by(sides.c.battle_id, sides.c.side)).all()
        of: dict[str, dict[str, Side]] = {row.id: {} for row in found}
        for row in rows:
            of[row.battle_id][row.side] = Side(Configuration(*row[6:]), *map(tuple, row[3:6]))
        return {row.id: StoredBattle(row.id, row.at, row.mode, tuple(row.prompts), of[row.id]) for row in found}

    # ---- documents

    def document(self, kind: Kind, owner: str, document_id: str) -> Document | None:
        """One document of `owner`."""
        self.open()
        with self.database.reading() as connection:
            row = connection.execute(select(documents).where(*_named(kind, owner, document_id))).one_or_none()
        return None if row is None else Document(*row)

    def documents(self, kind: Kind, owner: str) -> list[Document]:
        """All of a kind that `owner` has kept, the latest first."""
        self.open()
        query = select(documents).where(documents.c.kind == kind, documents.c.owner == owner)
        with self.database.reading() as connection:
            return [Document(*row) for row in connection.execute(query.order_by(documents.c.at.desc()))]

    def forget(self, kind: Kind, owner: str, document_id: str) -> bool:
        """Delete a document; was there one?"""
        self.open()
        with self.database.writing() as connection:
            return bool(connection.execute(documents.delete().where(*_named(kind, owner, document_id))).rowcount)

    # ---- snapshots

    def add_snapshot(self, last_vote: int, content: Any, *, once_a_day: bool = False) -> Snapshot | None:
        """Keep what the ratings say now, after the vote with the number `last_vote`.

        `once_a_day`: unless something of this day (UTC), or of the same votes, is kept already; then nothing is made.
        The store must be open: one that somebody has closed is not opened again for this, since nobody waits for it.
        """
        at = now()
        today = snapshots.c.at.startswith(at[:10])  # whatever days a clock that was wrong has left behind
        known = select(1).where(or_(today, snapshots.c.last_vote == last_vote)).limit(1)
        with self.database.writing() as connection:
            if once_a_day and connection.execute(known).first() is not None:
                return None
            made = connection.execute(snapshots.insert().values(at=at, last_vote=last_vote, content=content))
        (number,) = made.inserted_primary_key or (0,)
        return Snapshot(number, at, last_vote, content)

    def snapshots(self, last: int | None = None) -> list[Snapshot]:
        """The snapshots in their order; at most the `last` ones."""
        self.open()
        query = select(snapshots).order_by(snapshots.c.number.desc()).limit(last)
        with self.database.reading() as connection:
            return [Snapshot(*row) for row in reversed(connection.execute(query).all())]

    # ---- pseudonyms

    @property
    def signing_key(self) -> bytes:
        """What the names of voters are signed with, as long as the store lasts; b"" until it is open."""
        salt = self._salt
        return hmac.digest(salt, b"the names of voters", sha256) if salt else b""

    def pseudonym(self, identity: str) -> str:
        """A name under which `identity` can be counted but not found out, as long as the store lasts; "" stays ""."""
        if not identity:
            return ""
        self.open()
        return hmac.digest(self._salt, identity.encode(), sha256).hex()[:16]


def _salt_in(connection: Connection) -> bytes:
    _keep_once(connection, facts, {"name": "salt"}, {"name": "salt", "value": secrets.token_hex(32)})
    return secret.read(connection.execute(select(facts.c.value).where(facts.c.name == "salt")).scalar_one())


def _keep_once(connection: Connection, table: Table, key: dict[str, str], row: dict[str, Any]) -> None:
    """Insert a row unless its key is there; writers come one at a time, so nobody can be between."""
    found = select(1).where(*(table.c[name] == value for name, value in key.items())).select_from(table)
    if connection.execute(found).first() is None:
        connection.execute(table.insert().values(**row))


def _keep_contestant(connection: Connection, new: Configuration) -> None:
    """Insert a configuration; one that came with its name alone is completed by the first who knows more."""
    row = connection.execute(select(configurations).where(configurations.c.id == new.id)).one_or_none()
    if row is None:
        connection.execute(configurations.insert().values(**msgspec.structs.asdict(new)))
    elif Configuration(*row) == Configuration(row.id, row.model) and new != Configuration(new.id, new.model):
        known = configurations.update().where(configurations.c.id == new.id)
        connection.execute(known.values(**msgspec.structs.asdict(new)))


def _keep_battle(connection: Connection, battle: StoredBattle) -> None:
    if connection.execute(select(1).select_from(battles).where(battles.c.id == battle.id)).first() is not None:
        return
    connection.execute(
        battles.insert().values(id=battle.id, at=battle.at, mode=battle.mode, prompts=list(battle.prompts))
    )
    for name, side in battle.sides.items():
        connection.execute(
            sides.insert().values(
                battle_id=battle.id,
                side=name,
                configuration_id=side.configuration.id,
                answers=side.answers,
                metrics=side.metrics,
                manifests=side.manifests,
            )
        )


def _row_of(vote: Vote) -> dict[str, Any]:
    return msgspec.structs.asdict(vote)


def _ballot(connection: Connection, battle_id: str, voter: str) -> tuple[Vote, ...]:
    query = select(*_VOTE_COLUMNS).where(votes.c.battle_id == battle_id, votes.c.voter == voter)
    return tuple(_vote_of(list(row)) for row in connection.execute(query.order_by(votes.c.pair)))


def _key(vote: Vote) -> tuple[str, str, str]:
    return vote.battle_id, vote.voter, vote.pair


def _here(connection: Connection, battle_ids: set[str]) -> set[tuple[str, str, str]]:
    """The keys of the votes on these battles."""
    query = select(votes.c.battle_id, votes.c.voter, votes.c.pair).where(votes.c.battle_id.in_(battle_ids))
    return {(battle_id, voter, pair) for battle_id, voter, pair in connection.execute(query)}


def _repeats(connection: Connection, vote: Vote) -> int:
    """How often has the voter compared the same two models on the same prompt before? Never the same battle."""
    if not vote.voter or not vote.prompt:
        return 0
    models = (vote.model_a, vote.model_b)
    same = (votes.c.voter == vote.voter, votes.c.prompt == vote.prompt, votes.c.battle_id != vote.battle_id)
    met = tuple_(votes.c.model_a, votes.c.model_b).in_([models, models[::-1]])
    return int(connection.execute(select(func.count()).select_from(votes).where(*same, met)).scalar_one())


def _vote_of(values: list[Any]) -> Vote:
    return msgspec.convert(dict(zip(Vote.__struct_fields__, values, strict=True)), Vote)


def _named(kind: Kind, owner: str, document_id: str) -> tuple[Any, ...]:
    return documents.c.kind == kind, documents.c.owner == owner, documents.c.id == document_id
