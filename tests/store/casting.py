"""A process that casts votes and tells of each, once the store has said that it is kept.

`python -m tests.store.casting URL COUNT` casts COUNT votes and tells of them on its standard output.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection

from arena.store import Store
from tests.store.votes import battle, vote


def cast(url: str, first: int, told: Connection) -> None:
    """Cast the votes FIRST, FIRST + 1, ... until killed."""
    _cast(url, itertools.count(first), told.fileno())


def _cast(url: str, numbers: Iterable[int], told: int) -> None:
    store = Store(url)
    for number in numbers:
        store.add_vote(vote(f"b{number}"), battle(f"b{number}"))
        os.write(told, b"%d\n" % number)


if __name__ == "__main__":
    _cast(sys.argv[1], range(int(sys.argv[2])), sys.stdout.fileno())
