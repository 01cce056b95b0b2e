"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    _contestants()
    _battles()
    _votes()
    _kept()


def _contestants() -> None:
    op.create_table(
        "facts",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "configurations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
    )


def _battles() -> None:
    op.create_table(
        "battles",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("prompts", sa.Text, nullable=False),
    )
    op.create_table(
        "sides",
        sa.Column("battle_id", sa.Text, sa.ForeignKey("battles.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("side", sa.Text, primary_key=True),
        sa.Column("configuration_id", sa.Text, sa.ForeignKey("configurations.id"), nullable=False),
        sa.Column("answers", sa.Text, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("manifests", sa.Text, nullable=False),
    )


def _votes() -> None:
    op.create_table(
        "votes",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("battle_id", sa.Text, nullable=False),
        sa.Column("voter", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("configuration_a", sa.Text, nullable=False),
        sa.Column("configuration_b", sa.Text, nullable=False),
        sa.Column("model_a", sa.Text, nullable=False),
        sa.Column("model_b", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("blind", sa.Boolean, nullable=False),
        sa.Column("rated", sa.Boolean, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("style_a", sa.Text),
        sa.Column("style_b", sa.Text),
        sa.UniqueConstraint("battle_id", "voter", name="one_vote_per_battle_and_voter"),
        sa.CheckConstraint("verdict IN ('a', 'b', 'tie', 'both_bad')", name="a_known_verdict"),
        sqlite_autoincrement=True,
    )
    op.create_index("votes_of_a_voter", "votes", ["voter", "at"])


def _kept() -> None:
    op.create_table(
        "documents",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("last_vote", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
