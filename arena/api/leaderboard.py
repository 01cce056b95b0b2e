"""/api/leaderboard and /api/votes: the ratings with what they rest on, and everything as a file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from arena.api import samples
from arena.api.carrier import inbound_of
from arena.api.operation import Operation, Query, json_response
from arena.arena import Arena
from arena.errors import BadRequest, Forbidden
from arena.leaderboard import (
    ALL,
    Board,
    Estimate,
    Said,
    View,
    board_csv,
    board_markdown,
    labels,
    may_have_all,
    preferences,
    votes_csv,
    votes_jsonl,
    votes_parquet,
)
from arena.ratings import Ladder, Moment
from arena.share import board_page

MOST_POINTS: Final = 100
MOST_CHARACTERS: Final = 200

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(T[\d:.]{4,15}(Z|[+]00:00)?)?")
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_CHOSEN: Final = ("per", "blind", "category", "tag", "since", "until", "voter", "style")


class Ladders(Struct, frozen=True):
    """Every model with its settings; `labels` tell the settings in words, and weights where those alone differ."""

    ladders: tuple[Ladder, ...]
    labels: dict[str, str]


class Day(Struct, frozen=True):
    """The ratings of the votes until the end of `day`, of those with votes by then."""

    day: str
    votes: int
    ratings: dict[str, Estimate]


class Timeline(Struct, frozen=True):
    """The ratings over time, as they are seen today (`moments`) and as they were `told` then."""

    moments: tuple[Day, ...]
    told: tuple[Said, ...]


class Ratings:
    """The leaderboard routes over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._leaderboard, self._store = arena.leaderboard, arena.store
        self._settings, self._rated = arena.settings, arena.rated

    async def board(self, request: Request) -> Response:
        """The leaderboard as JSON, CSV, Markdown or HTML."""
        view = _view(request, "format", "masked")
        wanted, masked = one_of(request, "format", ("json", "csv", "md", "html")), flag(request, "masked", False)
        if masked and wanted != "html":
            raise BadRequest("masked is for the format html only")
        found = await self._rated(self._leaderboard.board, view)
        if wanted == "json":
            return json_response(found)
        text, kind = _written(found, wanted, masked)
        return Response(text, media_type=f"text/{kind}", headers=saved_as(f"leaderboard.{wanted}"))

    async def settings(self, request: Request) -> Response:
        """Models with their settings."""
        view = _view(request)
        found = await self._rated(self._leaderboard.ladder, view)
        configurations = await asyncio.to_thread(self._store.configurations)
        return json_response(Ladders(found, labels(configurations.values())))

    async def matrix(self, request: Request) -> Response:
        """Everybody against everybody."""
        return json_response(await self._rated(self._leaderboard.matrix, _view(request)))

    async def timeline(self, request: Request) -> Response:
        """The ratings over time."""
        view, points = _view(request, "points"), request.query_params.get("points", "30")
        if not points.isascii() or not points.isdecimal() or not 0 < int(points) <= MOST_POINTS:
            raise BadRequest(f"points must be a whole number from 1 to {MOST_POINTS}")
        moments = await self._rated(self._leaderboard.timeline, view, int(points))
        told = await asyncio.to_thread(self._leaderboard.said, int(points)) if view == ALL else ()
        return json_response(Timeline(tuple(map(_day, moments)), told))

    async def votes(self, request: Request) -> Response:
        """All votes as a file."""
        known(request, "format")
        wanted = one_of(request, "format", ("jsonl", "csv", "parquet"))
        if wanted == "csv":
            return await _file(votes_csv(self._store), "text/csv", "votes.csv")
        if wanted == "parquet":
            return await _file(votes_parquet(self._store), "application/vnd.apache.parquet", "votes.parquet")
        self._check_allowed(request, "votes export` there, or format=csv or parquet, which hold none")
        return await _file(votes_jsonl(self._store), "application/jsonl", "votes.jsonl")

    async def preferences(self, request: Request) -> Response:
        """Preference pairs as a file."""
        known(request, "blind")
        self._check_allowed(request, "votes export --format preferences` there")
        pairs = preferences(self._store, flag(request, "blind", True))
        return await _file(pairs, "application/jsonl", "preferences.jsonl")

    def _check_allowed(self, request: Request, remedy: str) -> None:
        """What was said in battles is for those who may import votes. Raises Forbidden with the rest of the remedy."""
        if not may_have_all(self._settings, inbound_of(request.scope).caller.key):
            raise Forbidden(
                "The conversations of battles are not given out over the network here: sign in or use a key, if the "
                f"server has them, or take `python -m arena {remedy}"
            )


def _day(moment: Moment) -> Day:
    ratings = {name: Estimate(*known) for name, known in moment.ratings.items()}
    return Day(moment.day, moment.votes, ratings)


def _written(board: Board, wanted: str, masked: bool) -> tuple[str, str]:
    """The leaderboard as text, and which kind of text that is."""
    if wanted == "html":
        return board_page(board, masked=masked), "html"
    return (board_csv(board), "csv") if wanted == "csv" else (board_markdown(board), "markdown")


async def _file(pieces: Iterator[bytes], media_type: str, name: str) -> Response:
    """A download in pieces; a store that fails at once is still answered with an error."""
    first = await asyncio.to_thread(next, pieces, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from pieces

    return StreamingResponse(rest(), media_type=media_type, headers=saved_as(name))


def saved_as(name: str) -> dict[str, str]:
    """Headers with which a browser keeps an answer as a file."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _view(request: Request, *others: str) -> View:
    """The view that the query asks for; `others` are keys that are read elsewhere."""
    known(request, *_CHOSEN, *others)
    given = request.query_params
    voters = tuple(given.getlist("voter"))
    return View(
        per="configuration" if one_of(request, "per", ("model", "configuration")) == "configuration" else "model",
        blind=flag(request, "blind", True),
        category=given.get("category"),
        tag=given.get("tag"),
        since=_moment(request, "since"),
        until=_moment(request, "until"),
        voters=voters or None,
        style=flag(request, "style", False),
    )


def known(request: Request, *keys: str) -> None:
    """Refuse a key that nobody reads: such a mistake would go unnoticed. Raises BadRequest."""
    for key, value in request.query_params.multi_items():
        if key not in keys:
            raise BadRequest(f"there is no parameter {key[:40]!r} here, only {', '.join(keys)}")
        if len(value) > MOST_CHARACTERS:
            raise BadRequest(f"{key} is longer than {MOST_CHARACTERS} characters")
        if "\0" in value:  # PostgreSQL knows no such text
            raise BadRequest(f"{key} must not hold the character NUL")


def one_of(request: Request, key: str, values: tuple[str, ...]) -> str:
    """One of `values`, the first where nothing is given. Raises BadRequest."""
    value = request.query_params.get(key, values[0])
    if value not in values:
        raise BadRequest(f"{key} must be one of {', '.join(values)}")
    return value


def flag(request: Request, key: str, default: bool) -> bool:
    """True or false. Raises BadRequest."""
    value = request.query_params.get(key)
    if value is None:
        return default
    if value not in _FLAGS:
        raise BadRequest(f"{key} must be true or false")
    return _FLAGS[value]


def _moment(request: Request, key: str) -> str | None:
    """A day, or a moment as the store writes it: they are compared as texts. Raises BadRequest."""
    value = request.query_params.get(key)
    if value is None:
        return None
    try:
        if not _MOMENT.fullmatch(value):
            raise ValueError
        found = datetime.fromisoformat(value)
    except ValueError:
        raise BadRequest(
            f"{key} must be a day, such as 2026-01-31, or a moment in UTC, such as 2026-01-31T12:00:00Z"
        ) from None
    return found.replace(tzinfo=UTC).isoformat(timespec="milliseconds") if "T" in value else value


_VIEW: Final = (
    Query("blind", "boolean", "Only votes cast before the models were known; true by default."),
    Query("category", "string", "Only battles of this category."),
    Query("tag", "string", "Only battles with this tag."),
    Query("since", "string", "From this day or moment on (ISO 8601, UTC)."),
    Query("until", "string", "Before this day or moment."),
    Query("voter", "string", "Only votes by this voter; may be given several times."),
)
_PER = Query("per", "string", "`model` (by default) or `configuration`: a model with its settings.")
_STYLE = Query("style", "boolean", "Hold length, headings, lists and bold equal; false by default.")
_FORMS: Final = (
    Query("format", "string", "`json` (by default), `csv`, `md`, or `html`: one file to send around."),
    Query("masked", "boolean", "With `html`: number the models instead of naming them; false by default."),
)
_METHOD = "The method and its limits are told in docs/method.md."


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The leaderboard routes."""
    ratings = Ratings(arena)
    return (*_boards(ratings), *_evidence(ratings), *_files(ratings))


def _boards(ratings: Ratings) -> tuple[Operation, ...]:
    """Who is how good."""
    return (
        Operation(
            "GET",
            "/leaderboard",
            ratings.board,
            "Battles",
            "The leaderboard",
            "Ratings with 95 % intervals and the ranks that they leave open. `preliminary` marks votes that weigh less "
            "than 20. `labels`, by configuration, tell the settings in words; where these are the same, weights, too. "
            f"{_METHOD}",
            "Board",
            answer_examples=samples.BOARD_ANSWERS,
            query=(_PER, _STYLE, *_FORMS, *_VIEW),
        ),
        Operation(
            "GET",
            "/leaderboard/settings",
            ratings.settings,
            "Battles",
            "Every model with its settings",
            "The rating of each model, and below it those of its settings against everything. Settings of one model "
            "are taken to be alike until votes say otherwise.",
            "Ladders",
            query=(_STYLE, *_VIEW),
        ),
    )


def _evidence(ratings: Ratings) -> tuple[Operation, ...]:
    """What that rests on."""
    return (
        Operation(
            "GET",
            "/leaderboard/matrix",
            ratings.matrix,
            "Battles",
            "Everybody against everybody",
            "Battles by pair, with an e-value that may be looked at after every vote: from 20 on the pair is decided. "
            "`flips` tells how few battles would turn neighbours around. It holds the best 200 of the board; `omitted` "
            "is how many more there are.",
            "Matrix",
            query=(_PER, *_VIEW),
        ),
        Operation(
            "GET",
            "/leaderboard/timeline",
            ratings.timeline,
            "Battles",
            "The ratings over time",
            "`moments`: as they stood at the end of evenly spaced days, by the method and the weights of today; "
            "where more than 200 are rated, on fewer days. "
            "`told`: what the board said then, kept once a day (UTC) when somebody looks and votes have come; only for "
            "all blind votes by model, so under other filters it is empty.",
            "Timeline",
            query=(Query("points", "integer", "At most so many days, 30 by default."), _PER, *_VIEW),
        ),
    )


def _files(ratings: Ratings) -> tuple[Operation, ...]:
    """Votes to take out."""
    return (
        Operation(
            "GET",
            "/votes",
            ratings.votes,
            "Battles",
            "All votes as a file",
            "In the field names of LMArena's published battles. JSON lines hold the conversations of battles that were "
            "kept, so they are for those alone who may import votes: nobody, where anybody can use the server. CSV is "
            "safe to open in a spreadsheet; Parquet needs pyarrow on the server.",
            "VoteRow",
            media_type="application/jsonl",
            query=(Query("format", "string", "`jsonl` (by default), `csv` or `parquet`."),),
        ),
        Operation(
            "GET",
            "/votes/preferences",
            ratings.preferences,
            "Battles",
            "Preference pairs as a file",
            "The better answer `chosen`, the other `rejected`, each with its manifest: what preference training reads. "
            "For those alone who may import votes.",
            "Preference",
            media_type="application/jsonl",
            query=(Query("blind", "boolean", "Only votes cast before the models were known; true by default."),),
        ),
    )
