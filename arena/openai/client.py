"""OpenAIClient: one OpenAI-compatible server, with the same face as OllamaClient."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, NoReturn, Unpack

import msgspec
from msgspec import Struct

from arena.errors import ModelNotFound, UpstreamBroken, UpstreamError
from arena.openai.answer import ChatAnswer
from arena.openai.body import chat_body, keys_of, refused_keys, told
from arena.openai.events import Events
from arena.openai.failures import read_object, refusal, unsupported
from arena.streaming import Outlet
from arena.types import ChatRequest, LoadedModel, ModelInfo, ModelInstance, PullProgress
from arena.upstream import LIST_BYTES, ChatClient, ClientSettings, Stopwatch, count, encoded

# Where a kind of server, told by `owned_by` of its models, tells its version.
_VERSIONS = (("vllm", "/version", "version"), ("llamacpp", "/props", "build_info"))


class _Meta(Struct):
    n_ctx: Any = None
    n_ctx_train: Any = None
    size: Any = None


class _Model(Struct):
    """A model of /v1/models: OpenAI's `id` and `owned_by`, and what vLLM, llama.cpp and others add.

    Figures are taken as they come, lest an odd one hide all models of its host.
    """

    id: str
    owned_by: str | None = None
    max_model_len: Any = None
    context_length: Any = None
    max_context_length: Any = None
    meta: _Meta | None = None

    @property
    def running(self) -> int | None:
        """Tokens of context it runs with now, as far as the server tells."""
        return count(self.max_model_len) or (count(self.meta.n_ctx) if self.meta else None)

    @property
    def context(self) -> int | None:
        """Tokens of context it has at most, as far as the server tells."""
        trained = count(self.meta.n_ctx_train) if self.meta else None
        return self.running or count(self.context_length) or count(self.max_context_length) or trained

    @property
    def size_bytes(self) -> int:
        """The size of its weights; 0 where the server does not tell."""
        return (count(self.meta.size) if self.meta else None) or 0


class _Models(Struct):
    data: tuple[_Model, ...] | None


class OpenAIClient(ChatClient):
    """Talks to an OpenAI-compatible server at `url` (with or without its "/v1"); `key` is its API key.

    Every method raises as OllamaClient's do; what OpenAI's API has no words for (load, unload, pull, delete) raises
    Unsupported.
    """

    def __init__(
        self, url: str, *, key: str = "", headers: Iterable[tuple[str, str]] = (), **settings: Unpack[ClientSettings]
    ) -> None:
        """A `pool` takes the place of `key`, as of `headers`."""
        if key:
            headers = [*headers, ("Authorization", f"Bearer {key}")]
        super().__init__(url.rstrip("/").removesuffix("/v1"), headers=headers, **settings)
        self.url = url
        self._models: dict[str, _Model] = {}
        self._refused: frozenset[str] = frozenset()

    async def version(self) -> str:
        """The server's version; "" where the kind of server has no place to tell it."""
        owners = {model.owned_by for model in self._models.values()}
        for owner, path, key in _VERSIONS:
            if owner in owners:
                version = (await self._get(path)).get(key)
                return version if isinstance(version, str) else ""
        return ""

    async def tags(self) -> tuple[ModelInfo, ...]:
        """The models served. Only their names are certain; capabilities are not told."""
        answer = await self._get("/v1/models")
        try:
            models = msgspec.convert(answer, _Models).data or ()
        except msgspec.ValidationError:
            text = f"{self.name} did not answer as OpenAI's API does"
            raise UpstreamBroken(text, endpoint=self.name, code="malformed") from None
        self._models = {model.id: model for model in models}
        return tuple(self._info(model) for model in models)

    async def ps(self) -> tuple[LoadedModel, ...]:
        """What the last list told to be in memory: servers that tell with which context a model runs hold it."""
        return tuple(
            LoadedModel(model.id, self.name, model.size_bytes, context_length=model.running)
            for model in self._models.values()
            if model.running
        )

    async def show(self, model: str) -> ModelInfo:
        """What the list of models tells of `model`. Raises ModelNotFound."""
        for info in await self.tags():
            if info.name == model:
                return info
        raise ModelNotFound(f"{self.name} does not serve a model called '{model}'")

    def told(self, instance: ModelInstance) -> ModelInstance:
        """`instance` as the server is told of it: without the settings that such a server does not take."""
        return told(instance, self.keys(instance.model))

    def ask(self, request: ChatRequest, outlet: Outlet, *, contended: Callable[[], bool] | None = None) -> ChatAnswer:
        """As told of ChatClient. A server that does not know one of the optional keys is asked again without it.

        It is never told it any more.
        """
        model, watch = request.instance.model, Stopwatch(self._clock, self._clock())
        outlet.metrics_so_far = watch.metrics
        answer = ChatAnswer(Events(self.name), outlet, watch, self._budget, contended)

        def send() -> None:
            body = encoded(chat_body(request, self.keys(model)))
            outlet.tap = answer.call = self._pool.call("POST", "/v1/chat/completions", body, on_data=answer.on_data)

        def send_again(refusal: bytes) -> bool:
            keys = self.keys(model)
            refused = refused_keys(chat_body(request, keys), keys, refusal)
            self._refused |= refused
            if refused:
                send()
            return bool(refused)

        answer.ask_again = send_again
        send()
        return answer

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

    def keys(self, model: str) -> frozenset[str]:
        """The optional keys that may be sent with a request for `model`."""
        listed = self._models.get(model)
        return keys_of(listed.owned_by if listed else None) - self._refused

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
        return ModelInfo(
            name=model.id, endpoints=(self.name,), size_bytes=model.size_bytes, context_length=model.context
        )
