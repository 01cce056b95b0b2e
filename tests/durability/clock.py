"""The wall clock that the servers under test see, moved by hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Moves the clock of processes that were started with `environment`; where there is no compiler it stands still."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self._offset.write_bytes(bytes(8))
        self.environment: dict[str, str] = {}
        if compiler := shutil.which("cc") or shutil.which("gcc"):
            library = folder / "clock.so"
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True, timeout=60)
            self.environment = {"LD_PRELOAD": str(library), "ARENA_TEST_CLOCK": str(self._offset)}

    def move(self, seconds: float) -> None:
        """From now on it shows so much more than the true time."""
        with open(self._offset, "r+b") as file:
            file.write(int(seconds * 1e9).to_bytes(8, "little", signed=True))
