"""Changing models on one host or on several: pull, push, create, copy and delete.

On one host the answer is the host's own, byte for byte; on several it is one answer with a result for each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from arena.errors import BadRequest, Forbidden
from arena.exchange import Inbound
from arena.fleet import Endpoint
from arena.keys import allows
from arena.names import check_registry
from arena.proxy.hosts import ALL, model_in, object_in, said
from arena.proxy.passing import api_path, fetched, headed, noted, passed, patient
from arena.proxy.progress import Merged, Results, Tell, collected, follow, streamed, whole
from arena.proxy.reply import Reply, Surroundings
from arena.proxy.targets import check_open, checked, targets

_FROM: Final = re.compile(r"^[ \t]*FROM[ \t]+(.+)", re.IGNORECASE | re.MULTILINE)
_NO_NAME: Final = ("/", ".", "~", "@", "sha256:", "sha256-")


async def pull(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """POST /api/pull: download a model to the default host, or to those that `endpoint` names."""
    check_open(proxy)
    wanted = object_in(body)
    model = checked(proxy, inbound, model_in(wanted))
    check_registry(model, proxy.settings.registry_hosts)
    return await _progress(inbound, wanted, body, model, await targets(proxy, inbound, without_model=model))


async def push(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """POST /api/push: upload a model to its registry, from the default host if it has it.

    Where `all` are to do it, the embedded engine, which publishes nothing, is told of as skipped.
    """
    check_open(proxy)
    wanted = object_in(body)
    model = checked(proxy, inbound, model_in(wanted))
    check_registry(model, proxy.settings.registry_hosts)
    where = await targets(proxy, inbound, with_model=model)
    able = [one for one in where if one.kind != "engine"] if said(inbound) == [ALL] else []
    if not able:
        return await _progress(inbound, wanted, body, model, where)
    return await _progress(inbound, wanted, body, model, able, [one for one in where if one not in able])


async def create(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """POST /api/create: make a model, on the default host or on one that has the model it is made `from`.

    A `modelfile`, as older clients send it, may name that model too, and several.
    """
    check_open(proxy)
    wanted = object_in(body)
    model = checked(proxy, inbound, model_in(wanted))
    named = sources(wanted)
    for source in named:
        check_registry(source, proxy.settings.registry_hosts)
        if not allows(inbound.caller.models, source):
            raise Forbidden("This key may not use the model that it is to be made from", code="model_not_allowed")
    where = await targets(proxy, inbound, with_model=named[0] if named else None, without_model=model)
    return await _progress(inbound, wanted, body, model, where)


def sources(wanted: dict[str, Any]) -> list[str]:
    """The models that another is to be made from; files and blobs of the host are none. Raises BadRequest."""
    source, modelfile = (wanted.get(field) or "" for field in ("from", "modelfile"))
    if not (isinstance(source, str) and isinstance(modelfile, str)):
        raise BadRequest("from and modelfile must be text")
    named = [source] if source else []
    named += [line[1].strip().strip("\"'") for line in _FROM.finditer(modelfile)]
    return [name for name in named if not name.startswith(_NO_NAME)]


async def copy(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """POST /api/copy: a second name for a model, where that model is."""
    check_open(proxy)
    wanted = object_in(body)
    source = checked(proxy, inbound, wanted.get("source"), "source")
    destination = checked(proxy, inbound, wanted.get("destination"), "destination")
    where = await targets(proxy, inbound, with_model=source, without_model=destination)
    return await _at_once(inbound, "POST", body, destination, where, Results(where))


async def delete(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """DELETE /api/delete (POST is understood too): remove a model from the default host, or from one that has it.

    On several hosts, one that does not have it is as it should be, unless none has.
    """
    check_open(proxy)
    model = checked(proxy, inbound, model_in(object_in(body)))
    where = await targets(proxy, inbound, with_model=model)
    return await _at_once(inbound, "DELETE", body, model, where, Results(where, absent_is_fine=True))


async def _progress(
    inbound: Inbound,
    wanted: dict[str, Any],
    body: bytes,
    model: str,
    where: Sequence[Endpoint],
    skipped: Sequence[Endpoint] = (),
) -> Reply:
    """What tells of its progress line by line, unless `stream` is false; `skipped` were meant too, but cannot do it."""
    path = api_path(inbound)
    noted(inbound, model, where)
    streaming = wanted.get("stream") is not False
    if len(where) == 1 and not skipped:
        return headed(await (passed if streaming else fetched)(where[0], "POST", path, body), where, model)
    sent = msgspec.json.encode({**wanted, "stream": True})

    async def work(endpoint: Endpoint, tell: Tell) -> None:
        await follow(endpoint, tell, "POST", path, sent, patient(endpoint))

    merged = Merged(where, work, Results(where, skipped=skipped))
    return headed(await (streamed if streaming else collected)(merged), where, model)


async def _at_once(
    inbound: Inbound, method: str, body: bytes, model: str, where: Sequence[Endpoint], results: Results
) -> Reply:
    """What is answered in one piece."""
    path = api_path(inbound)
    noted(inbound, model, where)
    if len(where) == 1:
        return headed(await fetched(where[0], method, path, body), where, model)

    async def work(endpoint: Endpoint, _: Tell) -> None:
        await whole(endpoint, method, path, body)

    return headed(await collected(Merged(where, work, results)), where, model)
