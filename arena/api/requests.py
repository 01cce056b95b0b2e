"""From a client's JSON to what the arena runs: both generations, in the documented order of checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from arena import names
from arena.api import fields
from arena.api.body import decoded
from arena.api.plain import plain_requests
from arena.errors import BadRequest
from arena.types import ChatMessage, ChatRequest, ModelInstance, Order

ROLES = ("system", "user", "assistant", "tool")
_KNOWN_KEYS = frozenset(ChatMessage.__struct_fields__) - {"extra"}
_NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]")


class Limits(Struct, frozen=True):
    """What one request may hold: instances, and messages kept of its history."""

    instances: int
    history: int


class Asked(Struct, frozen=True):
    """A checked request. `flat`: it named one instance, so the answer is one object, not a map."""

    requests: tuple[ChatRequest, ...]
    flat: bool
    order: Order
    history_truncated: bool


def asked_in(body: bytes, limits: Limits, endpoints: Callable[[], Sequence[str]]) -> Asked:
    """Check the chat request in `body`; `endpoints` tells their names. Raises BadRequest."""
    plain = plain_requests(body, limits.instances, limits.history)
    if plain is not None:
        return Asked(plain, flat=len(plain) == 1, order="together", history_truncated=False)
    return asked(decoded(body), limits, endpoints())


def asked(body: dict[str, Any], limits: Limits, endpoints: Sequence[str]) -> Asked:
    """Check a chat request, messages first, then models, ranges, duplicates and count. Raises BadRequest."""
    history = _history(body)
    kept = _latest(history, limits.history)
    instances, named = _instances(body, endpoints)
    if len(instances) > limits.instances:
        raise BadRequest(f"Too many model instances: at most {limits.instances} in one request")
    return Asked(
        tuple(ChatRequest(instance, _for_instance(instance, kept)) for instance in instances),
        flat=named == 1,
        order=order_of(body.get("order")),
        history_truncated=len(kept) < len(history),
    )


def order_of(value: object) -> Order:
    """How the instances are to run: together, unless the request says otherwise. Raises BadRequest."""
    if value is None or value == "together":
        return "together"
    if value == "one_after_another":
        return "one_after_another"
    raise BadRequest('order must be "together" or "one_after_another"')


def _history(body: dict[str, Any]) -> list[ChatMessage]:
    """The conversation, with the old conveniences `message` and `system` folded in."""
    history = body.get("history")
    if history is not None and not isinstance(history, list):
        raise BadRequest("history must be a list of messages")
    messages = [_message(item, f"history[{i}]") for i, item in enumerate(history or ())]
    if (prompt := body.get("message")) is not None:
        last = ChatMessage("user", fields.text(prompt, "message"))
        if last.content and (not messages or messages[-1] != last):
            messages.append(last)
    if (system := body.get("system")) is not None:
        first = ChatMessage("system", fields.text(system, "system"))
        if first.content and all(message.role != "system" for message in messages):
            messages.insert(0, first)
    if all(message.role == "system" for message in messages):
        raise BadRequest("No messages provided", details=_misplaced(body))
    return messages


def _misplaced(body: dict[str, Any]) -> str | None:
    """Where what the body has under the names of other APIs belongs."""
    key = next((key for key in ("messages", "prompt") if key in body), None)
    return key and f'{key} is not read: put it into history, [{{"role": "user", "content": "..."}}]'


def _message(item: object, where: str) -> ChatMessage:
    if not isinstance(item, dict):
        raise BadRequest(f"{where} must be an object with role and content")
    role = item.get("role")
    if role not in ROLES:
        raise BadRequest(f"{where}.role must be one of {', '.join(ROLES)}")
    content = item.get("content")
    if not isinstance(content, str) and (content is not None or len(item) < 3):
        raise BadRequest(f"{where}.content must be a string")
    extra = {key: value for key, value in item.items() if key not in _KNOWN_KEYS} if len(item) > 2 else {}
    if extra:
        fields.shallow(extra, where)
    return ChatMessage(
        role,
        content or "",
        thinking=fields.text(item.get("thinking") or "", f"{where}.thinking"),
        images=_images(item.get("images"), where),
        extra=extra,
    )


def _images(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(image, str) for image in value):
        raise BadRequest(f"{where}.images must be a list of base64 strings")
    return tuple(value)


def _latest(messages: list[ChatMessage], limit: int) -> list[ChatMessage]:
    """The system messages and the last `limit` others."""
    spare = sum(message.role != "system" for message in messages) - limit
    kept = []
    for message in messages:
        if message.role != "system" and spare > 0:
            spare -= 1
        else:
            kept.append(message)
    return kept


def _for_instance(instance: ModelInstance, messages: list[ChatMessage]) -> tuple[ChatMessage, ...]:
    """The history for one instance: its own system prompt takes the place of the shared one."""
    if instance.system is None:
        return tuple(messages)
    return tuple(message for message in messages if message.role != "system")


def _instances(body: dict[str, Any], endpoints: Sequence[str]) -> tuple[list[ModelInstance], int]:
    """The instances to run, and how many entries the request named (that decides the answer's shape)."""
    entries = body.get("model_instances")
    if entries is not None and not isinstance(entries, list):
        raise BadRequest("model_instances must be a list of objects")
    if entries:
        return _with_ids([_instance(item, i, endpoints) for i, item in enumerate(entries)]), len(entries)
    models = body.get("models")
    if models is None or models == []:
        models = body.get("model") or []
    if isinstance(models, str):
        models = [models] if models else []
    if not isinstance(models, list):
        raise BadRequest("models must be a list of model names")
    if not models:
        raise BadRequest("No models selected")
    return _legacy(models), len(models)


def contestants(body: dict[str, Any], limit: int, endpoints: Sequence[str]) -> tuple[ModelInstance, ...]:
    """The instances that a request without a history names. Raises BadRequest for more than `limit`."""
    instances, _ = _instances(body, endpoints)
    if len(instances) > limit:
        raise BadRequest(f"Too many model instances: at most {limit} in one request")
    return tuple(instances)


def _legacy(models: list[Any]) -> list[ModelInstance]:
    """Each named model once, under its name, without options: the model's own defaults."""
    once: dict[str, ModelInstance] = {}
    for i, item in enumerate(models):
        name = fields.model_name(item, f"models[{i}]")
        once.setdefault(names.canonical(name), ModelInstance(name, name))
    return list(once.values())


def _instance(item: object, i: int, endpoints: Sequence[str]) -> tuple[ModelInstance, str]:
    """One checked instance, its id "" where the client gave none, and the id it would get."""
    where = f"model_instances[{i}]"
    if not isinstance(item, dict):
        raise BadRequest(f"{where} must be an object with a model")
    try:
        given = item.get("id")
        own_id = "" if given is None else fields.instance_id(given)
        model = fields.model_name(item.get("model") or given)
        system = item.get("system")
        instance = ModelInstance(
            own_id,
            model,
            fields.options(item),
            system=None if system is None else fields.text(system, "system"),
            think=fields.think(item.get("think")),
            endpoint=fields.endpoint_name(item.get("endpoint"), endpoints),
        )
    except BadRequest as error:
        raise BadRequest(error.message, details=where) from None
    return instance, own_id or generated_id(model, item)


def generated_id(model: str, item: dict[str, Any]) -> str:
    """The documented form of an id: the model and its six settings, after defaults."""
    values = (fields.shortest(p.checked(item.get(p.name, p.default))) for p in fields.PARAMETERS[:6])
    return f"{_NOT_ALPHANUMERIC.sub('_', model)}__{'_'.join(values)}"


def _with_ids(checked: list[tuple[ModelInstance, str]]) -> list[ModelInstance]:
    """Refuse the first repeated id of the client's; keep the server's own ids apart by a number."""
    taken: set[str] = set()
    for instance, _ in checked:
        if instance.id and instance.id in taken:
            raise BadRequest(f"Duplicate model instance detected: {instance.id}")
        taken.add(instance.id)
    instances = []
    numbers: dict[str, int] = {}  # counting on from the last one keeps a thousand equal entries cheap
    for instance, wanted in checked:
        if not instance.id:
            name = wanted
            while name in taken:
                numbers[wanted] = numbers.get(wanted, 1) + 1
                name = f"{wanted}-{numbers[wanted]}"
            taken.add(name)
            instance = ModelInstance(
                name, instance.model, instance.options, instance.system, instance.think, instance.endpoint
            )
        instances.append(instance)
    return instances
