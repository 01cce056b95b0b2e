"""POST /api/chat and /api/stream_chat: one conversation to one or more model instances."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from arena.api import answers, errors, samples
from arena.api.body import ClientLeft, json_object
from arena.api.operation import Operation, json_response
from arena.api.requests import Asked, Limits, asked
from arena.api.stream import send_stream, while_client_stays
from arena.arena import Arena
from arena.compare import Run
from arena.errors import ArenaError
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
        wanted = await self._asked(request.scope, request.receive)
        run = self._arena.compare.start(wanted.requests, order=wanted.order)
        transcript = await while_client_stays(request.receive, run.transcript())
        return whole_answer(wanted, transcript)

    async def start_stream(self, scope: Scope, receive: Receive) -> tuple[Run, answers.Lines]:
        """Check a request and start it; nothing of the request itself is kept here."""
        wanted = await self._asked(scope, receive)
        run = self._arena.compare.start(wanted.requests, order=wanted.order)
        models = {request.instance.id: request.instance.model for request in wanted.requests}
        return run, answers.Lines(models, self._encoder, history_truncated=wanted.history_truncated)

    async def _asked(self, scope: Scope, receive: Receive) -> Asked:
        body = await json_object(scope, receive)
        fleet = self._arena.fleet
        if not fleet.endpoints:
            await while_client_stays(receive, self._arena.started())
        return asked(body, self._limits, [endpoint.name for endpoint in fleet.endpoints])


class StreamChat:
    """POST /api/stream_chat as a bare ASGI application: nothing stands between the events and the socket."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            run, lines = await self._chat.start_stream(scope, receive)
        except ArenaError as error:
            answer = await errors.on_arena_error(Request(scope), error)
            await answer(scope, receive, send)
        except ClientLeft:
            return
        else:
            await send_stream(run, lines, receive, send)


class StreamFirst:
    """Serves /api/stream_chat in front of `app`, and hands everything else to it.

    FastAPI's layers are right but not free: past them a stream holds 4 KiB less, and begins 40 us earlier. The route is
    among the app's own as well, so what it answers is the same under any server.
    """

    def __init__(self, app: ASGIApp, arena: Arena) -> None:
        self.app = app
        self._stream = ServerErrorMiddleware(StreamChat(Chat(arena)), errors.on_bug)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == STREAM_PATH and scope["method"] == "POST":
            await self._stream(scope, receive, send)
        else:
            await self.app(scope, receive, send)


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


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The chat routes."""
    chat = Chat(arena)
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
            StreamChat(chat),
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
