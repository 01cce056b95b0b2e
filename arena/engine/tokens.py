"""Ollama's `context`: a conversation as token ids, told with each answer and sent back to go on with it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec
from msgspec.structs import replace

from arena.engine import translate
from arena.engine.calls import Call, Message
from arena.engine.translate import Ending, Event, Piece
from arena.errors import ArenaError, BadRequest
from arena.wire import Pool

INSTEAD = "send the conversation to /api/chat instead"
COUNTING_S = 5.0


async def asked(pool: Pool, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of a whole answer, however long: thousands of vectors are a hundred megabytes."""
    async with pool.stream("POST", path, body) as response:
        return response.status, await response.whole()


async def tokenized(pool: Pool, text: str, *, begin: bool) -> list[int]:
    """The token ids of a text; `begin`: it is the very beginning, where some models want a token of their own."""
    body = {"content": text, "add_special": begin, "parse_special": True}
    _, answer = await asked(pool, "/tokenize", msgspec.json.encode(body))
    tokens: list[int] = msgspec.json.decode(answer)["tokens"]
    return tokens


async def continued(call: Call, pool: Pool) -> Call:
    """The call with, as its prompt, what the template writes between an earlier answer and the next one.

    Rendering a whole conversation and cutting it after the answer closes that answer's turn, which its tokens do not,
    and keeps the template from introducing the model again. Raises BadRequest.
    """
    mark = secrets.token_hex(16)
    messages = call.messages
    if messages[0].role == "system" and await _heard(messages[0].content or "", call, pool):
        messages = messages[1:]
    text = await _templated([Message("user", "x"), Message("assistant", mark), *messages], pool)
    _, found, prompt = text.partition(mark)
    if not found:
        raise BadRequest(f'the template of "{call.model}" cannot go on from a context: {INSTEAD}')
    return replace(call, prompt=prompt)


async def _heard(system: str, call: Call, pool: Pool) -> bool:
    """Does the context hold the system text already? Clients of old send it with every question."""
    status, answer = await asked(pool, "/detokenize", msgspec.json.encode({"tokens": call.context}))
    return status == 200 and system.strip() in msgspec.json.decode(answer)["content"]


async def _templated(messages: list[Message], pool: Pool) -> str:
    """The messages as the model's template writes them, the beginning of an answer included. Raises BadRequest."""
    status, answer = await asked(pool, translate.TEMPLATE_PATH, translate.template_body(messages))
    if status != 200:
        trouble = translate.trouble_of(status, answer)
        raise BadRequest(f"the model's template cannot go on from a context: {INSTEAD} ({trouble.message})")
    text: str = msgspec.json.decode(answer)["prompt"]
    return text


async def telling(call: Call, pool: Pool, batches: AsyncIterator[list[Event]]) -> AsyncGenerator[list[Event], None]:
    """The batches of an answer; its end, which comes alone, tells the context to go on with."""
    said: list[str] = []
    async for batch in batches:
        said += [event.text for event in batch if isinstance(event, Piece)]
        end = batch[-1]
        if not isinstance(end, Ending):
            yield batch
            continue
        if len(batch) > 1:
            yield batch[:-1]
        yield [replace(end, context=await _context(call, pool, "".join(said)))]


async def _context(call: Call, pool: Pool, answer: str) -> list[int] | None:
    """The tokens of prompt and answer; None where they cannot be had: the answer is whole without."""
    try:
        async with asyncio.timeout(COUNTING_S):
            if call.context:
                more = await tokenized(pool, (call.prompt or "") + answer, begin=False)
                return [*call.context, *more]
            prompt = await _templated([replace(message, images=None) for message in call.messages], pool)
            return await tokenized(pool, prompt + answer, begin=True)
    except (ArenaError, TimeoutError, msgspec.MsgspecError, KeyError):
        return None
