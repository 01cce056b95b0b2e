"""/api/battles: a blind pair, its answers side by side, one vote, then the reveal."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Any, get_args

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arena.api import fields, samples
from arena.api.body import ClientLeft, json_object
from arena.api.carrier import inbound_of
from arena.api.operation import Operation, json_response
from arena.api.requests import contestants
from arena.api.stream import NDJSON_HEADERS, while_client_stays
from arena.arena import Arena
from arena.battle import Contest, Shown, Turn, Voter
from arena.errors import BadRequest
from arena.exchange import Caller
from arena.keys import check_model
from arena.types import ModelInstance, Verdict

MAX_TAGS = 8
FAILED = "This battle has ended without a result: not both sides could answer"

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
        """Draw a pair."""
        body = await json_object(request.scope, request.receive)
        caller = inbound_of(request.scope).caller
        if not self._arena.fleet.endpoints:
            await while_client_stays(request.receive, self._arena.started())
        contest = Contest(
            self._named(body, caller), _label(body.get("category") or "", "category"), _tags(body.get("tags"))
        )
        return json_response(await self._battles.create(_voter(caller), contest, caller.models))

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A turn, as a bare ASGI application."""
        body = await json_object(scope, receive)
        message = fields.text(body.get("message"), "message")
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
        """Keep the verdict, and tell who fought."""
        body = await json_object(request.scope, request.receive)
        verdict: Verdict = body.get("verdict")  # type: ignore[assignment]
        if verdict not in get_args(Verdict):
            raise BadRequest(f"verdict must be one of {', '.join(get_args(Verdict))}")
        return json_response(await self._battles.vote(request.path_params["id"], _voter_of(request), verdict))

    async def view(self, request: Request) -> Response:
        """Where the battle stands."""
        return json_response(await self._battles.view(request.path_params["id"], _voter_of(request)))

    def _named(self, body: dict[str, Any], caller: Caller) -> tuple[ModelInstance, ...] | None:
        """The instances to draw from, if the request names any."""
        if not body.get("models") and not body.get("model_instances"):
            return None
        settings = self._arena.settings
        endpoints = [endpoint.name for endpoint in self._arena.fleet.endpoints]
        named = contestants(body, settings.max_instances, endpoints)
        for instance in named:
            check_model(caller.models, instance.model)
        return named

    async def _send(self, shown: Turn, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": NDJSON_HEADERS})
        async for batch in shown:
            lines = self._encode_lines([_line(each) for each in batch])
            await send({"type": "http.response.body", "body": lines, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class TurnRoute:
    """The stream's place among the routes; a router calls what is no function as it is."""

    def __init__(self, battling: Battling) -> None:
        self._battling = battling

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._battling.stream(scope, receive, send)


def _line(shown: Shown) -> TurnLine:
    if shown.failed:
        return TurnLine(shown.side, "", True, FAILED, "battle_failed")
    return TurnLine(shown.side, shown.text, shown.done)


def _voter(caller: Caller) -> Voter:
    """Whoever the guard counts the request to: a session, a named key, else the network it comes from."""
    name = caller.counted_as
    return Voter(name.hex() if isinstance(name, bytes) else name, caller.address)


def _voter_of(request: Request) -> Voter:
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


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The battle routes."""
    battling = Battling(arena)
    return (
        Operation(
            "POST",
            "/battles",
            battling.create,
            "Battles",
            "Begin a blind battle",
            "The server draws two contestants and which of them is `a`, and keeps that to itself until the vote. "
            "Only whoever began a battle can go on with it; everybody else gets 404. A battle that nobody touches for "
            "two hours is forgotten.",
            "BattleView",
            "BattleRequest",
            errors=(400, 413, 415, 500),
            examples=samples.BATTLE_REQUESTS,
            answer_examples=samples.BATTLE_ANSWERS,
        ),
        Operation(
            "POST",
            "/battles/{id}/stream",
            TurnRoute(battling),
            "Battles",
            "Both answers to a message, in step",
            "One JSON object a line (NDJSON); `instance_id` is `a` or `b`. Both sides appear at the pace of the slower "
            "one and end together; thoughts, figures and causes of failure are withheld. If a side fails, both end "
            "with the same `error`, and the battle is over. After both have ended well the vote is open, and a further "
            "message makes a further turn. Hanging up ends the battle.",
            "TurnLine",
            "TurnRequest",
            errors=(400, 404, 409, 413, 415),
            media_type="application/x-ndjson",
            examples=samples.TURN_REQUESTS,
            answer_examples=samples.TURN_ANSWERS,
        ),
        Operation(
            "POST",
            "/battles/{id}/vote",
            battling.vote,
            "Battles",
            "Vote, and learn who fought",
            "The answer comes once the vote is on the disk. The same vote again gives the same answer; another one is "
            "409. With 503 `store_unavailable` the vote is not kept: send it again later. `rated` is false where an "
            "answer named its own model, where both sides were the same, or where a public server was told whom to "
            "draw from.",
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
            "`state` is open, answering, ready (the vote is open), failed or voted.",
            "BattleView",
            errors=(404,),
            answer_examples=samples.VOTE_ANSWERS,
        ),
    )
