"""What may be told of a battle: before the vote only that it is there, after it everything."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from arena.battle.ballot import ranks
from arena.names import canonical
from arena.store import StoredBattle
from arena.store.spelling import called
from arena.types import Configuration, Manifest, ModelInstance, Verdict, Vote


class RevealedSide(Struct, frozen=True):
    """Who one side was, and what each of its answers cost."""

    model: str
    endpoint: str
    configuration: str
    label: str
    options: dict[str, Any]
    answers: tuple[str, ...]
    metrics: tuple[dict[str, Any], ...]
    manifests: tuple[dict[str, Any], ...]


class BattleView(Struct, frozen=True, omit_defaults=True):
    """A battle as its voter may see it: what has a default is only there after the vote.

    `sides` are the letters of those who fight. Of more than two, `ranks` tells their places, unless all were bad.
    `votes_left` is told when the battle begins, where the voter has only a few votes left today, this one included.
    """

    id: str
    state: str
    turns: int
    vote_open: bool
    sides: tuple[str, ...]
    votes_left: int | None = None
    verdict: Verdict | None = None
    ranks: dict[str, int] | None = None
    rated: bool | None = None
    revealed: dict[str, RevealedSide] | None = None


def revealed(ballot: Sequence[Vote], battle: StoredBattle) -> BattleView:
    """A battle after its vote. The `ballot`, as it is kept, has one for each pair of sides, and their models' names."""
    names = {side: name for vote in ballot for side, name in zip(vote.pair, (vote.model_a, vote.model_b), strict=True)}
    sides = {}
    for letter, side in sorted(battle.sides.items()):
        of = called(side.configuration, names.get(letter, side.configuration.model))
        endpoint = str(side.manifests[-1].get("endpoint", "")) if side.manifests else of.endpoint
        sides[letter] = RevealedSide(
            of.model, endpoint, of.id, of.label, of.options, side.answers, side.metrics, side.manifests
        )
    told = {vote.pair: vote.verdict for vote in ballot}
    return BattleView(
        battle.id,
        "voted",
        ballot[0].turns,
        False,
        tuple(sides),
        verdict=ballot[0].verdict if len(sides) == 2 or ballot[0].verdict == "both_bad" else None,
        ranks=ranks(told) if len(sides) > 2 else None,
        rated=any(vote.rated for vote in ballot),
        revealed=sides,
    )


def configuration_of(instance: ModelInstance, manifest: Manifest) -> Configuration:
    """The contestant that `instance` was: equal weights with equal settings are the same one, wherever they ran."""
    weights = manifest.digest or canonical(manifest.model)
    settings = (manifest.options_sent, instance.system, manifest.think)
    told = msgspec.json.encode((weights, *settings), order="deterministic")
    model = _listed(manifest)
    return Configuration(
        id=sha256(told).hexdigest()[:16],
        model=model,
        digest=manifest.digest,
        options=manifest.options_sent,
        endpoint=manifest.endpoint,
        label=_label(model, manifest, instance.system),
    )


def _listed(manifest: Manifest) -> str:
    """The model as its host lists it: with its tag, also where whoever asked left it out. Only hosts tell a digest."""
    bare = canonical(manifest.model) != manifest.model.lower()
    return f"{manifest.model}:latest" if bare and manifest.digest is not None else manifest.model


def _label(model: str, manifest: Manifest, system: str | None) -> str:
    settings = [f"{name} {value}" for name, value in sorted(manifest.options_sent.items())]
    if manifest.think is not None:
        settings.append(f"think {manifest.think}".lower())
    if system is not None:
        settings.append("own system prompt")
    return ", ".join([model, *settings])
