"""POST /api/chat and /api/stream_chat: one conversation to one or more model instances."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arena.api import answers, errors, samples
from arena.api.body import ClientLeft, check_type, read
from arena.api.carrier import carry, inbound_of, respond
from arena.api.operation import Operation, json_response
from arena.api.requests import Asked, Limits, asked_in
from arena.api.stream import LineStream, StreamRoute, while_client_stays
from arena.arena import Arena
from arena.compare import Run
from arena.errors import ArenaError
from arena.exchange import Begin, Inbound, Session, Sink
from arena.keys import check_model
from arena.streaming import Transcript

STREAM_PATH = "/api/stream_chat"


class Chat:
    """Both chat routes over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._limits = Limits(arena.settings.max_instances, arena.settings.history_limit)
        self._encoder = msgspec.json.Encoder()

    async def chat(self, request: Request) -> Response:
        """The whole answer of every instance, as JSON."""
        check_type(request.scope["headers"])
        body = await read(request.receive)
        await self._settled(request.receive)
        wanted, run = self._start(body, inbound_of(request.scope))
        transcript = await while_client_stays(request.receive, run.transcript())
        return whole_answer(wanted, transcript)

    def begin(self, inbound: Inbound, body: bytes, sink: Sink) -> Session | None:
        """Check a stream's request and start it; nothing of the request itself is kept here."""
        try:
            check_type(inbound.headers)
            wanted, run = self._start(body, inbound)
        except ArenaError as error:
            respond(sink, errors.of_arena_error(error))
            return None
        models = {request.instance.id: request.instance.model for request in wanted.requests}
        lines = answers.Lines(models, self._encoder, history_truncated=wanted.history_truncated)
        return LineStream(run, lines, sink).begin()

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /api/stream_chat as a bare ASGI application."""
        try:
            body = await read(receive)
            await self._settled(receive)
            await carry(self.begin, inbound_of(scope), body, receive, send)
        except ClientLeft:
            return

    def direct(self, method: str, path: str) -> Begin | None:
        """What answers a request straight on its connection, if it is one of the streams and endpoints are known."""
        return self.begin if path == STREAM_PATH and method == "POST" and self._arena.fleet.endpoints else None

    async def _settled(self, receive: Receive) -> None:
        """Wait, at the very start of the arena, until it is known who answers."""
        if not self._arena.fleet.endpoints:
            await while_client_stays(receive, self._arena.started())

    def _endpoint_names(self) -> list[str]:
        return [endpoint.name for endpoint in self._arena.fleet.endpoints]

    def _start(self, body: bytes, inbound: Inbound) -> tuple[Asked, Run]:
        """What is asked, and its run. Raises BadRequest, and Forbidden for a model that the caller may not use."""
        wanted = asked_in(body, self._limits, self._endpoint_names)
        caller = inbound.caller
        if caller.models is not None:
            for request in wanted.requests:
                check_model(caller.models, request.instance.model)
        compare = self._arena.compare
        return wanted, compare.start(wanted.requests, order=wanted.order, caller=caller.counted_as, key=caller.key)


def whole_answer(wanted: Asked, transcript: Transcript) -> Response:
    """One object for one entry, a map of them for several; a single failure is the documented 500."""
    replies = transcript.replies
    entries = {
        request.instance.id: answers.entry(replies[request.instance.id], request.instance.model)
        for request in wanted.requests
    }
    body: dict[str, Any] = {"errors": answers.errors(replies.values()), "history_truncated": wanted.history_truncated}
    if not wanted.flat:
        return json_response({"results": entries, **body})
    (reply,) = replies.values()
    if reply.error is not None:
        return errors.unexpected(reply.error)
    (only,) = entries.values()
    return json_response(msgspec.to_builtins(only) | body)


def operations(chat: Chat) -> tuple[Operation, ...]:
    """The chat routes."""
    return (
        Operation(
            "POST",
            "/chat",
            chat.chat,
            "Compare",
            "Whole answers of one or more model instances",
            "Waits for every answer. One entry in the request gives one object, several give a map keyed by instance "
            "id (`model_instances`) or by model name (`models`). One instance's failure does not disturb the others: "
            "it stands in its entry and in `errors`, with HTTP 200. If a single instance was asked and fails, the "
            "answer is the 500 form. `stream` is ignored: use `/api/stream_chat`. Hanging up stops every generation.",
            "ChatAnswer",
            "ChatRequest",
            errors=(400, 413, 415, 500, 503),
            examples=samples.CHAT_REQUESTS,
            answer_examples=samples.CHAT_ANSWERS,
        ),
        Operation(
            "POST",
            "/stream_chat",
            StreamRoute(chat.stream),
            "Compare",
            "Answers of one or more model instances, streamed side by side",
            "One JSON object a line (NDJSON), always whole lines. Every line carries `instance_id` and `model`; each "
            "instance ends with exactly one line that has `done: true`, with `metrics` and, if it failed, `error` and "
            "`error_code`. Thoughts come as `thinking` with an empty `token`. Faults after the checks are lines, not "
            "statuses. Hanging up stops every generation at once.",
            "StreamLine",
            "ChatRequest",
            errors=(400, 413, 415, 503),
            media_type="application/x-ndjson",
            examples=samples.STREAM_REQUESTS,
            answer_examples=samples.STREAM_ANSWERS,
        ),
    )
