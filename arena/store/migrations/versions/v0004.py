"""One name for each model: until now every spelling of it was a model of its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_votes = sa.table("votes", sa.column("model_a"), sa.column("model_b"))
_contestants = sa.table("configurations", sa.column("id"), sa.column("model"), sa.column("digest"), sa.column("label"))


def upgrade() -> None:
    """Take the spelling of a host, who tells weights and names a tag, where there is one; else the most frequent."""
    connection = op.get_bind()
    known = connection.execute(sa.select(_contestants)).all()
    count = Counter({row.model: 0 for row in known})
    for column in (_votes.c.model_a, _votes.c.model_b):
        for model, votes in connection.execute(sa.select(column, sa.func.count()).group_by(column)):
            count[model] += votes
    listed = {row.model for row in known if row.digest and _has_tag(row.model)}
    alike: dict[str, list[str]] = defaultdict(list)
    for model in sorted(count):
        alike[_canonical(model)].append(model)
    names: dict[str, str] = {}
    for models in alike.values():
        kept = max(models, key=lambda model: (model in listed, count[model]))
        names |= {other: kept for other in models if other != kept}
    if names:
        _rename_votes(connection, names)
        _rename_contestants(connection, [row for row in known if row.model in names], names)


def _rename_votes(connection: sa.Connection, names: dict[str, str]) -> None:
    """In two passes over the votes, however many names there are."""
    renames = sa.Table(
        "renames",
        sa.MetaData(),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        prefixes=["TEMPORARY"],
    )
    renames.create(connection)
    connection.execute(renames.insert(), [{"model": model, "name": name} for model, name in names.items()])
    for column in (_votes.c.model_a, _votes.c.model_b):
        name = sa.select(renames.c.name).where(renames.c.model == column).scalar_subquery()
        connection.execute(_votes.update().where(column.in_(sa.select(renames.c.model))).values({column: name}))
    renames.drop(connection)


def _rename_contestants(connection: sa.Connection, rows: Sequence[sa.Row[Any]], names: dict[str, str]) -> None:
    """Also where their label begins with the name."""
    changes = [
        {
            "key": row.id,
            "name": names[row.model],
            "text": names[row.model] + row.label[len(row.model) :] if row.label.startswith(row.model) else row.label,
        }
        for row in rows
    ]
    if changes:
        each = _contestants.update().where(_contestants.c.id == sa.bindparam("key"))
        connection.execute(each.values(model=sa.bindparam("name"), label=sa.bindparam("text")), changes)


def _has_tag(model: str) -> bool:
    return ":" in model.rsplit("/", 1)[-1]


def _canonical(model: str) -> str:
    """As names are compared today; a step must go on doing what it did."""
    return model.lower() if _has_tag(model) else f"{model.lower()}:latest"
