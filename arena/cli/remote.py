"""The door to a running arena: its HTTP API, called with `requests` as any synchronous program would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests
from requests.auth import AuthBase

from arena.cli.doors import POLL_S, EventSink, PullSink
from arena.cli.usage import WrongUsage
from arena.errors import ArenaError, Unreachable, UpstreamBroken
from arena.types import (
    Batch,
    ChatRequest,
    Delta,
    Failed,
    Finished,
    Manifest,
    Metrics,
    ModelInfo,
    ModelInstance,
    Options,
    Order,
    PullJob,
    Started,
    StreamEvent,
)

T = TypeVar("T")

CONNECT_S = 5.0
"""Seconds to wait for a connection."""
SILENCE_S = 330.0
"""Seconds of silence after which the arena is given up; above the arena's own limit for a model that has to load."""
COUNTERS = ("tokens", "duration_s", "tokens_per_sec")
"""The figures that the API always sends as numbers."""


class _Bearer(AuthBase):
    """The token as a header; being an auth object it also keeps `requests` from taking a password out of ~/.netrc."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            # headers go out as Latin-1, and the guard compares UTF-8
            request.headers["Authorization"] = f"Bearer {self._token}".encode().decode("latin-1")
        return request


class RemoteArena:
    """A running arena at `url`; the token goes there only (redirects are refused, proxy variables ignored)."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        if not _is_address(self.url):
            raise WrongUsage("--url must look like http://127.0.0.1:7860")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = _Bearer(token)

    def models(self) -> tuple[ModelInfo, ...]:
        """All installed models, ordered by name."""
        answer = self._json("GET", "/api/models")
        details = answer.get("details") or [{"name": name} for name in answer.get("models", ())]
        return tuple(_converted(item, ModelInfo) for item in details)

    def chat(self, asked: Sequence[ChatRequest], order: Order, sink: EventSink) -> None:
        """Ask all; `sink` gets every batch of events. Leaving it hangs up, which frees the models at once."""
        waiting = {request.instance.id for request in asked}
        problem: ArenaError = UpstreamBroken("The arena's answer ended early.", code="upstream_eof")
        with self._send("POST", "/api/stream_chat", _chat_body(asked, order), stream=True) as response:
            try:
                for batch in _batches(response):
                    waiting -= {event.instance_id for event in batch if isinstance(event, Finished | Failed)}
                    sink(batch)
            except requests.RequestException as error:
                problem = UpstreamBroken("The connection to the arena broke.", details=type(error).__name__)
        sink([Failed(name, problem.code, problem.message, details=problem.details) for name in sorted(waiting)])

    def pull(self, model: str, endpoint: str | None, sink: PullSink) -> PullJob:
        """Download `model`; Ctrl-C cancels the job."""
        asked = {"model": model} | ({"endpoint": endpoint} if endpoint else {})
        job = _converted(self._json("POST", "/api/pull_model", asked).get("job"), PullJob)
        try:
            while job.state == "downloading":
                sink(job)
                Event().wait(POLL_S)
                job = _converted(self._json("GET", f"/api/pulls/{job.id}"), PullJob)
        except KeyboardInterrupt:
            self._json("POST", f"/api/pulls/{job.id}/cancel")
            raise
        sink(job)
        return job

    def _json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        with self._send(method, path, body) as response:
            return _object(response)

    def _send(self, method: str, path: str, body: object = None, *, stream: bool = False) -> requests.Response:
        """One request; an answer that is not 2xx becomes the ArenaError it tells of."""
        try:
            response = self._session.request(
                method,
                self.url + path,
                json=body,
                stream=stream,
                allow_redirects=False,
                timeout=(CONNECT_S, SILENCE_S),
            )
        except requests.ConnectionError as error:
            text = f"No arena answers at {self.url}. Start one (python -m arena), or leave --url out"
            raise Unreachable(text, details=_reason(error)) from None
        except requests.RequestException as error:
            raise UpstreamBroken(f"{self.url} did not answer as an arena does.", details=str(error)) from None
        if response.status_code // 100 != 2:
            with response:
                raise _error(response)
        return response


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _reason(error: BaseException) -> str:
    """The system's own words, from under all that was wrapped around them."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _chat_body(asked: Sequence[ChatRequest], order: Order) -> dict[str, Any]:
    """The body of /api/stream_chat. An option that was not given goes as null, which means the model's own default."""
    return {
        "history": msgspec.to_builtins(asked[0].messages),
        "model_instances": [_instance(request.instance) for request in asked],
        "order": order,
    }


def _instance(instance: ModelInstance) -> dict[str, Any]:
    options = {name: getattr(instance.options, name) for name in Options.__struct_fields__}
    others = {"system": instance.system, "think": instance.think, "endpoint": instance.endpoint}
    given = {name: value for name, value in others.items() if value is not None}
    return {"id": instance.id, "model": instance.model, **options, **given}


def _batches(response: requests.Response) -> Iterator[Batch]:
    """Events of an NDJSON answer, as many at a time as have arrived. Lines end at byte 0x0A and nowhere else."""
    rest = b""
    for chunk in response.iter_content(chunk_size=None):
        *lines, rest = (rest + chunk).split(b"\n")
        if batch := [event for line in lines if line.strip() for event in _events(line)]:
            yield batch


def _events(line: bytes) -> Iterator[StreamEvent]:
    """One line of /api/stream_chat as the events that the core knows."""
    try:
        item = msgspec.json.decode(line)
        name, text, thinking = item["instance_id"], item.get("token", ""), item.get("thinking", "")
        if text or thinking:
            yield Delta(name, text, thinking)
        if item.get("done"):
            if item.get("manifest"):
                yield Started(name, msgspec.convert(item["manifest"], Manifest))
            metrics = _metrics(item.get("metrics") or {})
            if item.get("error"):
                yield Failed(name, item.get("error_code") or "internal", item["error"], metrics, item.get("details"))
            else:
                yield Finished(name, metrics)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        raise UpstreamBroken("The arena sent a line that is not its own format.") from None


def _metrics(figures: dict[str, Any]) -> Metrics:
    """The figures without the zeros that the API puts where the endpoint sent no counters."""
    if figures.get("wall_clock"):
        figures = {name: value for name, value in figures.items() if name not in COUNTERS}
    return msgspec.convert(figures, Metrics)


def _converted(value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise UpstreamBroken("The arena's answer is not its own format.") from None


def _object(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except requests.RequestException:
        answer = None
    if not isinstance(answer, dict):
        raise UpstreamBroken(f"{urlsplit(response.url).netloc} did not answer as an arena does.")
    return answer


def _error(response: requests.Response) -> ArenaError:
    """The error that an answer tells of, in its own words."""
    told = _object(response)
    message = told.get("error")
    if response.status_code == 401:
        message = f"{message}. Set WEB_CHAT_TOKEN to the arena's token."
    return ArenaError(str(message), code=str(told.get("code", "internal")), details=told.get("details"))
