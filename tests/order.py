"""How several processes share the suite: what stays together, and what takes longest begins first."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

TOGETHER = ("tests/e2e", "tests/engine", "tests/faults", "tests/clients", "tests/store")
"""Folders whose files share a browser, a model or servers, which each process would start for itself."""
FIRST = (*TOGETHER, "tests/durability", "tests/test_bench_counts.py", "tests/cli/test_doors.py", "tests/api")
"""The longest, longest first: begun last, one of them would run alone at the end."""


def unit(nodeid: str) -> str:
    """What runs in one process, one after another: a folder of TOGETHER, or else a file."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)


def turn(nodeid: str) -> int:
    """When a test's turn is: the place of what it belongs to in FIRST; the rest keep their order after them."""
    return next((place for place, name in enumerate(FIRST) if nodeid.startswith(name)), len(FIRST))


class UnitScheduling(LoadFileScheduling):
    """Hands out units in the order of the collection, whatever their number of tests."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
