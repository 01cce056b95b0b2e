"""The JSON file of LLM Comparator: two models, and for each prompt a score from -1.5 (b is much better) to 1.5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from arena.errors import BadRequest
from arena.leaderboard import incoming
from arena.leaderboard.incoming import Comparison, Judged

SOURCE: Final = "llm-comparator"
NEAR: Final = 0.25
"""Scores no further from zero are a draw, as its own figures count them."""


def fits(document: dict[str, Any]) -> bool:
    """Does it look like one?"""
    return "examples" in document and "models" in document


def comparisons(document: dict[str, Any], now: str) -> Iterator[Comparison]:
    """What was judged, as of `now`, since the file tells no time. The judge is mostly a model: never blind.

    Raises BadRequest naming the key.
    """
    models = incoming.rows(document.get("models"), "models")
    if len(models) != 2:
        raise BadRequest("models must be two models, each with its name")
    a, b = (
        incoming.configuration(incoming.name(each.get("name"), f"models[{i}].name")) for i, each in enumerate(models)
    )
    metadata = incoming.row(document.get("metadata", {}), "metadata")
    path = incoming.word(metadata.get("source_path"), "metadata.source_path", incoming.MOST_PATH)
    judge = f"{SOURCE}: {path or 'unnamed'}"[: incoming.MOST_NAME]
    for place, example in enumerate(incoming.rows(document.get("examples"), "examples")):
        key = f"examples[{place}]"
        if example.get("score") is None:  # nobody could judge it
            continue
        score = incoming.number(example["score"], f"{key}.score")
        prompt = _said(example.get("input_text"), f"{key}.input_text")
        answers = [_said(example.get(f"output_text_{side}"), f"{key}.output_text_{side}") for side in "ab"]
        sides = (Judged(a, (answers[0],), score), Judged(b, (answers[1],), 0.0))
        yield Comparison(SOURCE, now, (prompt,), sides, voter=judge, tags=incoming.tags(example.get("tags")), near=NEAR)


def _said(value: Any, key: str) -> str:
    """A text, or pieces of which only the texts can be kept."""
    if isinstance(value, str):
        return value
    pieces = incoming.rows(value, key)
    told = [piece for piece in pieces if piece.get("type", "text") == "text"]
    return "".join(incoming.text(piece.get("data"), f"{key}[{place}].data") for place, piece in enumerate(told))
