"""/api/presets and /api/conversations: what a caller keeps, and nobody else sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from arena.api import fields, samples
from arena.api.body import json_object
from arena.api.carrier import inbound_of
from arena.api.operation import Operation, json_response
from arena.api.requests import contestants, order_of
from arena.arena import Arena
from arena.errors import BadRequest
from arena.exchange import Caller
from arena.kept import FORMAT, Conversation, KeptColumn, Preset
from arena.types import ModelInstance, Order

MAX_COLUMNS = 64


class PresetView(Struct, frozen=True):
    """A preset as a part of a chat request: with a history it is a whole one."""

    name: str
    model_instances: tuple[dict[str, Any], ...]
    system: str
    order: Order


class ConversationView(Struct, frozen=True):
    """A whole conversation, in the format of the page's export."""

    id: str
    title: str
    kept_at: str
    format: str
    columns: tuple[KeptColumn, ...]


class Deleted(Struct, frozen=True):
    """What is no longer kept: the name of a preset, or the id of a conversation."""

    deleted: str


class Keeping:
    """The routes over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._kept, self._fleet, self._settings = arena.kept, arena.fleet, arena.settings

    async def presets(self, request: Request) -> Response:
        """All presets."""
        found = await self._kept.presets(_caller(request))
        return json_response({"presets": [_shown(name, preset) for name, preset in found.items()]})

    async def save_preset(self, request: Request) -> Response:
        """Keep a preset under the name in the path."""
        name, body = request.path_params["name"], await json_object(request.scope, request.receive)
        endpoints = [endpoint.name for endpoint in self._fleet.endpoints]
        system = "" if body.get("system") is None else fields.text(body["system"], "system")
        instances = contestants(body, self._settings.max_instances, endpoints)
        preset = Preset(instances, system, order_of(body.get("order")))
        await self._kept.save_preset(_caller(request), name, preset)
        return json_response(_shown(name, preset))

    async def delete_preset(self, request: Request) -> Response:
        """Forget a preset."""
        name = request.path_params["name"]
        await self._kept.delete_preset(_caller(request), name)
        return json_response(Deleted(name))

    async def conversations(self, request: Request) -> Response:
        """The titles of all conversations."""
        found = await self._kept.conversations(_caller(request))
        return json_response({"conversations": found})

    async def keep(self, request: Request) -> Response:
        """Keep a conversation."""
        body = await json_object(request.scope, request.receive)
        title = "" if body.get("title") is None else fields.text(body["title"], "title")
        return json_response(await self._kept.keep(_caller(request), _conversation(body), title))

    async def conversation(self, request: Request) -> Response:
        """A whole conversation."""
        title, kept = await self._kept.conversation(_caller(request), request.path_params["id"])
        return json_response(ConversationView(title.id, title.title, title.kept_at, FORMAT, kept.columns))

    async def delete_conversation(self, request: Request) -> Response:
        """Forget a conversation."""
        conversation_id = request.path_params["id"]
        await self._kept.delete_conversation(_caller(request), conversation_id)
        return json_response(Deleted(conversation_id))


def _caller(request: Request) -> Caller:
    return inbound_of(request.scope).caller


def _shown(name: str, preset: Preset) -> PresetView:
    return PresetView(name, tuple(map(_flat, preset.instances)), preset.system, preset.order)


def _flat(instance: ModelInstance) -> dict[str, Any]:
    """An instance as a request gives it; a number that is null is the model's own."""
    told: dict[str, Any] = {parameter.name: None for parameter in fields.PARAMETERS}
    given: dict[str, Any] = msgspec.to_builtins(instance)  # leaves out what is at its default
    options: dict[str, Any] = given.pop("options", {})
    return told | options | given


def _conversation(body: dict[str, Any]) -> Conversation:
    """The conversation in a request. Raises BadRequest."""
    if body.get("format", FORMAT) != FORMAT:
        raise BadRequest(f"format must be {FORMAT}, or left out")
    columns = body.get("columns")
    if not isinstance(columns, list) or not 0 < len(columns) <= MAX_COLUMNS:
        raise BadRequest(f"columns must be a list of 1 to {MAX_COLUMNS} columns, as the page's JSON export has them")
    fields.shallow(columns, "columns")
    try:
        conversation = msgspec.convert({"columns": columns}, Conversation)
    except msgspec.ValidationError as error:
        raise BadRequest(f"columns are not as the page's JSON export has them: {error}") from None
    _check(conversation.columns)
    return conversation


def _check(columns: Sequence[KeptColumn]) -> None:
    if not any(column.turns for column in columns):
        raise BadRequest("columns must hold at least one turn: there is nothing to keep yet")
    if len({fields.instance_id(column.id, "columns.id") for column in columns}) < len(columns):
        raise BadRequest("columns must have different ids")
    for column in columns:
        for place, turn in enumerate(column.turns):
            where = f"columns {column.id}, turns[{place}].instance"
            fields.model_name(turn.instance.model, f"{where}.model")
            try:
                fields.options(msgspec.structs.asdict(turn.instance.options))
            except BadRequest as error:
                raise BadRequest(error.message, details=where) from None


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The routes of what is kept on request."""
    keeping = Keeping(arena)
    return (*_presets(keeping), *_conversations(keeping), *_conversation_itself(keeping))


def _presets(keeping: Keeping) -> tuple[Operation, ...]:
    return (
        Operation(
            "GET",
            "/presets",
            keeping.presets,
            "Kept",
            "Your presets",
            "The latest first. Each is a part of a request to /api/chat: add a `history`, and it is a whole one. "
            "Presets and conversations belong to your named key, or to the browser that opened the page; on a server "
            "for its own machine alone, to everybody without a key. For anybody else they are not there. Where others "
            "can reach the server, callers who bring neither get 403 `nobody`.",
            "Presets",
            answer_examples=samples.PRESETS_ANSWERS,
        ),
        Operation(
            "PUT",
            "/presets/{name}",
            keeping.save_preset,
            "Kept",
            "Keep a preset",
            "Takes `model_instances`, `system` and `order` as /api/chat does, with the same checks, and keeps them "
            "under the name, in the place of the preset that had it. A name is up to 80 printable characters without a "
            "slash. You may have 200 presets of up to 64 KiB; browsers without a key share the room of their "
            "address, and lose what they saved a year ago. 409 `too_many_kept`, 413 `too_large`.",
            "Preset",
            "PresetRequest",
            errors=(400, 409, 413, 415),
            examples=samples.PRESET_REQUESTS,
            answer_examples=samples.PRESET_ANSWERS,
        ),
        Operation(
            "DELETE",
            "/presets/{name}",
            keeping.delete_preset,
            "Kept",
            "Delete a preset",
            "It is gone at once.",
            "Deleted",
            errors=(404,),
            answer_examples=samples.PRESET_DELETED,
        ),
    )


def _conversations(keeping: Keeping) -> tuple[Operation, ...]:
    return (
        Operation(
            "GET",
            "/conversations",
            keeping.conversations,
            "Kept",
            "Your kept conversations",
            "Titles and dates, the latest first. Nothing is kept unless somebody asks for it.",
            "Conversations",
            answer_examples=samples.CONVERSATIONS_ANSWERS,
        ),
        Operation(
            "POST",
            "/conversations",
            keeping.keep,
            "Kept",
            "Keep a conversation",
            "Takes what the page exports as JSON, and a `title`: the first words of the prompt, if left out. Pictures "
            "are not kept. You may have 200 conversations of up to 1 MiB: 409 `too_many_kept`, 413 `too_large`. With "
            "503 `store_unavailable` it is not kept: send it again later.",
            "KeptTitle",
            "ConversationRequest",
            errors=(400, 409, 413, 415),
            examples=samples.CONVERSATION_REQUESTS,
            answer_examples=samples.KEPT_ANSWERS,
        ),
    )


def _conversation_itself(keeping: Keeping) -> tuple[Operation, ...]:
    return (
        Operation(
            "GET",
            "/conversations/{id}",
            keeping.conversation,
            "Kept",
            "A kept conversation",
            "In the format of the page's JSON export; it can be sent to /api/conversations again as it is.",
            "Conversation",
            errors=(404,),
            answer_examples=samples.CONVERSATION_ANSWERS,
        ),
        Operation(
            "DELETE",
            "/conversations/{id}",
            keeping.delete_conversation,
            "Kept",
            "Delete a kept conversation",
            "It is gone at once, and only from backups made before it can it be had again.",
            "Deleted",
            errors=(404,),
            answer_examples=samples.CONVERSATION_DELETED,
        ),
    )
