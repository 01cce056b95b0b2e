"""A process that casts votes and tells of each, once the store has said that it is kept."""

from __future__ import annotations

import itertools
import os
from multiprocessing.connection import Connection

from arena.errors import StoreUnavailable
from arena.store import Store
from tests.store.votes import battle, vote


def cast(url: str, first: int, told: Connection) -> None:
    """Cast the votes FIRST, FIRST + 1, ... until killed; what the store refuses now is cast again."""
    store = Store(url)
    for number in itertools.count(first):
        while not _kept(store, number):
            pass
        os.write(told.fileno(), b"%d\n" % number)


def _kept(store: Store, number: int) -> bool:
    try:
        store.add_vote(vote(f"b{number}"), battle(f"b{number}"))
    except StoreUnavailable:
        return False
    return True
