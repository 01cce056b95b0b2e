"""What is kept by name beside the votes: conversations, presets, and what the ratings said at a time."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Kind = Literal["conversation", "preset"]


class Document(Struct, frozen=True):
    """A conversation or a preset of `owner` (a pseudonym). `at` is when it was last saved, ISO 8601 in UTC.

    `address` is the pseudonym of the network that it came from, where a browser without a key keeps it.
    """

    kind: Kind
    owner: str
    id: str
    at: str
    title: str
    content: Any
    address: str = ""


class Snapshot(Struct, frozen=True):
    """The ratings as they stood after the vote with the number `last_vote`."""

    number: int
    at: str
    last_vote: int
    content: Any
