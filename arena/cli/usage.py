"""Mistakes in what was typed, which end a command as one of its options does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from arena.errors import BadRequest


class WrongUsage(BadRequest):
    """What was typed cannot be meant: nothing was begun, and the exit status is 2."""


@contextmanager
def typed() -> Iterator[None]:
    """A bad request in the block is one of the command line."""
    try:
        yield
    except BadRequest as error:
        raise WrongUsage(error.message) from None
