"""Presets and conversations are counted by the network that they come from, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the network; of what was kept before nobody knows it."""
    op.add_column("documents", sa.Column("address", sa.Text, nullable=False, server_default=""))
