"""The engine itself: which model answers, what it is asked, and how its answer ends. Knows no dialect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from arena.engine import options as allowed
from arena.engine import translate
from arena.engine.calls import Call, Message
from arena.engine.config import Config
from arena.engine.models import LocalModel, Models
from arena.engine.runners import Loaded, Needs, Runners, crashed
from arena.engine.tokens import INSTEAD, asked, continued, telling, tokenized
from arena.engine.translate import Ending, Event, Trouble
from arena.errors import ArenaError, BadRequest, ModelNotFound, ShuttingDown, UpstreamBroken, UpstreamError
from arena.names import checked
from arena.wire import Stream

OVERFLOW = "exceed_context_size_error"
NO_SUCH_TOKEN = "Prompt contains invalid tokens"
LAST_WORDS_S = 2.0
RUNNER_LOST = (UpstreamError, ShuttingDown)  # its connections break when it ends, or are closed with it


class Answer(Struct):
    """An answer on its way. Times are nanoseconds since the request arrived."""

    load_ns: int
    events: AsyncGenerator[list[Event], None]


class Engine:
    """Answers calls with the models of this machine."""

    def __init__(self, config: Config, models: Models, runners: Runners) -> None:
        self.config = config
        self.models = models
        self.runners = runners

    async def model(self, name: str) -> LocalModel:
        """The model called `name`. Raises BadRequest (no legal name) or ModelNotFound."""
        try:
            checked(name)
        except BadRequest:
            raise BadRequest("invalid model name") from None
        found = self.models.known(name) or await asyncio.to_thread(self.models.find, name)
        if found is None:
            raise ModelNotFound(f"model '{name}' not found")
        return found

    async def load(self, call: Call) -> str:
        """Load the model, or unload it (keep_alive 0); returns the done_reason."""
        model = await self.model(call.model)
        if call.keep_alive_s == 0:
            await self.runners.unload(model)
            return "unload"
        async with self.runners.lease(self._needs(call, model)):
            return "load"

    @asynccontextmanager
    async def answer(self, call: Call, arrived_ns: int) -> AsyncIterator[Answer]:
        """Begin an answer; leaving the block ends it upstream at once. Raises ArenaError."""
        model = await self.model(call.model)
        _check_abilities(call, model)
        call = _with_defaults(call, model)
        async with self.runners.lease(self._needs(call, model)) as item:
            load_ns = time.monotonic_ns() - arrived_ns
            async with item.slots, aclosing(self._events(call, item)) as events:
                yield Answer(load_ns, events)

    async def _events(self, call: Call, item: Loaded) -> AsyncGenerator[list[Event], None]:
        """The events in batches, all that is ready at once; ends after Ending. Raises ArenaError."""
        child = item.child
        try:
            if call.context:
                call = await continued(call, child.pool)
            while True:
                path, body = translate.request_body(call, child.context)
                async with child.pool.stream("POST", path, body) as response:
                    if response.status == 200:
                        decoded = _decoded(response)
                        told = decoded if call.context is None else telling(call, child.pool, decoded)
                        async with aclosing(decoded), aclosing(told) as batches:
                            async for batch in batches:
                                yield batch
                        return
                    trouble = translate.trouble_of(response.status, await response.whole())
                call = _shortened(call, trouble)
        except RUNNER_LOST:
            raise crashed(await _cause(item)) from None

    async def embed(self, call: Call, inputs: list[str], dimensions: int | None) -> dict[str, Any]:
        """Vectors for texts, each of length 1. Texts over the context are cut if `call.truncate`, else refused.

        Answered as Ollama does, durations in nanoseconds. Raises ArenaError, also where the runner has crashed.
        """
        arrived_ns = time.monotonic_ns()
        model = await self.model(call.model)
        async with self.runners.lease(self._needs(call, model)) as item:
            load_ns = time.monotonic_ns() - arrived_ns
            async with item.slots:
                try:
                    vectors, tokens = await _embed(item, inputs, call.truncate)
                except RUNNER_LOST:
                    raise crashed(await _cause(item)) from None
        return {
            "model": call.model,
            "embeddings": [_unit(vector[:dimensions] if dimensions else vector) for vector in vectors],
            "total_duration": time.monotonic_ns() - arrived_ns,
            "load_duration": load_ns,
            "prompt_eval_count": tokens,
        }

    async def count(self, call: Call) -> int:
        """How many tokens the prompt has, counted by the model itself. Raises ArenaError."""
        model = await self.model(call.model)
        _check_abilities(call, model)
        call = _with_defaults(call, model)
        async with self.runners.lease(self._needs(call, model)) as item:
            _, body = translate.request_body(call, item.child.context)
            try:
                status, answer = await asked(item.child.pool, translate.COUNT_PATH, body)
            except RUNNER_LOST:
                raise crashed(await _cause(item)) from None
        if status != 200:
            raise _error(translate.trouble_of(status, answer))
        return int(msgspec.json.decode(answer)["input_tokens"])

    def _needs(self, call: Call, model: LocalModel) -> Needs:
        loading = allowed.loading(
            {**allowed.checked(model.found.parameters), **call.options},
            default_context=self.config.context_length,
            trained_context=model.trained_context,
            threads=self.config.threads,
            shift=call.shift,
        )
        return Needs(model, loading, call.keep_alive_s)


def _check_abilities(call: Call, model: LocalModel) -> None:
    able = model.capabilities
    if model.broken:
        return  # the load will say what is wrong
    if "completion" not in able:
        raise BadRequest(f'"{call.model}" does not support chat')
    if call.think and "thinking" not in able:
        raise BadRequest(f'"{call.model}" does not support thinking')
    if call.context and "thinking" in able:
        raise BadRequest(f'"{call.model}" thinks, which a context cannot tell from its answers: {INSTEAD}')
    if call.tools and "tools" not in able:
        raise BadRequest(f"{call.model} does not support tools")
    if call.has_images and "vision" not in able:
        raise BadRequest(f'"{call.model}" does not support images')


def _with_defaults(call: Call, model: LocalModel) -> Call:
    """Fill in what the model's author set: parameters and the system text."""
    messages = call.messages
    if (
        messages
        and model.found.system
        and not call.context
        and not any(message.role.lower() == "system" for message in messages)
    ):
        messages = [Message("system", model.found.system), *messages]
    # a context that is told would be refused when it comes back; `think: false` is allowed, and means nothing here
    unmeant = {"context": None} if "thinking" in model.capabilities else {"think": None}
    options = {**allowed.checked(model.found.parameters), **call.options}
    return replace(call, messages=messages, options=options, **unmeant)


def _shortened(call: Call, trouble: Trouble) -> Call:
    """The call without its oldest part, when it was too long and may be cut. Otherwise raises what is wrong."""
    if call.context and trouble.message == NO_SUCH_TOKEN:
        raise BadRequest(f'context: "{call.model}" does not have all its tokens; send the array of its own last answer')
    if trouble.kind != OVERFLOW:
        raise _error(trouble)
    if call.context and call.truncate and (less := _newest(call, trouble)) != call.context:
        return replace(call, context=less)
    keep = [i for i, message in enumerate(call.messages) if message.role.lower() == "system"]
    old = [i for i in range(len(call.messages) - 1) if i not in keep]
    if not call.truncate or not old:
        raise BadRequest(
            f"the input length exceeds the context length: the prompt has {trouble.prompt_tokens} tokens, "
            f"the context holds {trouble.context} (num_ctx)",
            code="context_overflow",
        )
    surplus = 1 - trouble.context / max(trouble.prompt_tokens, 1)
    characters = sum(len(message.content or "") for message in call.messages)
    dropped: set[int] = set()
    gone = 0
    for i in old:
        dropped.add(i)
        gone += len(call.messages[i].content or "")
        if gone >= surplus * characters:
            break
    return replace(call, messages=[message for i, message in enumerate(call.messages) if i not in dropped])


def _newest(call: Call, trouble: Trouble) -> list[int]:
    """As Ollama does: the first `num_keep` tokens and the newest stay, so that half of `num_ctx` is left to answer."""
    tokens = call.context or []
    keep = max(0, call.options.get("num_keep", allowed.DEFAULTS["num_keep"]))
    return tokens[:keep] + tokens[keep + trouble.prompt_tokens - trouble.context // 2 :]


def _error(trouble: Trouble) -> ArenaError:
    if 400 <= trouble.status < 500:
        return BadRequest(trouble.message)
    return ArenaError(trouble.message, code="runner_failed")


async def _decoded(response: Stream) -> AsyncGenerator[list[Event], None]:
    decoder = translate.Decoder()
    async for block in response:
        events = decoder.feed(block)
        trouble = next((event for event in events if isinstance(event, Trouble)), None)
        if trouble is not None:
            events = events[: events.index(trouble)]  # what came before it is still part of the answer
        if events:
            yield events
            if isinstance(events[-1], Ending):
                return
        if trouble is not None:
            raise _error(trouble)
    raise UpstreamBroken("the runner's answer has no end")


async def _cause(item: Loaded) -> str:
    """Why the runner left; its process ends a moment after its connections."""
    try:
        await asyncio.wait_for(item.child.ended(), LAST_WORDS_S)
    except TimeoutError:
        return "unexpected EOF"
    return item.child.cause()


async def _embed(item: Loaded, inputs: list[str], truncate: bool) -> tuple[list[list[float]], int]:
    child = item.child
    wanted: list[Any] = list(inputs)
    limit = min(child.context, item.loading.batch)
    for number, text in enumerate(inputs):
        # a token is at least one byte, so that only a long text needs counting
        if len(text.encode("utf-8", "replace")) < limit - 2:
            continue
        tokens = await tokenized(child.pool, text, begin=True)
        if len(tokens) > limit and not truncate:
            raise BadRequest(f"the input length exceeds the context length: {len(tokens)} tokens, the limit is {limit}")
        wanted[number] = tokens[:limit]
    body = msgspec.json.encode({"input": wanted})
    status, answer = await asked(child.pool, "/v1/embeddings", body)
    if status != 200:
        raise _error(translate.trouble_of(status, answer))
    reply = msgspec.json.decode(answer)
    return [entry["embedding"] for entry in reply["data"]], int(reply.get("usage", {}).get("prompt_tokens", 0))


def _unit(vector: list[float]) -> list[float]:
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector] if length else vector
