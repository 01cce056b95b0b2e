"""Anthropic's routes: /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import time

import msgspec
from starlette.requests import Request

from arena.anthropic import CountBody, MessagesBody, MessageWriter, error_object, tokens
from arena.engine.anthropic_body import count_call, messages_call
from arena.engine.calls import Call
from arena.engine.core import Engine
from arena.engine.http import EVENTS, Dialect, Reply, decoded
from arena.engine.stops import Stops
from arena.engine.translate import Ending, Event, Piece, Timings
from arena.errors import ArenaError


class AnthropicDialect(Dialect):
    """Errors as Anthropic's clients expect them."""

    def body(self, error: ArenaError) -> bytes:
        """An error object."""
        return msgspec.json.encode(error_object(error.status, error.message))

    def line(self, error: ArenaError) -> bytes:
        """An event with the error object."""
        return b"event: error\ndata: " + self.body(error) + b"\n\n"


class _Writer(MessageWriter):
    """Writes the events of one answer as Anthropic's."""

    def __init__(self, call: Call, stops: Stops) -> None:
        super().__init__(call.model or "")
        self._stops = stops

    def encoded(self, events: list[Event]) -> bytes:
        """The events of a batch as bytes of a stream."""
        for event in events:
            if isinstance(event, Piece | Ending):
                if not self.begun:
                    timings = event.timings or Timings()
                    self.begin(tokens(timings.prompt_n, timings.cache_n, 0))
                if isinstance(event, Piece):
                    self._piece(event)
                else:
                    self._ending(event)
        return self.events()

    def _piece(self, piece: Piece) -> None:
        if piece.thinking:
            self.thinking(piece.thinking)
        if piece.text:
            self.text(piece.text)
        for call in piece.tool_calls:
            self.tool(call.id, call.function.name)
            self.arguments(msgspec.json.encode(call.function.arguments or {}).decode())

    def _ending(self, ending: Ending) -> None:
        timings, found = ending.timings, self._stops.found
        usage = tokens(timings.prompt_n, timings.cache_n, timings.predicted_n)
        if found is not None:
            self.end("stop_sequence", found, usage)
        elif ending.reason == "length":
            self.end("max_tokens", None, usage)
        else:
            self.end("tool_use" if self.called else "end_turn", None, usage)


class Anthropic:
    """The handlers of /v1/messages."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def messages(self, request: Request, reply: Reply) -> None:
        """POST /v1/messages."""
        body = await decoded(request, MessagesBody)
        call = messages_call(body)
        stops = Stops(body.stop_sequences or [])
        writer = _Writer(call, stops)
        async with self._engine.answer(call, time.monotonic_ns()) as answer:
            async for batch in answer.events:
                data = writer.encoded(stops.cut(batch))
                if body.stream and data:
                    if not reply.started:
                        await reply.start(EVENTS)
                    await reply.write(data)
                if stops.found is not None:
                    break  # leaving ends the generation
        if body.stream:
            await reply.end()
        else:
            await reply.json(writer.message())

    async def count_tokens(self, request: Request, reply: Reply) -> None:
        """POST /v1/messages/count_tokens: counted by the model's own tokenizer and template, which loads the model."""
        body = await decoded(request, CountBody)
        await reply.json({"input_tokens": await self._engine.count(count_call(body))})
