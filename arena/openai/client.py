"""OpenAIClient: one OpenAI-compatible server, with the same face as OllamaClient."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from arena.errors import ModelNotFound, UpstreamBroken, UpstreamError
from arena.ollama.answer import Budget, Stopwatch
from arena.openai.answer import ChatAnswer
from arena.openai.body import chat_body, encoded, refused_keys, unsent
from arena.openai.failures import read_object, refusal, unsupported
from arena.streaming import Outlet
from arena.types import ChatRequest, LoadedModel, ModelInfo, Options, PullProgress
from arena.wire import Pool, Resolver, Timeouts

QUICK_S = 10.0
"""Limit for questions that a server answers from memory."""
LIST_BYTES = 64 * 1024 * 1024
# Where a kind of server, told by `owned_by` of its models, tells its version.
_VERSIONS = (("vllm", "/version", "version"), ("llamacpp", "/props", "build_info"))


class _Meta(Struct):
    n_ctx: int | None = None
    n_ctx_train: int | None = None
    size: int | None = None


class _Model(Struct):
    """A model of /v1/models: OpenAI's `id` and `owned_by`, and what vLLM, llama.cpp and others add."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    context_length: int | None = None
    max_context_length: int | None = None
    meta: _Meta | None = None

    @property
    def context(self) -> int | None:
        """Tokens of context, as far as the server tells."""
        meta = self.meta or _Meta()
        told = (self.max_model_len, meta.n_ctx, self.context_length, self.max_context_length, meta.n_ctx_train)
        return next((length for length in told if length), None)


class _Models(Struct):
    data: tuple[_Model, ...] | None


class OpenAIClient:
    """Talks to the server at `url` (with or without its "/v1"); `name` is what errors call it, `key` its API key.

    Every method raises as OllamaClient's do; what OpenAI's API has no words for (load, unload, pull, delete) raises
    Unsupported. Safe to build without a running loop.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        key: str = "",
        timeouts: Timeouts | None = None,
        max_deltas: int = 32768,
        max_bytes: int = 64 * 1024 * 1024,
        headers: Iterable[tuple[str, str]] = (),
        resolver: Resolver | None = None,
        pool: Pool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A `pool` to the same server takes the place of `key`, `headers` and `resolver`; it is closed with this."""
        self.url = url
        self.name = name
        limits = timeouts or Timeouts()
        if key:
            headers = [*headers, ("Authorization", f"Bearer {key}")]
        base = url.rstrip("/").removesuffix("/v1")
        self._pool = pool or Pool(base, name=name, timeouts=limits, headers=headers, resolver=resolver)
        self._budget = Budget(max_deltas, max_bytes)
        self._clock = clock
        self._quick = Timeouts(
            connect_s=limits.connect_s,
            first_byte_s=min(limits.first_byte_s, QUICK_S),
            idle_s=min(limits.idle_s, QUICK_S),
            total_s=limits.connect_s + 2 * QUICK_S,
        )
        self._owners: frozenset[str | None] = frozenset()
        self._refused: set[str] = set()

    async def version(self) -> str:
        """The server's version; "" where the kind of server has no place to tell it."""
        for owner, path, key in _VERSIONS:
            if owner in self._owners:
                told = (await self._get(path)).get(key)
                return told if isinstance(told, str) else ""
        return ""

    async def tags(self) -> tuple[ModelInfo, ...]:
        """The models served. Only their names are certain; capabilities are not told."""
        answer = await self._get("/v1/models")
        try:
            models = msgspec.convert(answer, _Models).data or ()
        except msgspec.ValidationError:
            text = f"{self.name} did not answer as OpenAI's API does"
            raise UpstreamBroken(text, endpoint=self.name, code="malformed") from None
        self._owners = frozenset(model.owned_by for model in models)
        return tuple(self._info(model) for model in models)

    async def ps(self) -> tuple[LoadedModel, ...]:
        """Nothing: such servers do not tell what is in memory."""
        return ()

    async def show(self, model: str) -> ModelInfo:
        """What the list of models tells of `model`."""
        for info in await self.tags():
            if info.name == model:
                return info
        raise ModelNotFound(f"{self.name} does not serve a model called '{model}'")

    def unsent(self, options: Options) -> tuple[str, ...]:
        """The names of the options set that this server is not told, as far as is known by now."""
        return unsent(options, self._refused)

    def ask(self, request: ChatRequest, outlet: Outlet, *, contended: Callable[[], bool] | None = None) -> ChatAnswer:
        """Send a chat request now; its deltas and its Finished go into `outlet` as they come.

        As OllamaClient.ask. A server that does not know one of our extra keys is asked again without it, and never
        told it any more.
        """
        watch = Stopwatch(self._clock)
        outlet.metrics_so_far = watch.metrics
        answer = ChatAnswer(self.name, outlet, watch, self._budget, contended)

        def send() -> None:
            body = encoded(chat_body(request, self._refused))
            outlet.tap = answer.call = self._pool.call("POST", "/v1/chat/completions", body, on_data=answer.on_data)

        def send_again(refusal: bytes) -> bool:
            refused = refused_keys(chat_body(request, self._refused), refusal)
            self._refused |= refused
            if refused:
                send()
            return bool(refused)

        answer.ask_again = send_again
        send()
        return answer

    async def chat(self, request: ChatRequest, outlet: Outlet, *, contended: Callable[[], bool] | None = None) -> None:
        """Ask for an answer and wait until it is complete; anything else raises, text that came before stays put."""
        answer = self.ask(request, outlet, contended=contended)
        try:
            await answer.result()
        finally:
            answer.close()

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Raises Unsupported."""
        self._cannot(f"fetch '{model}'")
        yield PullProgress("")

    async def delete(self, model: str) -> None:
        """Raises Unsupported."""
        self._cannot(f"delete '{model}'")

    async def load(self, model: str) -> None:
        """Raises Unsupported."""
        self._cannot(f"load '{model}'")

    async def unload(self, model: str) -> None:
        """Raises Unsupported."""
        self._cannot(f"unload '{model}'")

    async def aclose(self) -> None:
        """End all calls and close all connections."""
        await self._pool.aclose()

    def _cannot(self, action: str) -> NoReturn:
        raise unsupported(self.name, action)

    async def _get(self, path: str) -> dict[str, Any]:
        fetched = await self._pool.fetch("GET", path, limit_bytes=LIST_BYTES, timeouts=self._quick)
        if fetched.status != 200:
            raise refusal(*fetched, self.name)
        item = read_object(fetched.body, self.name)
        if item.get("error") is not None:
            raise UpstreamError(f"{self.name} reports an error", endpoint=self.name, details=str(item["error"])[:500])
        return item

    def _info(self, model: _Model) -> ModelInfo:
        size_bytes = (model.meta.size if model.meta else None) or 0
        return ModelInfo(name=model.id, endpoints=(self.name,), size_bytes=size_bytes, context_length=model.context)
