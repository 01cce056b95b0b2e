"""Ollama's own routes: chat, generate, embeddings, and what is known of the models."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request

from arena.engine import options as allowed
from arena.engine.calls import (
    Call,
    ChatBody,
    EmbedBody,
    GenerateBody,
    ToolCall,
    chat_call,
    generate_call,
)
from arena.engine.core import Engine
from arena.engine.durations import now, parse_duration
from arena.engine.http import NDJSON, Reply, decoded
from arena.engine.translate import Ending, Event, Piece, joined
from arena.errors import BadRequest, ModelNotFound

MOST_INPUTS = 2048


class Said(Struct, omit_defaults=True):
    """The assistant's message in a line of chat."""

    role: str
    content: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


def _metrics(ending: Ending, load_ns: int, arrived_ns: int) -> dict[str, Any]:
    timings = ending.timings
    return {
        "done_reason": "length" if ending.reason == "length" else "stop",
        "total_duration": time.monotonic_ns() - arrived_ns,
        "load_duration": load_ns,
        "prompt_eval_count": timings.prompt_n + timings.cache_n,
        "prompt_eval_cached_count": timings.cache_n,
        "prompt_eval_duration": round(timings.prompt_ms * 1e6),
        "eval_count": timings.predicted_n,
        "eval_duration": round(timings.predicted_ms * 1e6),
        **({} if ending.context is None else {"context": ending.context}),
    }


class _Lines:
    """Writes the events of one answer in Ollama's form: `chat` has messages, generate has `response`."""

    def __init__(self, call: Call, chat: bool, arrived_ns: int) -> None:
        self._model = call.model
        self._chat = chat
        self._arrived_ns = arrived_ns
        self._encoder = msgspec.json.Encoder()

    def line(self, piece: Piece, ending: dict[str, Any] | None = None) -> dict[str, Any]:
        """One line as an object; `ending` makes it the last."""
        line: dict[str, Any] = {"model": self._model, "created_at": now()}
        if self._chat:
            line["message"] = Said("assistant", piece.text, piece.thinking, piece.tool_calls)
        else:
            line["response"] = piece.text
            if piece.thinking:
                line["thinking"] = piece.thinking
        if piece.logprobs:
            line["logprobs"] = piece.logprobs
        line["done"] = ending is not None
        return line | (ending or {})

    def encoded(self, events: list[Event], load_ns: int) -> bytes:
        """The lines of a batch as bytes."""
        lines = []
        for event in events:
            if isinstance(event, Piece):
                lines.append(self.line(event))
            elif isinstance(event, Ending):
                lines.append(self.line(Piece(), _metrics(event, load_ns, self._arrived_ns)))
        return self._encoder.encode_lines(lines)


class Native:
    """The handlers of /api; each may be cut by its client at any await."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def chat(self, request: Request, reply: Reply) -> None:
        """POST /api/chat."""
        arrived_ns = time.monotonic_ns()
        body = await decoded(request, ChatBody)
        await self._answer(chat_call(body), body.stream is not False, True, arrived_ns, reply)

    async def generate(self, request: Request, reply: Reply) -> None:
        """POST /api/generate."""
        arrived_ns = time.monotonic_ns()
        body = await decoded(request, GenerateBody)
        await self._answer(generate_call(body), body.stream is not False, False, arrived_ns, reply)

    async def _answer(self, call: Call, stream: bool, chat: bool, arrived_ns: int, reply: Reply) -> None:
        lines = _Lines(call, chat, arrived_ns)
        if call.empty:
            reason = await self._engine.load(call)
            await reply.json(lines.line(Piece(), {"done_reason": reason}))
            return
        async with self._engine.answer(call, arrived_ns) as answer:
            whole: list[Event] = []
            async for batch in answer.events:
                if not stream:
                    whole += batch
                    continue
                if not reply.started:
                    await reply.start(NDJSON)
                await reply.write(lines.encoded(batch, answer.load_ns))
            load_ns = answer.load_ns
        if stream:
            await reply.end()
        else:
            piece, ending = joined(whole)
            await reply.json(lines.line(piece, _metrics(ending, load_ns, arrived_ns)))

    async def embed(self, request: Request, reply: Reply) -> None:
        """POST /api/embed."""
        body = await decoded(request, EmbedBody)
        inputs = [body.input] if isinstance(body.input, str) else body.input or []
        await reply.json(await self._embed(body, inputs))

    async def embeddings(self, request: Request, reply: Reply) -> None:
        """POST /api/embeddings, the older form; Ollama itself leaves all but the vector out."""
        body = await decoded(request, EmbedBody)
        whole = await self._embed(body, [body.prompt] if body.prompt else [])
        vectors = whole.pop("embeddings")
        await reply.json({"embedding": vectors[0] if vectors else [], **whole})

    async def _embed(self, body: EmbedBody, inputs: list[str]) -> dict[str, Any]:
        if len(inputs) > MOST_INPUTS:
            raise BadRequest(f"at most {MOST_INPUTS} inputs are taken")
        call = Call(
            model=body.model or "",
            options=allowed.checked(body.options or {}),
            keep_alive_s=None if body.keep_alive is None else parse_duration(body.keep_alive),
            truncate=body.truncate is not False,
        )
        try:
            if not call.model:
                raise ModelNotFound("")
            if not inputs:
                await self._engine.load(call)
                return {"model": call.model, "embeddings": []}
            return await self._engine.embed(call, inputs, body.dimensions)
        except ModelNotFound:
            raise ModelNotFound(f'model "{call.model}" not found, try pulling it first') from None
