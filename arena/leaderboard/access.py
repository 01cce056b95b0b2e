"""Who may bring in votes, and take out what was said in battles."""

from __future__ import annotations

from arena.settings import Settings


def may_have_all(settings: Settings, key: str = "") -> bool:
    """May whoever comes with the named `key` ("": with none) import votes, and have the conversations of others?

    On a server for others nobody who is not known, and over the network nobody where it is not to be managed.
    """
    known = not settings.shared or settings.token is not None or key != ""
    return known and settings.management_allowed
