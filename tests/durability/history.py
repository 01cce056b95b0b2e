"""What people did and saw while an arena was being broken, and whether all of it can be true at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from msgspec import Struct

Key = tuple[str, str]
"""A battle, and who votes on it, by their pseudonym."""

Row = tuple[int, str, str, str]
"""A vote in the store: its number, the battle, the voter's pseudonym, the verdict."""

Outcome = Literal["kept", "other", "absent", "refused", "unknown", "never"]
"""kept: it is on the disk, so the server says. other: another verdict is. absent: no vote is known. refused: "nothing
was saved". unknown: no answer came. never: the request was not sent."""


class Deed(Struct, frozen=True):
    """A vote, or a look at a battle, between two ticks of one counter. `verdict` is what was asked for, or seen."""

    kind: Literal["vote", "view"]
    key: Key
    verdict: str
    outcome: Outcome
    began: int
    ended: int


class Listing(Struct, frozen=True):
    """Everything that the store held, as somebody beside the server read it."""

    rows: tuple[Row, ...]
    began: int
    ended: int


def contradictions(deeds: Sequence[Deed], listings: Sequence[Listing], rows: Sequence[Row]) -> list[str]:
    """Why this cannot have happened in an arena that keeps every vote once; `rows` are the store at the end."""
    told = (_in_the_table(rows), _of_votes(deeds, rows), _of_reads(deeds, rows), _of_listings(deeds, listings, rows))
    return [each for part in told for each in part]


def _in_the_table(rows: Sequence[Row]) -> Iterator[str]:
    for key, count in Counter(row[1:3] for row in rows).items():
        if count > 1:
            yield f"{count} votes on {key}"
    if any(before[0] >= after[0] for before, after in pairwise(rows)):
        yield "the numbers do not rise"


def _of_votes(deeds: Sequence[Deed], rows: Sequence[Row]) -> Iterator[str]:
    kept = {row[1:3]: row[3] for row in rows}
    for deed in deeds:
        here = kept.get(deed.key)
        if deed.outcome == "kept" and here != deed.verdict:
            yield f"lost: {deed}, the store has {here}"
        if deed.outcome == "other" and here in (None, deed.verdict):
            yield f"refused for another verdict: {deed}, the store has {here}"
    asked = {(deed.key, deed.verdict) for deed in deeds if deed.kind == "vote" and deed.outcome in ("kept", "unknown")}
    for key, verdict in kept.items():
        if (key, verdict) not in asked:
            yield f"{verdict} on {key} is in the store, but nobody who asked for it can think so"


def _of_reads(deeds: Sequence[Deed], rows: Sequence[Row]) -> Iterator[str]:
    """Whoever looks after somebody has seen a vote sees it too."""
    known = _known(deeds)
    for deed in deeds:
        since = known.get(deed.key)
        if deed.outcome == "absent" and since is not None and deed.began > since:
            yield f"went back: {deed}, though a vote was known at {since}"


def _of_listings(deeds: Sequence[Deed], listings: Sequence[Listing], rows: Sequence[Row]) -> Iterator[str]:
    """Votes become visible in the order of their numbers, and stay."""
    known = _known(deeds)
    ordered = sorted(listings, key=lambda listing: listing.began)
    for listing in ordered:
        if tuple(rows[: len(listing.rows)]) != listing.rows:
            yield f"what was listed at {listing.began} is not how the store begins"
        seen = {row[1:3] for row in listing.rows}
        for key, since in known.items():
            if since < listing.began and key not in seen:
                yield f"the vote on {key}, known at {since}, is not among what was listed at {listing.began}"
    for before, after in pairwise(ordered):
        if before.ended < after.began and len(after.rows) < len(before.rows):
            yield f"fewer votes at {after.began} than at {before.began}"


def _known(deeds: Sequence[Deed]) -> dict[Key, int]:
    """The tick at which the first one knew that there is a vote on this battle."""
    known: dict[Key, int] = {}
    for deed in deeds:
        if deed.outcome in ("kept", "other"):
            known[deed.key] = min(deed.ended, known.get(deed.key, deed.ended))
    return known
