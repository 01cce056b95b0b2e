"""How much there was within the last minute."""

from __future__ import annotations

from collections import deque
from typing import Final

MINUTE_S: Final = 60.0


class Window:
    """A sum over the last minute. What comes within one second shares a cell, which bounds the memory to 61 of them."""

    __slots__ = ("_cells", "_total")

    def __init__(self) -> None:
        self._cells: deque[tuple[float, float, int]] = deque()  # began, latest, amount
        self._total = 0

    def add(self, amount: int, now: float) -> None:
        """Count `amount` at `now`."""
        self.total(now)
        self._total += amount
        if self._cells and 0 <= now - self._cells[-1][0] < 1:
            began, _, before = self._cells.pop()
            self._cells.append((began, now, before + amount))
        else:
            self._cells.append((now, now, amount))

    def total(self, now: float) -> int:
        """The sum of the last minute. What a clock that was set back has put into the future counts no more."""
        while self._cells and not 0 <= now - self._cells[0][1] < MINUTE_S:
            self._total -= self._cells.popleft()[2]
        return self._total

    def wait_s(self, limit: int, now: float) -> float:
        """Seconds until the sum is under `limit`; 0 when it is."""
        left, wait_s = self.total(now), 0.0
        for _, latest, amount in self._cells:
            if left < limit:
                break
            left -= amount
            wait_s = latest + MINUTE_S - now
        return wait_s
