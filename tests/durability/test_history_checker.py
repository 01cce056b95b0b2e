"""The checker finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.durability.history import Deed, Listing, Outcome, Row, contradictions

BATTLE = ("b1", "ann")
KEPT: Row = (1, "b1", "ann", "a")
LATER: Row = (2, "b2", "ann", "a")


def voted(outcome: Outcome, verdict: str = "a", began: int = 0) -> Deed:
    return Deed("vote", BATTLE, verdict, outcome, began, began + 1)


def seen(outcome: Outcome, began: int) -> Deed:
    return Deed("view", BATTLE, "a", outcome, began, began + 1)


POSSIBLE: list[tuple[list[Deed], list[Listing], list[Row]]] = [
    ([], [], []),
    ([voted("kept")], [Listing((), 0, 3), Listing((KEPT,), 2, 3)], [KEPT]),
    ([voted("unknown")], [], [KEPT]),
    ([voted("unknown")], [], []),
    ([voted("refused"), voted("absent"), voted("never")], [], []),
    ([voted("refused"), voted("kept", began=2), voted("other", "b", 4)], [], [KEPT]),
    ([voted("kept"), seen("absent", 0), seen("kept", 2)], [], [KEPT]),
]

IMPOSSIBLE: list[tuple[str, list[Deed], list[Listing], list[Row]]] = [
    ("lost", [voted("kept")], [], []),
    ("lost", [voted("kept", "b"), voted("unknown")], [], [KEPT]),
    ("lost", [voted("kept"), voted("kept", "b")], [], [KEPT]),
    ("lost", [voted("unknown", "b"), seen("kept", 2)], [], [(1, "b1", "ann", "b")]),
    ("2 votes on", [voted("kept")], [], [KEPT, (2, *KEPT[1:])]),
    ("do not rise", [voted("kept"), Deed("vote", ("b2", "ann"), "a", "kept", 0, 1)], [], [LATER, KEPT]),
    ("nobody who asked", [], [], [KEPT]),
    ("nobody who asked", [voted("refused")], [], [KEPT]),
    ("nobody who asked", [voted("unknown", "b")], [], [KEPT]),
    ("refused for another", [voted("other", "b")], [], []),
    ("refused for another", [voted("kept"), voted("other", began=2)], [], [KEPT]),
    ("went back", [voted("kept"), seen("absent", 2)], [], [KEPT]),
    ("went back", [voted("unknown"), seen("kept", 2), voted("absent", began=4)], [], [KEPT]),
    ("not among", [voted("kept")], [Listing((), 2, 3)], [KEPT]),
    ("not how the store begins", [voted("unknown")], [Listing((KEPT,), 2, 3)], []),
    ("fewer votes", [voted("unknown")], [Listing((KEPT,), 2, 3), Listing((), 4, 5)], [KEPT]),
]


@pytest.mark.parametrize(("deeds", "listings", "rows"), POSSIBLE)
def test_what_can_have_happened(deeds: list[Deed], listings: list[Listing], rows: list[Row]) -> None:
    assert contradictions(deeds, listings, rows) == []


@pytest.mark.parametrize(("what", "deeds", "listings", "rows"), IMPOSSIBLE)
def test_what_cannot(what: str, deeds: list[Deed], listings: list[Listing], rows: list[Row]) -> None:
    assert [each for each in contradictions(deeds, listings, rows) if what in each]
