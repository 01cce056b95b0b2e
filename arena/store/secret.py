"""The secret of a store, which its pseudonyms and the names of its voters are made with."""

from __future__ import annotations

from typing import Any, Final

LEAST_BYTES: Final = 16
"""A shorter secret could be guessed."""


class BadSecret(ValueError):
    """It is no secret; the message says where it stands, and what can be done."""


def read(value: Any) -> bytes:
    """The secret as it stands in the store. Raises BadSecret."""
    try:
        found = bytes.fromhex(value)
    except (ValueError, TypeError):
        found = b""
    if len(found) < LEAST_BYTES:
        raise BadSecret(
            "the secret called salt in its table facts cannot be read; "
            "restore a good backup, or delete that row: then all vote under new names"
        )
    return found
