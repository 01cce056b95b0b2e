"""Votes from one network on one day are counted at each vote."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Index them."""
    op.create_index("votes_from_an_address", "votes", ["address", "at"])
