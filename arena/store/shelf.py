"""Kept documents as their owners see them, lists and no more than allowed, and as whoever runs the server does."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Text, func, or_, select, type_coerce

from arena.errors import Conflict
from arena.store.documents import Document, Kind
from arena.store.store import Store
from arena.store.tables import documents


class Title(Struct, frozen=True):
    """A document without its content. `at` is when it was last saved, ISO 8601 in UTC."""

    id: str
    at: str
    title: str


class Listed(Struct, frozen=True):
    """A document as whoever runs the server sees it: whose it is, by pseudonyms, and its size, not what is in it.

    `network` is where it came from, where a browser without a key keeps it.
    """

    owner: str
    network: str
    kind: Kind
    id: str
    at: str
    characters: int
    title: str


class Room(Struct, frozen=True):
    """How many documents there may be: of one kind and owner, from one address, of everybody (0: any number)."""

    own: int
    address: int = 0
    in_all: int = 0


def titles(store: Store, kind: Kind, owner: str) -> list[Title]:
    """What `owner` keeps of a kind, the latest first. Blocks; raises StoreUnavailable."""
    store.open()
    query = select(documents.c.id, documents.c.at, documents.c.title).where(*_of(kind, owner))
    with store.database.reading() as connection:
        return [Title(*row) for row in connection.execute(query.order_by(documents.c.at.desc(), documents.c.id))]


def save(store: Store, document: Document, room: Room) -> None:
    """Keep a document, in the place of the one with the same kind, owner and id; that goes on counting as it did.

    Blocks. Raises Conflict where it would be one too many, and StoreUnavailable.
    """
    store.open()
    same = (*_of(document.kind, document.owner), documents.c.id == document.id)
    changed = documents.update().where(*same).values(at=document.at, title=document.title, content=document.content)
    with store.database.writing() as connection:
        if not connection.execute(changed).rowcount:
            _check(connection, document, room)
            connection.execute(documents.insert().values(**msgspec.structs.asdict(document)))


def expire(store: Store, before: str) -> int:
    """Forget what browsers without a key saved last before this moment; how many were there? Blocks.

    Raises StoreUnavailable.
    """
    store.open()
    with store.database.writing() as connection:
        return connection.execute(documents.delete().where(documents.c.address != "", documents.c.at < before)).rowcount


def listed(store: Store, whose: str = "") -> list[Listed]:
    """All documents, or those of one owner or network, the latest first. Blocks; raises StoreUnavailable."""
    store.open()
    each = documents.c
    size = func.length(type_coerce(each.content, Text))
    query = select(each.owner, each.address, each.kind, each.id, each.at, size, each.title)
    with store.database.reading() as connection:
        return [
            Listed(*row) for row in connection.execute(query.where(*_whose(whose)).order_by(each.at.desc(), each.id))
        ]


def remove(store: Store, whose: str, ids: Collection[str] = ()) -> int:
    """Delete what an owner or a network keeps, only those with these `ids` if any are given; how many were there?

    Blocks; raises StoreUnavailable.
    """
    store.open()
    chosen = [documents.c.id.in_(ids)] if ids else []
    with store.database.writing() as connection:
        return connection.execute(documents.delete().where(*_whose(whose), *chosen)).rowcount


def _check(connection: Connection, document: Document, room: Room) -> None:
    count = select(func.count()).select_from(documents)
    if connection.execute(count.where(*_of(document.kind, document.owner))).scalar_one() >= room.own:
        raise _too_many(f"you have {room.own} {document.kind}s, and that is the most. Delete one first.")
    if room.address and document.address:
        near = connection.execute(count.where(documents.c.address == document.address)).scalar_one()
        if near >= room.address:
            raise _too_many(
                f"your network keeps {room.address} presets and conversations, and that is the most. Delete one first, "
                "or use a named key. The operator can change this limit (ARENA_KEPT_PER_ADDRESS)."
            )
    if room.in_all and connection.execute(count).scalar_one() >= room.in_all:
        raise _too_many(
            f"this server keeps {room.in_all} presets and conversations in all, and there is no room left. "
            "The operator can change this limit (ARENA_KEPT_IN_ALL)."
        )


def _too_many(why: str) -> Conflict:
    return Conflict(f"Not kept: {why}", code="too_many_kept")


def _of(kind: Kind, owner: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return documents.c.kind == kind, documents.c.owner == owner


def _whose(whose: str) -> list[ColumnElement[bool]]:
    return [or_(documents.c.owner == whose, documents.c.address == whose)] if whose else []
