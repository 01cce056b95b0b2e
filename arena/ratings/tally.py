"""Votes as columns of numbers: what every rating is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from operator import ne
from typing import Any, Final, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from arena.types import Verdict

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

VERDICTS: Final[tuple[Verdict, ...]] = ("a", "b", "tie", "both_bad")
A, B, TIE, BOTH_BAD = range(4)
SCORES: Final = np.array([1.0, 0.0, 0.5, 0.5])
"""What each verdict gives to a. "Both bad" says that neither was better, as a tie does."""
_CODES: Final[dict[str, int]] = dict(zip(VERDICTS, range(4), strict=True))


class Counted(Protocol):
    """`count` equal votes on the contestants `a` and `b`; `voter`, `address`, `day` are "" where unknown."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def count(self) -> int: ...
    @property
    def voter(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def day(self) -> str: ...


class Tally(Struct, frozen=True):
    """Rows of equal votes. `a`, `b` number the `names`, `day` the `days`; `verdict` numbers the VERDICTS."""

    names: tuple[str, ...]
    days: tuple[str, ...]
    a: Codes
    b: Codes
    verdict: Codes
    count: Codes
    voter: Codes
    address: Codes
    day: Codes

    @property
    def votes(self) -> int:
        """How many votes there are."""
        return int(self.count.sum())

    @property
    def voters(self) -> int:
        """By how many voters they are, as far as known."""
        return len(np.unique(self.voter))

    def only(self, rows: NDArray[Any]) -> Tally:
        """The same contestants with some of the rows."""
        columns = (self.a, self.b, self.verdict, self.count, self.voter, self.address, self.day)
        return Tally(self.names, self.days, *(column[rows] for column in columns))


class Ledger:
    """Collects votes as they come; new ones cost only themselves."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._voters: dict[str, int] = {}
        self._addresses: dict[str, int] = {}
        self._days: dict[str, int] = {}
        self._columns: Codes = np.empty((7, 0), np.int64)

    def add(self, cells: Iterable[Counted]) -> None:
        """Append votes. A contestant against itself says nothing and is left out."""
        rows = [(c.a, c.b, c.verdict, c.voter, c.address, c.day, c.count) for c in cells if c.a != c.b]
        if rows:
            *ballots, counts = zip(*rows, strict=True)
            self.add_ballots([ballots], counts)

    def add_ballots(self, pages: Iterable[Sequence[Sequence[str]]], counts: Sequence[int] = (1,)) -> None:
        """Append votes in pages of columns: a, b, verdict, voter, address, day."""
        blocks = [self._columns]
        for page in pages:
            kept = list(map(ne, page[0], page[1]))
            a, b, verdict, voter, address, day = page if all(kept) else [list(compress(each, kept)) for each in page]
            block = np.empty((7, len(a)), np.int64)
            block[0], block[1] = _coded(self._names, a), _coded(self._names, b)
            block[2], block[3] = _coded(_CODES, verdict), counts
            block[4], block[5], block[6] = (
                _coded(codes, column)
                for codes, column in ((self._voters, voter), (self._addresses, address), (self._days, day))
            )
            blocks.append(block)
        self._columns = np.hstack(blocks)

    def tally(self, names: Iterable[str] = ()) -> Tally:
        """All votes so far; `names` are contestants to list even if nobody voted on them yet."""
        known = {name: len(self._names) + extra for extra, name in enumerate(set(names) - set(self._names))}
        return Tally((*self._names, *sorted(known)), tuple(self._days), *self._columns)


def sums(codes: Codes, amount: Floats | Codes, size: int = 0) -> Floats:
    """The sum of `amount` for each of the `codes`, at least `size` of them."""
    return np.bincount(codes, amount, size).astype(np.float64, copy=False)


def _coded(codes: dict[str, int], values: Sequence[str]) -> Codes:
    for value in dict.fromkeys(values):
        if value not in codes:
            codes[value] = len(codes)
    return np.fromiter(map(codes.__getitem__, values), np.int64, len(values))
