"""Who has a SQLite store open: everybody shares a lock on a file beside it, and a restore must have it alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

SUFFIX: Final = "-lock"
"""What is added to the name of the store. The file stays, and is empty: to remove one in use would part its users."""


class Hold:
    """The lock of one user of the store; the system takes it back when the process ends.

    Where there are no such locks, or the file cannot be made, everything is granted.
    """

    def __init__(self, file: Path) -> None:
        """`file` is that of the store; touches nothing yet."""
        self._file = file
        self._descriptor: int | None = None

    def share(self) -> bool:
        """Have it like others, also again or instead of alone; False where somebody has it alone."""
        if self._descriptor is None:
            name = os.path.realpath(self._file) + SUFFIX
            try:
                self._descriptor = os.open(name, os.O_RDONLY | os.O_CREAT, 0o644)
            except OSError:
                return True
        if self._granted(alone=False):
            return True
        self.release()
        return False

    def take_alone(self) -> bool:
        """Have it alone, after `share`; False where others have it. Then it may be lost: share it again."""
        return self._granted(alone=True)

    def release(self) -> None:
        """Have it no more; again is fine."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _granted(self, *, alone: bool) -> bool:
        if sys.platform == "win32" or self._descriptor is None:
            return True
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True
