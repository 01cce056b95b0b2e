"""Votes as numbers: what every rating is computed from."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from arena.types import BETWEEN, Verdict, VotePage

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

VERDICTS: Final[tuple[Verdict, ...]] = ("a", "b", "tie", "both_bad")
A, B, TIE, BOTH_BAD = range(4)
SCORES: Final = np.array([1.0, 0.0, 0.5, 0.5])
"""What each verdict gives to a. "Both bad" says that neither was better, as a tie does."""
MOST_REPEATS: Final = 7  # told apart; it costs a ballot seven eighths of its weight
_WHATS: Final = msgspec.json.Decoder(list[tuple[str, str, Verdict, int, int]])


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
    """Rows of equal votes, each of which says by number what was voted, by which voter, from where, when, how often.

    The columns of `whats` are what can be voted: a, b (both number the `names`), verdict (numbers VERDICTS), the sides
    of the ballot, and repeats. There are far fewer of them than votes, so many sums need not touch every vote. `day`
    numbers the `days`.
    """

    names: tuple[str, ...]
    days: tuple[str, ...]
    whats: Codes
    what: Codes
    voter: Codes
    address: Codes
    day: Codes
    count: Codes

    @property
    def votes(self) -> int:
        """How many votes there are."""
        return int(self.count.sum())

    @property
    def voters(self) -> int:
        """By how many voters they are, as far as known."""
        return int(np.count_nonzero(np.bincount(self.voter)))

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
        return Tally(self.names, self.days, self.whats, *(row[rows] for row in self.rows))

    @property
    def rows(self) -> tuple[Codes, Codes, Codes, Codes, Codes]:
        """What, voter, address, day and count."""
        return self.what, self.voter, self.address, self.day, self.count


class Ledger:
    """Collects votes as they come; new ones cost only themselves, and only a text that is new is taken apart."""

    def __init__(self) -> None:
        self._names, self._voters, self._addresses = (_Numbers() for _ in range(3))
        self._verdicts = _Numbers(VERDICTS)
        self._what, self._who, self._day = (_Numbers() for _ in range(3))  # by their texts
        self._whats, self._whos, self._rows = _Columns(5), _Columns(2), _Columns(5)

    def add(self, cells: Iterable[Counted]) -> None:
        """Append counted votes. A contestant against itself says nothing and is left out."""
        kept = [cell for cell in cells if cell.a != cell.b]
        whats = [_text(c.a, c.b, c.verdict, c.sides, c.repeats) for c in kept]
        page = whats, [(c.voter, c.address) for c in kept], [c.day for c in kept]
        self._append(page, [c.count for c in kept])

    def add_pages(self, pages: Iterable[VotePage]) -> None:
        """Append votes one by one. Nobody may be voted on against itself."""
        for page in pages:
            self._append(page, 1)

    def tally(self, names: Iterable[str] = ()) -> Tally:
        """All votes so far; `names` are contestants to list even if nobody voted on them yet.

        The contestants are in the order of their names, so that it does not matter who was voted on first.
        """
        ordered = tuple(sorted({*self._names, *names}))
        place = {name: number for number, name in enumerate(ordered)}
        a, b, *others = self._whats.all
        moved = np.array([place[name] for name in self._names], np.int64)
        whats = np.array([moved[a], moved[b], *others])
        return Tally(ordered, tuple(self._day), whats, *self._rows.all)

    def _append(self, page: VotePage, count: Sequence[int] | int) -> None:
        what, who, day = (each.of(texts) for each, texts in zip((self._what, self._who, self._day), page, strict=True))
        if fresh := self._what.fresh():
            a, b, verdict, sides, repeats = zip(*_WHATS.decode(f"[{','.join(fresh)}]"), strict=True)
            again = np.minimum(repeats, MOST_REPEATS)
            numbers = self._names.of(a), self._names.of(b), self._verdicts.of(verdict), np.array(sides), again
            self._whats.extend(np.array(numbers, np.int64))
        if fresh := self._who.fresh():
            pairs = (who.split(BETWEEN) if isinstance(who, str) else who for who in fresh)
            voters, addresses = zip(*pairs, strict=True)
            self._whos.extend(np.array([self._voters.of(voters), self._addresses.of(addresses)]))
        rows = np.empty((5, len(what)), np.int64)
        rows[0], rows[1:3], rows[3], rows[4] = what, self._whos.all[:, who], day, count
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


def _text(*values: str | int) -> str:
    return msgspec.json.encode(values).decode()
