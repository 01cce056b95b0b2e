"""/api/votes/direct: the best of some answers, chosen with the names in sight."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from arena.api import fields, samples
from arena.api.battle import voter_of
from arena.api.body import json_object
from arena.api.operation import Operation, json_response
from arena.arena import Arena
from arena.battle import Column
from arena.errors import BadRequest
from arena.streaming import Reply
from arena.types import Manifest, Metrics, ModelInstance

MOST_ANSWERS: Final = 12

Told = TypeVar("Told", Manifest, Metrics)


class Kept(Struct, frozen=True):
    """How many votes a choice was kept as: one for each other answer."""

    votes: int


class DirectVotes:
    """The route over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._battles = arena.battles

    async def prefer(self, request: Request) -> Response:
        """Keep which answer was the best."""
        body = await json_object(request.scope, request.receive)
        prompt = fields.text(body.get("prompt"), "prompt")
        if not prompt.strip():
            raise BadRequest("prompt must not be empty")
        columns = _columns(body.get("answers"))
        best = fields.text(body.get("best"), "best")
        places = [place for place, column in enumerate(columns) if column.instance.id == best]
        if len(places) != 1:
            raise BadRequest("best must be the instance_id of exactly one of the answers")
        return json_response(Kept(await self._battles.prefer(voter_of(request), [prompt], columns, places[0])))


def _columns(given: object) -> list[Column]:
    if not isinstance(given, list) or not 2 <= len(given) <= MOST_ANSWERS:
        raise BadRequest(f"answers must be a list of 2 to {MOST_ANSWERS} answers, as /api/chat gives them")
    return [_column(each, f"answers[{place}]") for place, each in enumerate(given)]


def _column(given: Any, field: str) -> Column:
    if not isinstance(given, dict):
        raise BadRequest(f"{field} must be an object, as /api/chat gives it")
    model = fields.model_name(given.get("model"), f"{field}.model")
    identity = given.get("instance_id")
    name = model if identity is None else fields.instance_id(identity)
    system = None if given.get("system") is None else fields.text(given["system"], f"{field}.system")
    manifest = _value(given.get("manifest"), Manifest, f"{field}.manifest") or Manifest(model, "")
    metrics = _value(given.get("metrics"), Metrics, f"{field}.metrics") or Metrics()
    reply = Reply(name, fields.text(given.get("response"), f"{field}.response"), manifest=manifest)
    reply.metrics = metrics if given.get("error") is None else None
    return Column(ModelInstance(name, model, system=system), (reply,))


def _value(given: object, kind: type[Told], field: str) -> Told | None:
    try:
        return None if given is None else msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{field} is not what /api/chat gives: {error}") from None


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The routes of votes that are no battle's."""
    return (
        Operation(
            "POST",
            "/votes/direct",
            DirectVotes(arena).prefer,
            "Battles",
            "The best of some answers",
            "Takes the answers of one turn as /api/chat gave them, and which one was the best. It is kept as a vote "
            "against each other whole answer, marked as not blind: the ratings leave it out unless asked (`blind=false`"
            "), and always on a public server. The same choice again is kept once; another one among the same answers "
            "is 409.",
            "VotesKept",
            "DirectVote",
            errors=(400, 409, 413, 415),
            examples=samples.DIRECT_REQUESTS,
            answer_examples=samples.DIRECT_ANSWERS,
        ),
    )
