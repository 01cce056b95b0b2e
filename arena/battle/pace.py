"""Answers shown in step: none is ever ahead of another, so that speed gives nobody away. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

SideName = Literal["a", "b", "c", "d"]
SIDES: Final[tuple[SideName, ...]] = ("a", "b", "c", "d")
"""All that a battle can have; one of two sides has the first two."""

TICK_S: Final = 0.1
"""From one step to the next, at least."""

STEP_CHARACTERS: Final = 40
"""Shown of each side at a time at most; what a fast machine has ready still comes at a reader's pace."""

LEAST_CHARACTERS: Final = 3
"""Shown at a time at least of what waits, while a side has ended: about as fast as people read."""

_USUAL_CHARACTERS: Final = 200
_USUAL_S: Final = 2.0
"""A pace as if these had been shown in that time too: of answers that end after a word nobody knows their pace yet."""


class Shown(Struct, frozen=True):
    """What is told of one side before the vote: a piece of text, and at last that it is over, well or not."""

    side: SideName
    text: str = ""
    done: bool = False
    failed: bool = False


class _Waiting:
    """What a side has said that was not shown yet; kept as it came, so that much of it costs no more than little."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[str] = deque()
        self._taken = 0  # characters of the first piece

    def put(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self.size += len(text)

    def take(self, size: int) -> str:
        left, found = min(size, self.size), []
        self.size -= left
        while left:
            piece = self._pieces[0][self._taken : self._taken + left]
            left -= len(piece)
            self._taken += len(piece)
            if self._taken == len(self._pieces[0]):
                self._pieces.popleft()
                self._taken = 0
            found.append(piece)
        return "".join(found)


class Pace:
    """Takes what comes, gives what may be shown: as much of each side as the slowest one has said.

    Once a side has been shown to its end, the others go on as fast as all were shown until then: that it is over tells
    not whether it was the slow one. The ends are told together. One side's failure ends the turn: all are told to have
    failed.
    """

    def __init__(self, sides: Sequence[SideName], step: int = STEP_CHARACTERS) -> None:
        self._step = step
        self._waiting = {side: _Waiting() for side in sides}
        self._open = set(sides)
        self._began_s: float | None = None
        self._shown = 0
        self._alone = False
        self.failed = False
        self.over = False

    def put(self, side: SideName, text: str) -> None:
        """A side has said something."""
        self._waiting[side].put(text)

    def end(self, side: SideName, *, failed: bool = False) -> None:
        """A side says no more."""
        self._open.discard(side)
        self.failed = self.failed or failed

    def take(self, now_s: float) -> list[Shown]:
        """The next step, empty when the slowest side has to be waited for; after the last one, `over` is set.

        `now_s` is on any clock, in seconds. Whoever was given a step waits TICK_S before the next one.
        """
        if self.failed:
            self.over = True
            return [Shown(side, done=True, failed=True) for side in self._waiting]
        if not self._alone and any(not self._waiting[side].size for side in self._waiting.keys() - self._open):
            self._alone, self._step = True, self._so_far(now_s)
        size = min([self._step, *(self._waiting[side].size for side in self._open)])
        shown = []
        for side, waiting in self._waiting.items():
            if text := waiting.take(size):
                shown.append(Shown(side, text))
        if shown and self._began_s is None:
            self._began_s = now_s
        self._shown += size
        if not self._open and not any(waiting.size for waiting in self._waiting.values()):
            self.over = True
            shown += [Shown(side, done=True) for side in self._waiting]
        return shown

    def _so_far(self, now_s: float) -> int:
        """Characters a step at the pace since the first one."""
        spent_s = now_s - self._began_s if self._began_s is not None else 0.0
        a_second = (self._shown + _USUAL_CHARACTERS) / (spent_s + _USUAL_S)
        return min(self._step, max(LEAST_CHARACTERS, round(a_second * TICK_S)))
