"""Votes as columns of numbers: what every rating is computed from."""

from __future__ import annotations

from collections.abc import Iterable
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
_CODES: Final = dict(zip(VERDICTS, range(4), strict=True))


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
        found = [cell for cell in cells if cell.a != cell.b]
        if not found:
            return
        rows = [
            _coded(self._names, [cell.a for cell in found]),
            _coded(self._names, [cell.b for cell in found]),
            [_CODES[cell.verdict] for cell in found],
            [cell.count for cell in found],
            _coded(self._voters, [cell.voter for cell in found]),
            _coded(self._addresses, [cell.address for cell in found]),
            _coded(self._days, [cell.day for cell in found]),
        ]
        self._columns = np.hstack([self._columns, np.array(rows, np.int64)])

    def tally(self, names: Iterable[str] = ()) -> Tally:
        """All votes so far; `names` are contestants to list even if nobody voted on them yet."""
        known = {name: len(self._names) + extra for extra, name in enumerate(set(names) - set(self._names))}
        return Tally((*self._names, *sorted(known)), tuple(self._days), *self._columns)


def sums(codes: Codes, amount: Floats | Codes, size: int = 0) -> Floats:
    """The sum of `amount` for each of the `codes`, at least `size` of them."""
    return np.bincount(codes, amount, size).astype(np.float64, copy=False)


def _coded(codes: dict[str, int], values: list[str]) -> list[int]:
    for value in dict.fromkeys(values):
        codes.setdefault(value, len(codes))
    return [codes[value] for value in values]
