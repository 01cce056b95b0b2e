"""A battle that was voted on, with the names of the models or without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from arena.battle import ranks, without_names
from arena.share.answers import Answer, Round, answers_page
from arena.store import Side, StoredBattle
from arena.types import Vote

_Mark = tuple[str, bool]
"""What is said of a side, and whether it has won."""


def battle_page(
    ballot: Sequence[Vote], battle: StoredBattle, *, masked: bool = False, now: datetime | None = None
) -> str:
    """One document. `masked` leaves out who fought, and everything that would tell it.

    What names a model in an answer is blacked out then; the prompts stay as they were written.
    """
    models = [name for side in battle.sides.values() for name in _names(side)] if masked else []
    places = ranks({vote.pair: vote.verdict for vote in ballot})
    last = len(battle.prompts) - 1
    marks = _marks(places, tuple(battle.sides))
    rounds = []
    for turn, prompt in enumerate(battle.prompts):
        found = {letter: marks[letter] if turn == last else ("", False) for letter in marks}
        answers = tuple(_answer(letter, side, turn, found[letter], models) for letter, side in battle.sides.items())
        rounds.append(Round(prompt, answers))
    told = [f"Verdict: {_verdict(places, len(battle.sides))}", f"Voted on {ballot[0].at[:10]}"]
    told += ["The models are not named here"] if masked else []
    return answers_page("Blind battle" if ballot[0].blind else "Comparison", told, rounds, now)


def _names(side: Side) -> Iterator[str]:
    """What gives a side away: its model, and the families that its manifests tell."""
    yield side.configuration.model
    for manifest in side.manifests:
        if isinstance(family := manifest.get("family"), str):
            yield family


def _verdict(places: Mapping[str, int] | None, sides: int) -> str:
    if places is None:
        return "both are bad" if sides == 2 else "all are bad"
    if len(set(places.values())) == 1:
        return "a tie"
    best = [letter.upper() for letter in places if places[letter] == 1]
    return f"{' and '.join(best)} {'is' if len(best) == 1 else 'are'} best"


def _marks(places: Mapping[str, int] | None, letters: tuple[str, ...]) -> dict[str, _Mark]:
    if places is None or len(set(places.values())) == 1:
        return dict.fromkeys(letters, ("", False))
    return {
        letter: ("★ best" if places[letter] == 1 else f"place {places[letter]}", places[letter] == 1)
        for letter in letters
    }


def _answer(letter: str, side: Side, turn: int, mark: _Mark, hidden: Sequence[str]) -> Answer:
    """`hidden` are the models whose names must not be told, if any."""
    text, (word, best) = side.answers[turn], mark
    if hidden:
        return Answer(letter.upper(), without_names(text, hidden), mark=word, best=best)
    of = side.configuration
    settings = of.label.removeprefix(of.model).lstrip(", ")
    figures = _figures(side.metrics[turn]) if turn < len(side.metrics) else ""
    return Answer(f"{letter.upper()}: {of.model}", text, settings, figures, word, best)


def _figures(metrics: Mapping[str, Any]) -> str:
    """What the answer cost, as far as it is known and means something."""
    figures = []
    if tokens := metrics.get("tokens"):
        figures.append(f"{tokens:,} tokens")
    if metrics.get("rate_reliable") and metrics.get("tokens_per_sec"):
        figures.append(f"{metrics['tokens_per_sec']:.1f} tokens/s")
    if metrics.get("ttft_s") is not None:
        figures.append(f"first token {metrics['ttft_s']:.2f} s")
    return ", ".join(figures)
