"""Ballots on more than two sides, what was asked, how long it took, and where a vote comes from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_KNOWN = sa.CheckConstraint("verdict IN ('a', 'b', 'tie', 'both_bad')", name="a_known_verdict")


def upgrade() -> None:
    """Widen `votes`; SQLite cannot change a constraint, so there the table is made anew and filled from the old one."""
    with op.batch_alter_table(  # which does not see SQLite's check constraints and counters
        "votes", table_args=(_KNOWN,), table_kwargs={"sqlite_autoincrement": True}
    ) as votes:
        votes.add_column(sa.Column("pair", sa.Text, nullable=False, server_default="ab"))
        votes.add_column(sa.Column("sides", sa.Integer, nullable=False, server_default="2"))
        votes.add_column(sa.Column("prompt", sa.Text, nullable=False, server_default=""))
        votes.add_column(sa.Column("repeats", sa.Integer, nullable=False, server_default="0"))
        votes.add_column(sa.Column("dwell_s", sa.Float))
        votes.add_column(sa.Column("source", sa.Text, nullable=False, server_default=""))
        votes.drop_constraint("one_vote_per_battle_and_voter", type_="unique")
        votes.create_unique_constraint("one_vote_per_pair_and_voter", ["battle_id", "voter", "pair"])
    op.create_index("votes_on_a_prompt", "votes", ["voter", "prompt"])
