"""One model, one name: however somebody spells it, votes on it are kept under the name that it had first."""

from __future__ import annotations

from msgspec.structs import replace
from sqlalchemy import Connection, select

from arena.names import canonical
from arena.store.tables import configurations
from arena.types import Configuration, Vote


class Spellings:
    """What each model is called in a store, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        models = connection.execute(select(configurations.c.model).distinct()).scalars()
        self._known: dict[str, str] = {canonical(model): model for model in models}

    def of(self, model: str) -> str:
        """The name here of what is called `model`; from now on that, if nobody has had it yet."""
        return self._known.setdefault(canonical(model), model)

    def vote(self, vote: Vote) -> Vote:
        """The same vote on the models as they are called here."""
        a, b = self.of(vote.model_a), self.of(vote.model_b)
        return vote if (a, b) == (vote.model_a, vote.model_b) else replace(vote, model_a=a, model_b=b)

    def contestant(self, known: Configuration) -> Configuration:
        """The same contestant with the name of its model here, also where its label begins with it."""
        return called(known, self.of(known.model))


def called(known: Configuration, model: str) -> Configuration:
    """`known` under another name of its model."""
    if known.model == model:
        return known
    label = model + known.label.removeprefix(known.model) if known.label.startswith(known.model) else known.label
    return replace(known, model=model, label=label)
