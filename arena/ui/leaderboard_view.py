"""The leaderboard as pieces of HTML: what is asked for, from the ratings to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from arena.errors import ArenaError
from arena.leaderboard import Board, Choices, Leaderboard, View, may_have_all
from arena.names import canonical
from arena.ratings import Moment, Rating
from arena.types import ModelInfo
from arena.ui import plots
from arena.ui.hosts import clock
from arena.ui.leaderboard_cost import cost
from arena.ui.leaderboard_filters import files, filters, parts_row
from arena.ui.leaderboard_method import method
from arena.ui.leaderboard_pairs import head_to_head
from arena.ui.leaderboard_query import Chosen
from arena.ui.leaderboard_ranking import (
    Known,
    Line,
    effects,
    is_gone,
    models_of,
    ranking,
    shown,
    style_change,
    with_settings,
)
from arena.ui.plots import words

if TYPE_CHECKING:
    from arena.arena import Arena
    from arena.fleet import Fleet


NO_STYLE = (
    "Style was counted in none of these votes: they came without their answers. Votes that are cast here have it."
)


FEW_VOTES = 10
"""In all: before that many, ratings over time only tell how little is known."""
_COUNTED = "Caps on voters and addresses, prompts asked again, ballots on more than two sides, and outliers"


class Sight(Struct, frozen=True):
    """What is asked for, and what must be known to draw it. May whoever looks have all `conversations`?

    `told` are the models of the hosts that have told theirs, `known` the same once all have.
    """

    chosen: Chosen
    choices: Choices
    known: Known
    last_vote: int
    conversations: bool = True
    told: Mapping[str, ModelInfo] = {}

    def shows(self, row: Rating) -> bool:
        """Is this contestant to be seen?"""
        return self.chosen.gone or not is_gone(row.model, self.known)


class BoardView:
    """The leaderboard as pieces of HTML. Its methods block, for threads; they raise StoreUnavailable."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    @property
    def _board(self) -> Leaderboard:
        return self._arena.leaderboard

    def last_vote(self) -> int:
        """The number of the latest vote; 0 before the first, also where there is no store yet."""
        return self._board.last_vote()

    def sight(self, wanted: Chosen, last_vote: int, known: Known, voter: str = "", key: str = "") -> Sight:
        """What is needed to draw for somebody who votes as `voter` and came with that `key`."""
        if not last_vote:
            return Sight(wanted, Choices(), known, 0)
        choices = self._board.choices(voter)
        return Sight(wanted, choices, known, last_vote, may_have_all(self._arena.settings, key))

    def pieces(self, sight: Sight) -> tuple[str, str, str]:
        """Head, form and body."""
        wanted = sight.chosen
        if not sight.last_vote:
            return _head(sight, None), "", no_votes() if wanted.part != "method" else parts_row("method") + method()
        board = self._board.board(replace(wanted.view(), per="model"))
        body = parts_row(wanted.part) + self._part(sight, board)
        return _head(sight, board), filters(wanted, sight.choices), body

    def _part(self, sight: Sight, board: Board) -> str:
        wanted = sight.chosen
        if wanted.part == "method":
            return method()
        if not board.votes:
            return nothing_counts(wanted)
        if not any(map(sight.shows, board.rows)):
            return all_hidden(len(board.rows))
        match wanted.part:
            case "pairs":
                return self._pairs(sight)
            case "time":
                return over_time(self._board.timeline(wanted.view()), board, sight)
            case "cost":
                rows = [row for row in board.rows if sight.shows(row)]
                return cost(rows, hues(rows), self._board.paces(), sight.told)
            case "style":
                return self._style(sight)
        return self._ranking(sight, board)

    def _ranking(self, sight: Sight, board: Board) -> str:
        wanted = sight.chosen
        lines = self._lines(wanted, board)
        seen, hidden = shown(lines, wanted, sight.known)
        flips = () if wanted.style else self._board.matrix(wanted.view()).flips
        bought = effects(board.effects) if wanted.style and board.effects else ""
        return ranking(seen, flips, sight.known, hidden=hidden) + bought

    def _lines(self, wanted: Chosen, board: Board) -> list[Line]:
        if not wanted.settings:
            return models_of(board.rows)
        view = wanted.view()
        labels = self._board.board(replace(view, per="configuration")).labels
        return with_settings(self._board.ladder(view), labels)

    def _pairs(self, sight: Sight) -> str:
        wanted = sight.chosen
        view = replace(wanted.view(), per="configuration" if wanted.settings else "model", style=False)
        models = {row.name: row for row in self._board.board(view).rows}
        return head_to_head(self._board.matrix(view), lambda name: sight.shows(models[name]))

    def _style(self, sight: Sight) -> str:
        view: View = sight.chosen.view()
        plain, held = (self._board.board(replace(view, style=style)) for style in (False, True))
        if not held.votes:
            return f'<p class="empty">{NO_STYLE}</p>'
        return effects(held.effects) + style_change(plain, held, sight.shows)


# ---- the pieces


def _head(sight: Sight, board: Board | None) -> str:
    told = "How good the models are, by your votes, and how sure that is."
    if board is not None and board.votes:
        told = _summary(board, sight)
    got = files(sight.chosen, conversations=sight.conversations) if sight.last_vote else ""
    title = f'<div><h2>Leaderboard</h2><p class="dim" role="status">{told}</p></div>'
    return f'<header class="sheet-head with-action">{title}{got}</header>'


def _summary(board: Board, sight: Sight) -> str:
    many = "voter" if board.voters == 1 else "voters"
    told = (
        f"{board.votes:,} vote{'' if board.votes == 1 else 's'} by {board.voters:,} {many} on {len(board.rows)} models"
    )
    if board.weight < 0.99 * board.votes:
        told += f', <span title="{_COUNTED}">counted as {board.weight:,.0f}</span>'
    if sight.choices.latest:
        told += f"; the latest vote {clock('ago', round(datetime.fromisoformat(sight.choices.latest).timestamp()))}"
    return f"{told}."


def opening() -> tuple[str, str]:
    """Head and body while the votes are counted for the first time."""
    return _head(Sight(Chosen(), Choices(), None, 0), None), '<p class="empty" role="status">Counting the votes…</p>'


def no_votes() -> str:
    """What to do first."""
    return (
        '<div class="first card"><h3>No votes yet</h3><p>Ask something in the Battle tab, read two answers without '
        "knowing whose they are, and say which one is better. After a handful of votes the first ratings stand here, "
        "with how far they can be trusted.</p>"
        '<button type="button" class="act primary" data-action="battle">Go to the Battle tab</button>'
        '<button type="button" class="act" data-action="part" data-value="method">How the ratings are made</button>'
        "</div>"
    )


def nothing_counts(wanted: Chosen) -> str:
    """Votes are there, and none of them is asked about."""
    why = (
        "No vote counts for the ratings yet: votes with the names in sight, and those on answers that gave their maker "
        "away, are kept apart."
    )
    if wanted.style:
        why = NO_STYLE
    elif wanted.narrowed:
        why = "No vote matches these filters."
    again = (
        '<button type="button" class="act" data-action="clear">Clear the filters</button>' if wanted.narrowed else ""
    )
    return f'<div class="first card"><h3>Nothing to rate</h3><p>{why}</p>{again}</div>'


def all_hidden(models: int) -> str:
    """All rated models are gone."""
    return (
        f'<div class="first card"><h3>None of the {models} rated models is installed now</h3><p>They are hidden, since '
        "nobody can ask them any more.</p>"
        '<button type="button" class="act primary" data-action="gone">Show them</button></div>'
    )


def unavailable(error: ArenaError) -> str:
    """The store does not answer."""
    return f'<div class="notice" role="alert"><p><b>The votes cannot be read</b></p><p>{words(error.message)}</p></div>'


def hues(rows: Sequence[Rating]) -> dict[str, str]:
    """A colour for each of these models whatever its rank; for the best ones where there are more than colours."""
    best = sorted(row.name for row in rows[: len(plots.HUES)])
    return dict(zip(best, plots.HUES, strict=False))


def over_time(moments: Sequence[Moment], board: Board, sight: Sight) -> str:
    """The ratings as they came about, on the days that had enough votes behind them to say anything."""
    moments = [moment for moment in moments if moment.votes >= FEW_VOTES] or moments[-1:]
    rows = [row for row in board.rows if sight.shows(row)]
    colours = hues(rows)
    found = []
    for row in rows:
        readings = tuple(
            plots.Reading(date.fromisoformat(moment.day), *moment.ratings[row.name])
            for moment in moments
            if row.name in moment.ratings
        )
        if readings:
            found.append(plots.Series(row.name, colours.get(row.name, ""), readings))
    if not found:
        return '<p class="empty">Nothing to show.</p>'
    last = ", ".join(f"{each.name} {each.readings[-1].value:.0f}" for each in found)
    told = f"Ratings at the end of {len(moments)} days, best first; at the end: {last}"
    note = "Each band holds the rating with 95 % confidence, from the votes until then."
    if len(moments) == 1:
        note = "One day to show so far; the lines begin with the next one that brings votes."
    if sight.chosen.style:
        note += " Style is not held equal here."
    drawn = plots.lines(found, "Ratings over time", told)
    return f'<section class="card map"><h3>Ratings over time</h3>{drawn}<p class="note dim">{note}</p></section>'


def installed(fleet: Fleet) -> Known:
    """What the hosts have; None before all of them have told: a model may be on one that is silent."""
    endpoints = fleet.endpoints
    return told(fleet) if endpoints and all(endpoint.heard for endpoint in endpoints) else None


def told(fleet: Fleet) -> Mapping[str, ModelInfo]:
    """What the hosts have, as far as they have told."""
    listed = fleet.catalogue.listed(info for endpoint in fleet.endpoints for info in endpoint.holds.values())
    return {canonical(info.name): info for info in listed.values()}
