"""Votes as numbers: what every rating is computed from."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import compress
from operator import ne
from typing import Any, Final, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from arena.types import Verdict

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Ballot = Sequence[Any]
"""One vote: contestants a and b, verdict, sides, repeats, voter, address, day; the last three are "" if unknown."""

VERDICTS: Final[tuple[Verdict, ...]] = ("a", "b", "tie", "both_bad")
A, B, TIE, BOTH_BAD = range(4)
SCORES: Final = np.array([1.0, 0.0, 0.5, 0.5])
"""What each verdict gives to a. "Both bad" says that neither was better, as a tie does."""
MOST_REPEATS: Final = 7  # told apart; it costs a ballot seven eighths of its weight
_WHO_BITS: Final = (24, 24, 15)  # of voter, address, day: more of them do not fit in memory


class Counted(Protocol):
    """`count` equal votes on the contestants `a` and `b`; `voter`, `address`, `day` are "" where unknown."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def sides(self) -> int: ...
    @property
    def repeats(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def voter(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def day(self) -> str: ...


class Tally(Struct, frozen=True):
    """Rows of equal votes, each of which says by number what was voted, by whom, and how often.

    The columns of `whats` are what can be voted: a, b (both number the `names`), verdict (numbers VERDICTS), the sides
    of the ballot, and repeats. Those of `whos` are who votes when: voter, address, and day (numbers the `days`). There
    are far fewer of them than votes, so most sums need not touch every vote.
    """

    names: tuple[str, ...]
    days: tuple[str, ...]
    whats: Codes
    whos: Codes
    what: Codes
    who: Codes
    count: Codes

    @property
    def votes(self) -> int:
        """How many votes there are."""
        return int(self.count.sum())

    @property
    def voters(self) -> int:
        """By how many voters they are, as far as known."""
        return len(np.unique(self.whos[0, np.bincount(self.who, minlength=self.whos.shape[1]) > 0]))

    @property
    def share(self) -> Floats:
        """How much one pair of a ballot counts, by `whats`: a ranking of k sides has k(k-1)/2 pairs, and counts k-1.

        The second time that somebody compares two models on the same prompt counts a half, the third time a third.
        """
        return np.asarray(2.0 / self.whats[3] / (1.0 + self.whats[4]))

    @property
    def spread(self) -> Floats:
        """How much more the pairs of one ballot vary together than votes cast apart, by `whats`.

        The places of k equals have the variance (k² - 1) / 12; k-1 votes on each, cast apart, would have (k-1) / 4.
        """
        return np.asarray((self.whats[3] + 1.0) / 3.0)

    def by_what(self, weight: Floats | None = None) -> Floats:
        """The votes on each column of `whats`, each row's multiplied by its weight."""
        return sums(self.what, self.count if weight is None else weight * self.count, self.whats.shape[1])

    def only(self, rows: NDArray[Any]) -> Tally:
        """The same contestants with some of the rows."""
        return Tally(self.names, self.days, self.whats, self.whos, *(row[rows] for row in self.rows))

    @property
    def rows(self) -> tuple[Codes, Codes, Codes]:
        """What, who and count."""
        return self.what, self.who, self.count


class Ledger:
    """Collects votes as they come; new ones cost only themselves."""

    def __init__(self) -> None:
        self._names, self._voters, self._addresses, self._days = (_Numbers() for _ in range(4))
        self._verdicts = _Numbers(VERDICTS)
        self._what, self._who = _Numbers(), _Numbers()
        self._whats, self._whos, self._rows = _Columns(5), _Columns(3), _Columns(3)

    def add(self, cells: Iterable[Counted]) -> None:
        """Append counted votes. A contestant against itself says nothing and is left out."""
        kept = [cell for cell in cells if cell.a != cell.b]
        ballots = [(c.a, c.b, c.verdict, c.sides, c.repeats, c.voter, c.address, c.day) for c in kept]
        self._append(list(zip(*ballots, strict=True)), [cell.count for cell in kept])

    def add_ballots(self, pages: Iterable[Sequence[Ballot]]) -> None:
        """Append votes one by one. A contestant against itself says nothing and is left out."""
        for page in filter(None, pages):
            columns: list[Sequence[Any]] = list(zip(*page, strict=False))
            if not all(kept := list(map(ne, *columns[:2]))):
                columns = [list(compress(column, kept)) for column in columns]
            self._append(columns, 1)

    def tally(self, names: Iterable[str] = ()) -> Tally:
        """All votes so far; `names` are contestants to list even if nobody voted on them yet.

        The contestants are in the order of their names, so that it does not matter who was voted on first.
        """
        ordered = tuple(sorted({*self._names, *names}))
        place = {name: number for number, name in enumerate(ordered)}
        a, b, *others = self._whats.all
        moved = np.array([place[name] for name in self._names], np.int64)
        whats = np.array([moved[a], moved[b], *others])
        return Tally(ordered, tuple(self._days), whats, self._whos.all, *self._rows.all)

    def _append(self, columns: Sequence[Sequence[Any]], count: Sequence[int] | int) -> None:
        if not columns or not columns[0]:
            return
        *what, voter, address, day = columns
        who = _packed((self._voters.of(voter), self._addresses.of(address), self._days.of(day)), _WHO_BITS)
        rows = np.empty((3, len(voter)), np.int64)
        rows[0] = self._what.of(list(zip(*what, strict=False)))  # strict is slow on so many
        rows[1], rows[2] = self._who.of(who.tolist()), count
        if fresh := self._what.fresh():
            a, b, verdict, sides, repeats = zip(*fresh, strict=False)
            again = np.minimum(repeats, MOST_REPEATS)
            numbers = self._names.of(a), self._names.of(b), self._verdicts.of(verdict), np.array(sides), again
            self._whats.extend(np.array(numbers, np.int64))
        self._whos.extend(_unpacked(self._who.fresh(), _WHO_BITS))
        self._rows.extend(rows)


class _Numbers(dict[Any, int]):
    """Gives each new key the next number when it is first looked up."""

    def __init__(self, keys: Iterable[Hashable] = ()) -> None:
        super().__init__((key, number) for number, key in enumerate(keys))
        self._fresh: list[Any] = []

    def __missing__(self, key: Hashable) -> int:
        self._fresh.append(key)
        number = self[key] = len(self)
        return number

    def of(self, keys: Sequence[Hashable]) -> Codes:
        """The number of each key."""
        return np.fromiter(map(self.__getitem__, keys), np.int64, len(keys))

    def fresh(self) -> list[Any]:
        """The keys that are new since this was last asked, in the order of their numbers."""
        fresh, self._fresh = self._fresh, []
        return fresh


class _Columns:
    """A growing table of numbers. What was handed out never changes: new columns go behind it."""

    def __init__(self, rows: int) -> None:
        self._space: Codes = np.empty((rows, 0), np.int64)
        self._used = 0

    @property
    def all(self) -> Codes:
        return self._space[:, : self._used]

    def extend(self, block: Codes) -> None:
        used = self._used + block.shape[1]
        if used > self._space.shape[1]:
            more = np.empty((len(self._space), 2 * used), np.int64)
            more[:, : self._used] = self.all
            self._space = more
        self._space[:, self._used : used] = block
        self._used = used


def sums(codes: Codes, amount: Floats | Codes, size: int = 0) -> Floats:
    """The sum of `amount` for each of the `codes`, at least `size` of them."""
    return np.bincount(codes, amount, size).astype(np.float64, copy=False)


def _packed(columns: Iterable[Codes], bits: Sequence[int]) -> Codes:
    """One number for each row of the columns, of which each has so many bits."""
    first, *others = columns
    key = first
    for column, width in zip(others, bits[1:], strict=True):
        key = key << width | column
    return key


def _unpacked(keys: Sequence[int], bits: Sequence[int]) -> Codes:
    """The columns that those numbers were made of."""
    left, columns = np.array(keys, np.int64), []
    for width in reversed(bits):
        columns.append(left & ((1 << width) - 1))
        left = left >> width
    return np.array(columns[::-1])
