"""From any older schema to today's: one step a file in `versions/`, run by Alembic when the store is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from arena.errors import StoreUnavailable

LATEST: Final = "0005"
"""The step that today's schema is at."""


def migrate(connection: Connection) -> None:
    """Bring the schema up to date within the caller's transaction. Raises StoreUnavailable for one of a newer arena."""
    at = _reached(connection)
    if at == LATEST:
        return
    from alembic.migration import MigrationContext  # takes long to import, and is seldom wanted
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))
    steps = list(reversed(list(script.walk_revisions())))
    if at is not None and at not in {step.revision for step in steps}:
        raise StoreUnavailable("The store was written by a newer version of the arena; install that one.")
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for step in steps:
            if at is None or step.revision > at:
                step.module.upgrade()
                context.stamp(script, step.revision)


def _reached(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
