"""Kept documents on both databases: lists without contents, replaced or refused as a whole."""

from __future__ import annotations

import pytest

from arena.errors import Conflict
from arena.store import Document, Kind, Store
from arena.store.shelf import Listed, Room, Title, expire, listed, remove, save, titles


def document(name: str, owner: str = "ann", kind: Kind = "preset", at: str = "1", address: str = "") -> Document:
    return Document(kind, owner, name, at, name.upper(), {"x": name}, address)


def test_titles_come_latest_first_and_are_the_owners_alone(store: Store) -> None:
    room = Room(10)
    for each in (document("a", at="1"), document("b", at="2"), document("c", owner="ben")):
        save(store, each, room)
    save(store, document("d", kind="conversation"), room)
    assert titles(store, "preset", "ann") == [Title("b", "2", "B"), Title("a", "1", "A")]
    save(store, document("a", at="3"), room)
    assert [each.id for each in titles(store, "preset", "ann")] == ["a", "b"]
    assert titles(store, "conversation", "ben") == []


def test_one_too_many_is_refused_and_nothing_is_lost(store: Store) -> None:
    save(store, document("a"), Room(2, in_all=3))
    save(store, document("b"), Room(2, in_all=3))
    with pytest.raises(Conflict, match="you have 2 presets"):
        save(store, document("c"), Room(2, in_all=3))
    save(store, document("b", at="9"), Room(2, in_all=3))
    save(store, document("c", owner="ben"), Room(2, in_all=3))
    with pytest.raises(Conflict, match="ARENA_KEPT_IN_ALL") as refused:
        save(store, document("d", owner="cem"), Room(2, in_all=3))
    assert refused.value.code == "too_many_kept"
    save(store, document("d", owner="cem"), Room(2))
    assert [each.id for each in titles(store, "preset", "ann")] == ["b", "a"]


def test_a_network_has_an_end_to_its_room_however_many_names_it_collects(store: Store) -> None:
    room = Room(2, address=3, in_all=9)
    for name, owner in (("a", "ann"), ("b", "ann"), ("c", "ben")):
        save(store, document(name, owner, address="net"), room)
    with pytest.raises(Conflict, match="ARENA_KEPT_PER_ADDRESS") as refused:
        save(store, document("d", "cem", "conversation", address="net"), room)
    assert refused.value.code == "too_many_kept"
    save(store, document("d", "cem", address="elsewhere"), room)
    save(store, document("e", "dan"), room)
    save(store, document("c", "ben", at="9", address="elsewhere"), room)
    with pytest.raises(Conflict, match="ARENA_KEPT_PER_ADDRESS"):
        save(store, document("f", "eve", address="net"), room)
    assert {each.id: each.network for each in listed(store)}["c"] == "net", "to save again from elsewhere makes no room"


def test_only_what_browsers_kept_long_ago_goes(store: Store) -> None:
    for each in (document("a", at="1", address="net"), document("b", at="2", address="net"), document("c", at="1")):
        save(store, each, Room(9))
    assert expire(store, "2") == 1
    assert [each.id for each in listed(store)] == ["b", "c"]


def test_whoever_runs_the_server_sees_whose_it_is_and_deletes_it(store: Store) -> None:
    for each in (
        document("a", at="3", address="net"),
        document("a", "ben", at="2", address="net"),
        document("a", "ben", "conversation"),
        document("b", "cem", at="0"),
    ):
        save(store, each, Room(9))
    assert listed(store)[0] == Listed("ann", "net", "preset", "a", "3", len('{"x":"a"}'), "A")
    assert [each.owner for each in listed(store)] == ["ann", "ben", "ben", "cem"]
    assert [(each.owner, each.kind) for each in listed(store, "net")] == [("ann", "preset"), ("ben", "preset")]
    assert remove(store, "ben", ["c", "d"]) == 0
    assert remove(store, "ben", ["a", "d"]) == 2
    assert remove(store, "net") == 1
    assert [each.owner for each in listed(store)] == ["cem"]
