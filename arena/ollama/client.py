"""OllamaClient: one Ollama server's API, as typed calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from arena.errors import UpstreamBroken
from arena.ollama.answer import ChatAnswer
from arena.ollama.failures import refusal
from arena.ollama.lines import Lines, read_object
from arena.ollama.pull import PullAnswer
from arena.streaming import Outlet
from arena.types import ChatMessage, ChatRequest, LoadedModel, ModelInfo, ModelInstance, Options, PullProgress
from arena.upstream import LIST_BYTES, ChatClient, Stopwatch, count, encoded

PULL_IDLE_S = 60.0

DEFAULTS = Options()

S = TypeVar("S", bound=Struct)


class _Details(Struct):
    family: str | None = ""
    parameter_size: str | None = ""
    quantization_level: str | None = ""
    context_length: Any = None


class _Model(Struct):
    """A model; its figures are taken as they come, lest an odd one hide all models of its host."""

    name: str = ""
    model: str = ""
    size: Any = None
    size_vram: Any = None
    digest: str = ""
    modified_at: str = ""
    expires_at: str = ""
    context_length: Any = None
    capabilities: tuple[str, ...] | None = None
    details: _Details | None = None


class _Models(Struct):
    models: tuple[_Model, ...] | None


class _Shown(Struct):
    details: _Details | None = None
    model_info: dict[str, Any] | None = None
    capabilities: tuple[str, ...] | None = None
    modified_at: str = ""


class _Version(Struct):
    version: str
    engine: str = ""


class OllamaClient(ChatClient):
    """Talks to an Ollama server.

    Every method raises Unreachable, UpstreamTimeout, UpstreamBroken or UpstreamError (with the server's own text),
    Busy when the server's queue is full, and ModelNotFound where a model is named.
    """

    async def version(self) -> str:
        """The server's version; the embedded engine's own, whose `version` is that of Ollama's API."""
        told = await self._get("/api/version", _Version)
        return told.engine or told.version

    async def tags(self) -> tuple[ModelInfo, ...]:
        """The installed models, newest first. Capabilities are None on servers before 0.30; ask `show()` then."""
        listed = await self._get("/api/tags", _Models)
        return tuple(self._info(item, item.details or _Details()) for item in listed.models or ())

    async def ps(self) -> tuple[LoadedModel, ...]:
        """The models in memory. One that is still loading is not listed."""
        listed = await self._get("/api/ps", _Models)
        return tuple(
            LoadedModel(
                name=item.name or item.model,
                endpoint=self.name,
                size_bytes=count(item.size) or 0,
                vram_bytes=count(item.size_vram) or 0,
                context_length=count(item.context_length),
                expires_at=item.expires_at,
                digest=item.digest,
            )
            for item in listed.models or ()
        )

    async def show(self, model: str) -> ModelInfo:
        """One model's family, size, quantisation, training context and capabilities (not its size in bytes)."""
        shown = self._decoded(await self._post("/api/show", {"model": model}, quick=True), _Shown)
        details = shown.details or _Details()
        found = [value for key, value in (shown.model_info or {}).items() if key.endswith(".context_length")]
        if found:
            details = msgspec.structs.replace(details, context_length=found[0])
        item = _Model(name=model, capabilities=shown.capabilities, modified_at=shown.modified_at)
        return self._info(item, details)

    def told(self, instance: ModelInstance) -> ModelInstance:
        """`instance` as the server is told of it: here, all of it."""
        return instance

    def ask(self, request: ChatRequest, outlet: Outlet, *, contended: Callable[[], bool] | None = None) -> ChatAnswer:
        """As told of ChatClient; only `done:true` is success."""
        body = chat_body(request)
        watch = Stopwatch(self._clock, self._clock())
        answer = ChatAnswer(Lines(self.name), outlet, watch, self._budget, contended)
        outlet.metrics_so_far = watch.metrics
        outlet.tap = answer.call = self._pool.call("POST", "/api/chat", body, on_data=answer.on_data)
        return answer

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Download `model`, yielding progress summed over its layers, to the end "success". Closing it hangs up."""
        answer, limits = PullAnswer(self.name), self._timeouts
        limits = msgspec.structs.replace(limits, idle_s=min(limits.idle_s, PULL_IDLE_S), total_s=None)
        body = encoded({"model": model, "stream": True})
        answer.call = call = self._pool.call(
            "POST", "/api/pull", body, on_data=answer.on_data, resend=False, timeouts=limits
        )
        call.done.add_done_callback(answer.ended)
        try:
            while progress := await answer.news():
                for item in progress:
                    yield item
            await call.done
            if call.status != 200:
                raise refusal(call.status, call.headers, answer.error_body, self.name)
            answer.last_line()
            if not answer.succeeded:
                text = f"{self.name} ended the download without success"
                raise UpstreamBroken(text, endpoint=self.name, code="upstream_eof")
            for item in await answer.news():
                yield item
        finally:
            call.cancel()

    async def delete(self, model: str) -> None:
        """Remove `model`."""
        body = encoded({"model": model})
        fetched = await self._pool.fetch("DELETE", "/api/delete", body, resend=False)
        if fetched.status != 200:
            raise refusal(*fetched, self.name)
        if fetched.body.strip():  # Ollama says nothing here; a network's sign-in page does
            read_object(fetched.body, self.name)

    async def load(self, model: str) -> None:
        """Bring `model` into memory; returns when it is there."""
        await self._post("/api/chat", {"model": model, "messages": [], "stream": False})

    async def unload(self, model: str) -> None:
        """Free the memory of `model`; no error if it is not loaded."""
        await self._post("/api/chat", {"model": model, "messages": [], "stream": False, "keep_alive": 0})

    async def _get(self, path: str, shape: type[S]) -> S:
        fetched = await self._pool.fetch("GET", path, limit_bytes=LIST_BYTES, timeouts=self._quick)
        if fetched.status != 200:
            raise refusal(*fetched, self.name)
        return self._decoded(fetched.body, shape)

    async def _post(self, path: str, body: dict[str, Any], *, quick: bool = False) -> bytes:
        timeouts = self._quick if quick else None
        fetched = await self._pool.fetch("POST", path, encoded(body), timeouts=timeouts)
        if fetched.status != 200:
            raise refusal(*fetched, self.name)
        item = read_object(fetched.body, self.name)
        if item.get("error") is not None:  # some versions told of failures under status 200
            raise refusal(500, (), fetched.body, self.name)
        return fetched.body

    def _decoded(self, body: bytes, shape: type[S]) -> S:
        try:
            return msgspec.json.decode(body, type=shape)
        except (ValueError, RecursionError):
            read_object(body, self.name)
        text = f"{self.name} did not answer as Ollama does"
        raise UpstreamBroken(text, endpoint=self.name, code="malformed")

    def _info(self, item: _Model, details: _Details) -> ModelInfo:
        return ModelInfo(
            name=item.name or item.model,
            endpoints=(self.name,),
            size_bytes=count(item.size) or 0,
            digest=item.digest.removeprefix("sha256:"),
            family=details.family or "",
            parameter_size=details.parameter_size or "",
            quantization=details.quantization_level or "",
            context_length=count(details.context_length),
            capabilities=item.capabilities,
            modified_at=item.modified_at,
        )


def chat_body(request: ChatRequest) -> bytes:
    """The JSON of a chat request. An overflow of the context is to be an error, not a silent cut: truncate is off."""
    instance, messages = request.instance, request.messages
    system = instance.system
    if system and not any(message.role == "system" for message in messages):
        messages = (ChatMessage("system", system), *messages)
    plain = True
    for message in messages:
        plain = plain and not message.extra
    body: dict[str, Any] = {
        "model": instance.model,
        "messages": messages if plain else [_message(message) for message in messages],
        "stream": True,
        "truncate": False,
    }
    if instance.options != DEFAULTS:
        body["options"] = instance.options
    if instance.think is not None:
        body["think"] = instance.think
    return encoded(body)


def _message(message: ChatMessage) -> dict[str, Any]:
    sent = {**message.extra, "role": message.role, "content": message.content}
    if message.thinking:
        sent["thinking"] = message.thinking
    if message.images:
        sent["images"] = message.images
    return sent
