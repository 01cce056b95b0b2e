"""The models: list, pull with progress, delete, load and unload."""

from __future__ import annotations

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from arena import names
from arena.api import errors, fields, samples
from arena.api.body import json_object
from arena.api.carrier import inbound_of
from arena.api.operation import Operation, json_response
from arena.api.stream import while_client_stays
from arena.arena import Arena
from arena.errors import ArenaError, BadRequest
from arena.keys import allows, check_model

# How any request that changes something on an endpoint can fail.
_MANAGED = (400, 403, 413, 415, 500)


class Named(Struct, frozen=True):
    """A checked management request: a model, and the endpoint if one was named."""

    model: str
    endpoint: str | None


class Models:
    """The model routes over one arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._catalog = arena.catalog

    async def models(self, request: Request) -> Response:
        """All installed models that the caller may use: their names, and what is known of each."""
        await self._settled()
        try:
            models = await while_client_stays(request.receive, self._catalog.models())
        except ArenaError as error:
            return errors.unexpected(error)
        seen = [info for info in models if self._may_use(request, info.name)]
        return json_response({"models": [info.name for info in seen], "details": seen})

    async def loaded(self, request: Request) -> Response:
        """All models in memory that the caller may use."""
        await self._settled()
        loaded = await while_client_stays(request.receive, self._catalog.loaded())
        return json_response({"loaded": [each for each in loaded if self._may_use(request, each.name)]})

    async def pull(self, request: Request) -> Response:
        """Start a download, or join it."""
        named = await self._named(request)
        job = self._catalog.pull(named.model, named.endpoint)
        return json_response({"status": "downloading", "model": named.model, "job": job})

    async def pulls(self, _: Request) -> Response:
        """All downloads."""
        return json_response({"pulls": self._catalog.jobs()})

    async def one_pull(self, request: Request) -> Response:
        """One download."""
        return json_response(self._catalog.job(request.path_params["id"]))

    async def cancel_pull(self, request: Request) -> Response:
        """Stop a download."""
        self._catalog.check_management()
        return json_response(self._catalog.cancel(request.path_params["id"]))

    async def delete(self, request: Request) -> Response:
        """Remove a model."""
        named = await self._named(request)
        try:
            await self._catalog.delete(named.model, named.endpoint)
        except ArenaError as error:
            return errors.error_response(500, "Failed to delete model", error.code, error.details or error.message)
        return json_response({"status": "deleted", "model": named.model})

    async def load(self, request: Request) -> Response:
        """Bring a model into memory."""
        named = await self._named(request)
        await while_client_stays(request.receive, self._catalog.load(named.model, named.endpoint))
        return json_response({"status": "loaded", "model": named.model})

    async def unload(self, request: Request) -> Response:
        """Free a model's memory."""
        named = await self._named(request)
        await while_client_stays(request.receive, self._catalog.unload(named.model, named.endpoint))
        return json_response({"status": "unloaded", "model": named.model})

    async def _named(self, request: Request) -> Named:
        """The model a management request is about. Raises Forbidden, BadRequest and the errors of a body."""
        self._catalog.check_management()
        body = await json_object(request.scope, request.receive)
        await self._settled()
        model = body.get("model")
        if model is None or (isinstance(model, str) and not model.strip()):
            raise BadRequest("Model name is required")
        known = [endpoint.name for endpoint in self._arena.fleet.endpoints]
        check_model(inbound_of(request.scope).caller.models, names.checked(model))
        return Named(model, fields.endpoint_name(body.get("endpoint"), known))

    @staticmethod
    def _may_use(request: Request, model: str) -> bool:
        return allows(inbound_of(request.scope).caller.models, model)

    async def _settled(self) -> None:
        """Wait for the endpoints at the very start only."""
        if not self._arena.fleet.endpoints:
            await self._arena.started()


def operations(arena: Arena) -> tuple[Operation, ...]:
    """The model routes."""
    models = Models(arena)
    return (*_lists(models), *_downloads(models), *_changes(models))


def _lists(models: Models) -> tuple[Operation, ...]:
    return (
        Operation(
            "GET",
            "/models",
            models.models,
            "Models",
            "Installed models",
            "The names in `models`; size, quantisation and where each lies or is loaded in `details`. If no endpoint "
            "answers, this is an error: an empty list means that there really is no model.",
            "Models",
            errors=(500,),
            answer_examples=samples.MODELS_ANSWERS,
        ),
        Operation(
            "GET",
            "/loaded",
            models.loaded,
            "Models",
            "Models in memory",
            "What the endpoints hold in memory now, with the context each model really runs with.",
            "Loaded",
            errors=(500,),
        ),
    )


def _downloads(models: Models) -> tuple[Operation, ...]:
    return (
        Operation(
            "POST",
            "/pull_model",
            models.pull,
            "Models",
            "Download a model",
            "Answers at once; the download goes on by itself, also after the caller has left. Asking again joins the "
            "download under way. Follow it at `/api/pulls/{id}`, or poll `/api/models`.",
            "PullStarted",
            "NamedModel",
            errors=(*_MANAGED, 503),
            examples=samples.PULL_REQUESTS,
            answer_examples=samples.PULL_ANSWERS,
        ),
        Operation(
            "GET",
            "/pulls",
            models.pulls,
            "Models",
            "Downloads",
            "The latest downloads, newest first.",
            "Pulls",
        ),
        Operation(
            "GET",
            "/pulls/{id}",
            models.one_pull,
            "Models",
            "One download",
            "How far it is; `error` holds Ollama's own text once `state` is `failed`.",
            "PullJob",
            errors=(404,),
        ),
        Operation(
            "POST",
            "/pulls/{id}/cancel",
            models.cancel_pull,
            "Models",
            "Stop a download",
            "What has arrived is kept: asking for the model again resumes it.",
            "PullJob",
            errors=(403, 404),
        ),
    )


def _changes(models: Models) -> tuple[Operation, ...]:
    return (
        Operation(
            "POST",
            "/delete_model",
            models.delete,
            "Models",
            "Remove a model",
            "Removes it from the named endpoint, or from every endpoint that holds it.",
            "ModelDone",
            "NamedModel",
            errors=_MANAGED,
            examples=samples.DELETE_REQUESTS,
            answer_examples=samples.DELETE_ANSWERS,
        ),
        Operation(
            "POST",
            "/load_model",
            models.load,
            "Models",
            "Bring a model into memory",
            "Answers when the model is ready, so that the next answer does not wait for it.",
            "ModelDone",
            "NamedModel",
            errors=(*_MANAGED, 404, 503),
        ),
        Operation(
            "POST",
            "/unload_model",
            models.unload,
            "Models",
            "Free a model's memory",
            "From the named endpoint, or from every endpoint that holds it.",
            "ModelDone",
            "NamedModel",
            errors=(*_MANAGED, 404, 503),
        ),
    )
