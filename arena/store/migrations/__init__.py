"""From any older schema to today's: one step a file in `versions/`, run by Alembic when the store is opened."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from arena.errors import StoreUnavailable


def migrate(connection: Connection) -> None:
    """Bring the schema up to date within the caller's transaction. Raises StoreUnavailable for one of a newer arena."""
    from alembic.migration import MigrationContext  # takes a while to import, and is wanted once
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))
    context = MigrationContext.configure(connection)
    at = context.get_current_revision()
    steps = list(script.walk_revisions())
    if at is not None and at not in {step.revision for step in steps}:
        raise StoreUnavailable("The store was written by a newer version of the arena; install that one.")
    due = [step for step in steps if at is None or step.revision > at]
    with Operations.context(context):
        for step in reversed(due):
            step.module.upgrade()
            context.stamp(script, step.revision)
