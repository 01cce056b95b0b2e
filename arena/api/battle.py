"""/api/battles: blind models, their answers side by side, one vote, then the reveal."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Any, cast, get_args

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arena.api import fields, samples
from arena.api.body import ClientLeft, json_object
from arena.api.carrier import inbound_of
from arena.api.leaderboard import flag, known, saved_as
from arena.api.operation import Operation, Query, json_response
from arena.api.requests import contestants
from arena.api.stream import NDJSON_HEADERS, StreamRoute, while_client_stays
from arena.arena import Arena
from arena.battle import Ballot, Contest, Mode, Shown, Turn, Voter
from arena.errors import BadRequest
from arena.exchange import Caller
from arena.share import battle_page
from arena.types import ModelInstance, Verdict

MAX_TAGS = 8
MAX_SIDES = 4
OVER = "This battle has ended without a result: not every side could answer"
TAKEN_BACK = "Not every side could answer: send the message again, or vote on the turns before it"

_LABEL = re.compile(r"\w(?:[\w .+#-]{0,38}\w)?|")


class TurnLine(Struct, frozen=True, omit_defaults=True):
    """A line of a turn. Nothing here depends on who answers: no model, no figures, one text for every failure."""

    instance_id: str
    token: str
    done: bool
    error: str | None = None
    error_code: str | None = None


class Battling:
    """The battle routes over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._battles = arena.battles
        self._encode_lines = msgspec.json.Encoder().encode_lines

    async def create(self, request: Request) -> Response:
        """Draw who fights."""
        body = await json_object(request.scope, request.receive)
        fields.only(body, "models", "model_instances", "category", "tags", "sides", "mode")
        caller = inbound_of(request.scope).caller
        if not self._arena.fleet.endpoints:
            await while_client_stays(request.receive, self._arena.started())
        contest = Contest(
            self._named(body),
            _label(body.get("category") or "", "category"),
            _tags(body.get("tags")),
            _sides(body.get("sides")),
            _mode(body.get("mode")),
        )
        return json_response(await self._battles.create(_voter(caller), contest, caller.models))

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A turn, as a bare ASGI application."""
        body = await json_object(scope, receive)
        fields.only(body, "message")
        if body.get("message") is None:
            raise BadRequest("message is required: what all sides are asked")
        message = fields.text(body["message"], "message")
        if not message.strip():
            raise BadRequest("message must not be empty")
        caller = inbound_of(scope).caller
        shown = self._battles.turn(
            scope["path_params"]["id"], _voter(caller), message, caller=caller.counted_as, key=caller.key
        )
        try:
            async with aclosing(shown):
                await while_client_stays(receive, self._send(shown, send))
        except ClientLeft:
            return

    async def vote(self, request: Request) -> Response:
        """Keep the ballot, and tell who fought."""
        ballot = _ballot(await json_object(request.scope, request.receive))
        return json_response(await self._battles.vote(request.path_params["id"], voter_of(request), ballot))

    async def view(self, request: Request) -> Response:
        """Where the battle stands."""
        return json_response(await self._battles.view(request.path_params["id"], voter_of(request)))

    async def page(self, request: Request) -> Response:
        """The battle as an HTML file."""
        known(request, "masked")
        ballot, battle = await self._battles.record(request.path_params["id"], voter_of(request))
        text = battle_page(ballot, battle, masked=flag(request, "masked", False))
        return Response(text, media_type="text/html", headers=saved_as("battle.html"))

    def _named(self, body: dict[str, Any]) -> tuple[ModelInstance, ...] | None:
        """The instances to draw from, if the request names any."""
        if not body.get("models") and not body.get("model_instances"):
            return None
        settings = self._arena.settings
        endpoints = [endpoint.name for endpoint in self._arena.fleet.endpoints]
        return contestants(body, settings.max_instances, endpoints)

    async def _send(self, shown: Turn, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": NDJSON_HEADERS})
        async for batch in shown:
            lines = self._encode_lines([_line(each, shown.vote_open) for each in batch])
            await send({"type": "http.response.body", "body": lines, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _line(shown: Shown, vote_open: bool) -> TurnLine:
    if shown.failed:
        error, code = (TAKEN_BACK, "turn_failed") if vote_open else (OVER, "battle_failed")
        return TurnLine(shown.side, "", True, error, code)
    return TurnLine(shown.side, shown.text, shown.done)


def _voter(caller: Caller) -> Voter:
    """Whoever the guard takes the caller for: a named key, a browser, a session, else the network it comes from."""
    return Voter(caller.voter, caller.address)


def voter_of(request: Request) -> Voter:
    """Who sent the request, as votes are counted."""
    return _voter(inbound_of(request.scope).caller)


def _label(value: object, field: str) -> str:
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise BadRequest(f"{field} must be up to 40 letters, digits, blanks or . + # - _")
    return value


def _tags(value: object) -> tuple[str, ...]:
    tags = [] if value is None else value
    if not isinstance(tags, list) or len(tags) > MAX_TAGS:
        raise BadRequest(f"tags must be a list of at most {MAX_TAGS} words")
    return tuple(dict.fromkeys(filter(None, (_label(tag, f"tags[{i}]") for i, tag in enumerate(tags)))))


def _sides(value: object) -> int:
    if value is None:
        return 2
    if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= MAX_SIDES:
        raise BadRequest(f"sides must be a whole number from 2 to {MAX_SIDES}")
    return value


def _mode(value: object) -> Mode | None:
    return None if value is None else cast(Mode, _word(value, "mode", get_args(Mode)))


def _ballot(body: dict[str, Any]) -> Ballot:
    fields.only(body, "verdict", "ranks")
    places = body.get("ranks")
    if places is None:
        return cast(Verdict, _word(body.get("verdict"), "verdict", get_args(Verdict)))
    if body.get("verdict") is not None:
        raise BadRequest("a vote is either a verdict or ranks: leave one of them out")
    if not isinstance(places, dict):
        raise BadRequest('ranks must give each side its place, such as {"a": 1, "b": 3, "c": 2}')
    return places


def _word(value: object, field: str, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in words:
        raise BadRequest(f"{field} must be one of {', '.join(words)}")
    return value


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The battle routes."""
    battling = Battling(arena)
    return (*_answers(battling), *_outcome(battling))


def _answers(battling: Battling) -> tuple[Operation, ...]:
    """Beginning a battle, and its turns."""
    return (
        Operation(
            "POST",
            "/battles",
            battling.create,
            "Battles",
            "Begin a blind battle",
            "The server draws who fights, two or up to four `sides`, and which of them is `a`, and keeps that to "
            "itself until the vote. With `mode` `newcomers` one of them is a model with few votes, and the others are "
            "among the best. Only whoever began a battle can go on with it; everybody else gets 404. A battle that "
            "nobody touches for two hours is forgotten. `votes_left` is told where few are left of your day; "
            "where none is, no battle begins: 429 `too_many_votes`.",
            "BattleView",
            "BattleRequest",
            errors=(400, 413, 415, 500),
            examples=samples.BATTLE_REQUESTS,
            answer_examples=samples.BATTLE_ANSWERS,
        ),
        Operation(
            "POST",
            "/battles/{id}/stream",
            StreamRoute(battling.stream),
            "Battles",
            "All answers to a message, in step",
            "One JSON object a line (NDJSON); `instance_id` is the letter of a side. All sides appear at the pace of "
            "the slowest one and end together; thoughts, figures and causes of failure are withheld. An answer ends "
            "well at ARENA_BATTLE_ANSWER_TOKENS, however much there was to say. After all have ended well the vote is "
            "open, and a further message makes a further turn. If a side fails, all end with the same `error`: in the "
            "first turn the battle is over (`battle_failed`); a later one does not count (`turn_failed`), the message "
            "can be sent again, and what was said before it voted on. Hanging up does the same.",
            "TurnLine",
            "TurnRequest",
            errors=(400, 404, 409, 413, 415),
            media_type="application/x-ndjson",
            examples=samples.TURN_REQUESTS,
            answer_examples=samples.TURN_ANSWERS,
        ),
    )


def _outcome(battling: Battling) -> tuple[Operation, ...]:
    """The vote, and what may be seen before and after it."""
    return (
        Operation(
            "POST",
            "/battles/{id}/vote",
            battling.vote,
            "Battles",
            "Vote, and learn who fought",
            "Two sides take a `verdict`; more take `ranks`, the place of each side from 1 on, equal places being ties, "
            "or the verdict `both_bad`, which then means all. The answer comes once the vote is on the disk. The same "
            "vote again gives the same answer; another one is 409. With 503 `store_unavailable` the vote is not "
            "kept, or nobody knows: send it again later, it counts once. `rated` is false where an answer named its "
            "own model, or was cut before its first word, where all sides were the same, or where a public server was "
            "told whom to draw from.",
            "BattleView",
            "VoteRequest",
            errors=(400, 404, 409, 413, 415),
            examples=samples.VOTE_REQUESTS,
            answer_examples=samples.VOTE_ANSWERS,
        ),
        Operation(
            "GET",
            "/battles/{id}",
            battling.view,
            "Battles",
            "Where a battle stands; after the vote, who fought",
            "`state` is open, answering, ready (the vote is open), failed (in the first turn) or voted.",
            "BattleView",
            errors=(404,),
            answer_examples=samples.VOTE_ANSWERS,
        ),
        Operation(
            "GET",
            "/battles/{id}/page",
            battling.page,
            "Battles",
            "A battle as one HTML file, to send around",
            "After the vote. It has no script and needs nothing from outside. With `masked` it tells neither who "
            "fought nor what it cost, and names of the models in the answers are blacked out.",
            "Page",
            errors=(404, 409),
            media_type="text/html",
            query=(Query("masked", "boolean", "Leave out who fought; false by default."),),
        ),
    )
