"""The vote in the compare tab: which of the answers to one prompt is the best, with the names in sight."""

from __future__ import annotations

from collections.abc import Sequence

from arena.battle import Column
from arena.ui.sessions import Session, Turn


def comparable(session: Session) -> list[str]:
    """The visible columns that have answered the latest prompt whole; none unless there are two, and all have ended."""
    turns = {letter: turn for letter in session.visible if (turn := session.columns[letter].last) is not None}
    if session.busy or not turns:
        return []
    latest = max(turns.values(), key=lambda turn: turn.asked_s).prompt
    letters = [letter for letter, turn in turns.items() if turn.prompt == latest and _whole(turn)]
    return letters if len(letters) > 1 else []


def control(session: Session, letter: str) -> str:
    """The button that votes for a column, what was voted, or nothing."""
    letters = comparable(session)
    if letter not in letters:
        return ""
    turns = last(session, letters)
    if not all(turn.ballot for turn in turns):
        return (
            f'<button type="button" class="best" data-action="best" aria-label="Vote: {letter} is the best answer" '
            'title="The best answer? Votes like this are kept apart from blind ones.">Best</button>'
        )
    if turns[letters.index(letter)].ballot == "best":
        return '<span class="best chosen" title="You voted for this answer">\N{BLACK STAR} your best</span>'
    return ""


def judged(session: Session, letters: Sequence[str]) -> tuple[list[str], list[Column]]:
    """The prompts and the columns to vote on: all turns where they are the same and whole in each, else the last."""
    told = {letter: [turn for turn in session.columns[letter].turns if turn.reply.text] for letter in letters}
    prompts = {tuple(turn.prompt.content for turn in turns) for turns in told.values()}
    if len(prompts) > 1 or not all(_whole(turn) for turns in told.values() for turn in turns):
        told = {letter: [turn] for letter, turn in zip(letters, last(session, letters), strict=True)}
    columns = [Column(turns[-1].instance, tuple(turn.reply for turn in turns)) for turns in told.values()]
    return [turn.prompt.content for turn in told[letters[0]]], columns


def last(session: Session, letters: Sequence[str]) -> list[Turn]:
    """The latest turns of these columns."""
    return [session.columns[letter].turns[-1] for letter in letters]


def _whole(turn: Turn) -> bool:
    reply = turn.reply
    return reply.metrics is not None and reply.manifest is not None and bool(reply.text) and not turn.reopened
