"""Votes as files, in the field names of LMArena's published battles, and preference pairs for training.

Everything is read and written piece by piece: an export of a million votes takes no more memory than one of a hundred.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import msgspec

from arena.errors import BadRequest
from arena.leaderboard.tables import csv_lines
from arena.store import PART_ROWS, Side, Store, StoredBattle
from arena.types import Style, Verdict, Vote

WINNERS: Final[dict[Verdict, str]] = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "tie (bothbad)"}
# The names that LMArena's style control reads, by those of Style.
STYLES: Final = (
    ("sum_assistant_{}_tokens", "tokens"),
    ("header_count_{}", "headers"),
    ("list_count_{}", "lists"),
    ("bold_count_{}", "bold"),
)
_EXAMPLE: Final = Vote("", "2026-01-01", "", "", "", "", "a", style_a=Style(), style_b=Style(), dwell_s=0.0)
"""Has a value in every column, which tells the columns and what is in them."""
_BATCH: Final = 1000
_PIECE: Final = 64 * 1024
_encoder: Final = msgspec.json.Encoder()


def votes_csv(store: Store) -> Iterator[bytes]:
    """All votes as CSV, safe to open in a spreadsheet; of none at all the names of the columns."""
    lines: list[list[object]] = [list(_row(_EXAMPLE))]
    for batch in _batches(store):
        lines += (list(_row(vote).values()) for vote in batch)
        yield csv_lines(lines).encode()
        lines = []
    if lines:
        yield csv_lines(lines).encode()


def votes_jsonl(store: Store) -> Iterator[bytes]:
    """All votes as JSON lines, with the conversations of the battles that were kept."""
    for batch in _batches(store):
        fought = _with_battles(store, batch)
        rows = [_row(vote) | ({} if battle is None else _conversations(vote, battle)) for vote, battle in fought]
        yield _encoder.encode_lines(rows)


def votes_parquet(store: Store) -> Iterator[bytes]:
    """All votes as Parquet. Raises BadRequest where pyarrow is not installed."""
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise BadRequest("Parquet needs the package pyarrow on the server: pip install pyarrow") from None
    return _parquet(store, arrow, parquet)


def _parquet(store: Store, arrow: Any, parquet: Any) -> Iterator[bytes]:
    text, number, flag = arrow.string(), arrow.int64(), arrow.bool_()
    kinds = {str: text, int: number, float: arrow.float64(), bool: flag}
    schema = arrow.schema([(name, kinds[type(value)]) for name, value in _row(_EXAMPLE).items()])
    with tempfile.TemporaryFile() as file:
        with parquet.ParquetWriter(file, schema) as writer:
            for batch in _batches(store):
                writer.write_table(arrow.Table.from_pylist([_row(vote) for vote in batch], schema))
        file.seek(0)
        yield from _pieces(file)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def preferences(store: Store, blind: bool = True) -> Iterator[bytes]:
    """Pairs of answers as JSON lines, the better one `chosen`: what preference training reads.

    Only kept battles that one side won; `blind` leaves out votes cast when the models were known.
    """
    for batch in _batches(store):
        won = [vote for vote in batch if vote.verdict in ("a", "b") and vote.rated and (vote.blind or not blind)]
        fought = _with_battles(store, won)
        if rows := [_preference(vote, battle) for vote, battle in fought if battle is not None]:
            yield _encoder.encode_lines(rows)


def _with_battles(store: Store, votes: list[Vote]) -> Iterator[tuple[Vote, StoredBattle | None]]:
    """Each vote, and the battle that was kept with it; a vote from elsewhere may be on sides that it does not have."""
    for start in range(0, len(votes), PART_ROWS):
        part = votes[start : start + PART_ROWS]
        kept = store.battles({vote.battle_id for vote in part})
        for vote in part:
            battle = kept.get(vote.battle_id)
            yield vote, battle if battle is not None and battle.sides.keys() >= set(vote.pair) else None


def _batches(store: Store) -> Iterator[list[Vote]]:
    batch: list[Vote] = []
    for _, vote in store.votes():
        batch.append(vote)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _row(vote: Vote) -> dict[str, Any]:
    """One vote, flat. Counts of style are None where nobody counted."""
    row: dict[str, Any] = {
        "question_id": vote.battle_id,
        "model_a": vote.model_a,
        "model_b": vote.model_b,
        "winner": WINNERS[vote.verdict],
        "judge": vote.voter,
        "turn": vote.turns,
        "anony": vote.blind,
        "tstamp": _seconds(vote.at),
        "configuration_a": vote.configuration_a,
        "configuration_b": vote.configuration_b,
        "rated": vote.rated,
        "category": vote.category,
        "tags": ",".join(vote.tags),
        "pair": vote.pair,
        "sides": vote.sides,
        "prompt": vote.prompt,
        "repeats": vote.repeats,
        "dwell_s": vote.dwell_s,
        "source": vote.source,
    }
    for side, style in (("a", vote.style_a), ("b", vote.style_b)):
        for name, field in STYLES:
            row[name.format(side)] = None if style is None else getattr(style, field)
    return row


def _seconds(at: str) -> float:
    moment = datetime.fromisoformat(at)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _conversations(vote: Vote, battle: StoredBattle) -> dict[str, Any]:
    sides = zip("ab", vote.pair, strict=True)
    return {f"conversation_{name}": _conversation(battle, battle.sides[letter]) for name, letter in sides}


def _conversation(battle: StoredBattle, side: Side) -> list[dict[str, str]]:
    return [
        {"role": role, "content": text}
        for prompt, answer in zip(battle.prompts, side.answers, strict=False)
        for role, text in (("user", prompt), ("assistant", answer))
    ]


def _preference(vote: Vote, battle: StoredBattle) -> dict[str, Any]:
    a, b = (battle.sides[letter] for letter in vote.pair)
    chosen, rejected = (a, b) if vote.verdict == "a" else (b, a)
    return {
        "prompt": battle.prompts[0] if len(battle.prompts) == 1 else list(battle.prompts),
        "chosen": _conversation(battle, chosen),
        "rejected": _conversation(battle, rejected),
        "chosen_model": chosen.configuration.model,
        "rejected_model": rejected.configuration.model,
        "chosen_manifests": chosen.manifests,
        "rejected_manifests": rejected.manifests,
        "blind": vote.blind,
        "rater": vote.voter,
        "question_id": vote.battle_id,
        "tstamp": _seconds(vote.at),
    }
