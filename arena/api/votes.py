"""/api/votes/direct and /api/votes/import: the best of some answers, names in sight; votes from elsewhere."""

from __future__ import annotations

import asyncio
import io
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from arena.api import fields, samples
from arena.api.battle import voter_of
from arena.api.body import json_object, read
from arena.api.carrier import inbound_of
from arena.api.leaderboard import flag, known, one_of
from arena.api.operation import Operation, Query, json_response
from arena.arena import Arena
from arena.battle import Column
from arena.errors import BadRequest, Forbidden, UnsupportedMedia
from arena.leaderboard import FORMATS, Format, import_votes, may_have_all
from arena.streaming import Reply
from arena.types import Manifest, Metrics, ModelInstance

MOST_ANSWERS: Final = 12
MOST_TOLD_BYTES: Final = 16 * 1024
"""A manifest, or figures, as JSON: ten times what /api/chat gives."""

FILE_TYPES: Final = ("application/jsonl", "application/x-ndjson", "application/json", "application/octet-stream")
ANY: Final = "auto"

Told = TypeVar("Told", Manifest, Metrics)


class Kept(Struct, frozen=True):
    """How many votes a choice was kept as: one for each other answer."""

    votes: int


class Votes:
    """The routes over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._battles, self._fleet = arena.battles, arena.fleet
        self._store, self._settings = arena.store, arena.settings

    async def prefer(self, request: Request) -> Response:
        """Keep which answer was the best."""
        body = await json_object(request.scope, request.receive)
        prompt = fields.text(body.get("prompt"), "prompt")
        if not prompt.strip():
            raise BadRequest("prompt must not be empty")
        columns = self._columns(body.get("answers"))
        best = fields.text(body.get("best"), "best")
        places = [place for place, column in enumerate(columns) if column.instance.id == best]
        if len(places) != 1:
            raise BadRequest("best must be the instance_id of exactly one of the answers")
        return json_response(Kept(await self._battles.prefer(voter_of(request), [prompt], columns, places[0])))

    async def import_file(self, request: Request) -> Response:
        """Keep the votes of a file."""
        self._check_allowed(request)
        known(request, "format", "rated")
        wanted, rated = one_of(request, "format", (ANY, *FORMATS)), flag(request, "rated", True)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in FILE_TYPES:
            raise UnsupportedMedia(f"Content-Type must be one of {', '.join(FILE_TYPES)}")
        file = io.BytesIO(await read(request.receive))
        form = None if wanted == ANY else cast(Format, wanted)
        return json_response(await asyncio.to_thread(import_votes, self._store, file, wanted=form, rated=rated))

    def _columns(self, given: object) -> list[Column]:
        if not isinstance(given, list) or not 2 <= len(given) <= MOST_ANSWERS:
            raise BadRequest(f"answers must be a list of 2 to {MOST_ANSWERS} answers, as /api/chat gives them")
        return [self._column(each, f"answers[{place}]") for place, each in enumerate(given)]

    def _column(self, given: Any, field: str) -> Column:
        if not isinstance(given, dict):
            raise BadRequest(f"{field} must be an object, as /api/chat gives it")
        model = fields.model_name(given.get("model"), f"{field}.model")
        identity = given.get("instance_id")
        name = model if identity is None else fields.instance_id(identity, f"{field}.instance_id")
        system = None if given.get("system") is None else fields.text(given["system"], f"{field}.system")
        manifest = _value(given.get("manifest"), Manifest, f"{field}.manifest") or Manifest(model, "")
        fields.model_name(manifest.model, f"{field}.manifest.model")
        _check_words(manifest, f"{field}.manifest")
        metrics = _value(given.get("metrics"), Metrics, f"{field}.metrics") or Metrics()
        reply = Reply(name, fields.text(given.get("response"), f"{field}.response"), manifest=self._checked(manifest))
        reply.metrics = metrics if given.get("error") is None else None
        return Column(ModelInstance(name, model, system=system), (reply,))

    def _checked(self, manifest: Manifest) -> Manifest:
        """A model as hosts list it. Only they tell its weights: else anybody could give a contestant's another name."""
        found = [info for each in self._fleet.endpoints if (info := each.known(manifest.model)) is not None]
        digest = manifest.digest if manifest.digest in {info.digest for info in found} else None
        return msgspec.structs.replace(manifest, model=found[0].name if found else manifest.model, digest=digest)

    def _check_allowed(self, request: Request) -> None:
        """Whoever may import can write any leaderboard."""
        if not may_have_all(self._settings, inbound_of(request.scope).caller.key):
            raise Forbidden("Votes cannot be imported over the network here; use `python -m arena votes import`")


def _value(given: object, kind: type[Told], field: str) -> Told | None:
    if given is None:
        return None
    if len(msgspec.json.encode(given)) > MOST_TOLD_BYTES:
        raise BadRequest(f"{field} is larger than {MOST_TOLD_BYTES:,} bytes: send what /api/chat gives, or nothing")
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{field} is not what /api/chat gives: {error}") from None


def _check_words(manifest: Manifest, field: str) -> None:
    """Names and keys end up in columns and in tables of one line. Raises BadRequest naming the key."""
    told = {"endpoint": manifest.endpoint, "digest": manifest.digest or ""}
    for key, words in (*told.items(), ("options_sent", "".join(manifest.options_sent))):
        if not words.isprintable():
            raise BadRequest(f"{field}.{key} must hold printable characters only")


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The routes of votes that are no battle's."""
    votes = Votes(arena)
    return (
        Operation(
            "POST",
            "/votes/direct",
            votes.prefer,
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
        Operation(
            "POST",
            "/votes/import",
            votes.import_file,
            "Battles",
            "Votes from elsewhere",
            "Takes a file: battles as LMArena publishes them or as another arena exports them (JSON lines or a list), "
            "an export of Local LLM Arena, or the JSON file of LLM Comparator. Votes are marked with their source, "
            "count as blind only where the format says so, and come in once, however often they are sent. What cannot "
            "be read is named with its line and key, and then nothing is kept. The key must have the scope admin. "
            "Larger files: `python -m arena votes import`.",
            "VotesImported",
            "VotesFile",
            "application/jsonl",
            errors=(400, 413, 415),
            examples=samples.IMPORT_REQUESTS,
            answer_examples=samples.IMPORT_ANSWERS,
            query=(
                Query("format", "string", f"`{ANY}` (by default), `{'`, `'.join(FORMATS)}`."),
                Query("rated", "boolean", "May they count for the ratings? True by default."),
            ),
        ),
    )
