"""Votes as numbers: what every rating is computed from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import count, islice
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from arena.types import Verdict, VotePage

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

VERDICTS: Final[tuple[Verdict, ...]] = ("a", "b", "tie", "both_bad")
A, B, TIE, BOTH_BAD = range(4)
SCORES: Final = np.array([1.0, 0.0, 0.5, 0.5])
"""What each verdict gives to a. "Both bad" says that neither was better, as a tie does."""
MOST_REPEATS: Final = 7  # told apart; it costs a ballot seven eighths of its weight
_WHATS: Final = msgspec.json.Decoder(list[tuple[str, str, Verdict, int, int]])
_TEXTS: Final = msgspec.json.Decoder(list[str])
_DAY: Final = 10  # characters of a moment
_PSEUDONYM: Final = np.dtype(">u8")  # which the store writes in hexadecimal digits
_Texts = list[str] | NDArray[np.uint64]


class Cell(Struct, frozen=True):
    """`count` equal votes on the contestants a and b, as they stood; what is not known is "".

    `sides` is how many the ballots were about: one on k sides is k(k-1)/2 votes. `repeats` is how often their voter had
    compared the two models on the same prompt before.
    """

    a: str
    b: str
    verdict: Verdict
    count: int
    voter: str = ""
    address: str = ""
    day: str = ""
    sides: int = 2
    repeats: int = 0


class Tally(Struct, frozen=True, dict=True):
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

    @cached_property
    def on_what(self) -> Floats:
        """The votes on each column of `whats`."""
        return sums(self.what, self.count, self.whats.shape[1])

    def weighed(self, weight: Floats) -> tuple[Floats, Floats]:
        """What the votes on each column of `whats` weigh, and the sum of the squares; `weight` is by row.

        Where most votes weigh their share, only the others are looked at one by one.
        """
        rows = np.flatnonzero(weight != self.share[self.what])
        if len(rows) > len(weight) // 4:
            size = len(self.share)
            return sums(self.what, weight * self.count, size), sums(self.what, weight**2 * self.count, size)
        what, count = self.what[rows], self.count[rows]

        def total(share: Floats, weight: Floats) -> Floats:
            return share * self.on_what + sums(what, (weight - share[what]) * count, len(share))

        return total(self.share, weight[rows]), total(self.share**2, weight[rows] ** 2)

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
        self._names, self._voters, self._addresses, self._days = (_Numbers() for _ in range(4))
        self._what = _Numbers()  # by its text
        self._whats, self._rows = _Columns(5), _Columns(5)

    def add(self, cells: Iterable[Cell]) -> None:
        """Append counted votes. A contestant against itself says nothing and is left out."""
        kept = [cell for cell in cells if cell.a != cell.b]
        self._append(
            self._what.of([_text(c.a, c.b, c.verdict, c.sides, c.repeats) for c in kept]),
            self._voters.of([cell.voter for cell in kept]),
            self._addresses.of([cell.address for cell in kept]),
            self._days.of([cell.day for cell in kept]),
            [cell.count for cell in kept],
        )

    def add_pages(self, pages: Iterable[VotePage]) -> None:
        """Append votes one by one. Nobody may be voted on against itself."""
        told = []
        for page in pages:
            days = [moment[:_DAY] for moment in _TEXTS.decode(page.moments)]
            whats = _parted(page.whats, len(days))
            whos = _pseudonyms(page.voters), _pseudonyms(page.addresses)
            told.append((self._what.of(whats), *whos, self._days.of(days)))
        if told:
            what, voters, addresses, day = zip(*told, strict=True)
            who = self._voters.of_pages(voters), self._addresses.of_pages(addresses)
            self._append(np.concatenate(what), *who, np.concatenate(day), 1)

    def tally(self, names: Iterable[str] = ()) -> Tally:
        """All votes so far; `names` are contestants to list even if nobody voted on them yet.

        The contestants are in the order of their names, so that it does not matter who was voted on first.
        """
        ordered = tuple(sorted({*self._names, *names}))
        place = {name: number for number, name in enumerate(ordered)}
        a, b, *others = self._whats.all
        moved = np.array([place[name] for name in self._names], np.int64)
        whats = np.array([moved[a], moved[b], *others])
        return Tally(ordered, tuple(self._days), whats, *self._rows.all)

    def _append(self, what: Codes, *rest: ArrayLike) -> None:
        if fresh := list(islice(self._what, self._whats.used, None)):
            a, b, verdict, sides, repeats = zip(*_WHATS.decode(f"[[{'],['.join(fresh)}]]"), strict=True)
            verdicts, again = [VERDICTS.index(each) for each in verdict], np.minimum(repeats, MOST_REPEATS)
            self._whats.extend(len(fresh), self._names.of(a), self._names.of(b), verdicts, sides, again)
        self._rows.extend(len(what), what, *rest)


class _Numbers(defaultdict[str, int]):
    """Gives each new text the next number when it is first looked up."""

    def __init__(self) -> None:
        super().__init__(count().__next__)

    def of(self, texts: Sequence[str]) -> Codes:
        """The number of each text."""
        return np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))

    def of_pages(self, pages: Sequence[_Texts]) -> Codes:
        """The number of each text on all pages. Equal pseudonyms are found first: to look up takes longer."""
        packed = [page for page in pages if isinstance(page, np.ndarray)]
        found: Iterator[Codes] = iter(())
        if packed:
            each, place = np.unique(np.concatenate(packed).astype(np.uint64), return_inverse=True)
            numbers = self.of(each.astype(_PSEUDONYM).tobytes().hex("\n", _PSEUDONYM.itemsize).split("\n"))[place]
            found = iter(np.split(numbers, np.cumsum([len(page) for page in packed])))
        return np.concatenate([next(found) if isinstance(page, np.ndarray) else self.of(page) for page in pages])


class _Columns:
    """A growing table of numbers. What was handed out never changes: new columns go behind it."""

    def __init__(self, rows: int) -> None:
        self._space: Codes = np.empty((rows, 0), np.int64)
        self.used = 0

    @property
    def all(self) -> Codes:
        return self._space[:, : self.used]

    def extend(self, size: int, *rows: ArrayLike) -> None:
        """Append so many columns, whose numbers are given row by row."""
        used = self.used + size
        if used > self._space.shape[1]:
            more = np.empty((len(self._space), 2 * used), np.int64)
            more[:, : self.used] = self.all
            self._space = more
        for place, row in enumerate(rows):
            self._space[place, self.used : used] = row
        self.used = used


def sums(codes: Codes, amount: Floats | Codes, size: int = 0) -> Floats:
    """The sum of `amount` for each of the `codes`, at least `size` of them."""
    return np.bincount(codes, amount, size).astype(np.float64, copy=False)


def _text(*values: str | int) -> str:
    """What was voted, as `_parted` tells it."""
    return msgspec.json.encode(values)[1:-1].decode()


def _parted(whats: str, size: int) -> list[str]:
    """What each of so many votes says, without its brackets. Equal votes have equal texts."""
    texts = whats[2:-2].split("],[")
    return texts if len(texts) == size else [_text(*what) for what in _WHATS.decode(whats)]


def _pseudonyms(texts: str) -> _Texts:
    """The numbers that pseudonyms are, of a JSON list of them; of a list with anything else, its texts."""
    bare = texts[2:-2].replace('","', "\n")
    try:
        packed = bytes.fromhex(bare)
        if packed and packed.hex("\n", _PSEUDONYM.itemsize) == bare:
            return np.frombuffer(packed, _PSEUDONYM)
    except ValueError:  # other digits, or more or fewer of them
        pass
    return _TEXTS.decode(texts)
