"""Which hosts a change of models is for, and whether it may be made at all."""

from __future__ import annotations

from arena import names
from arena.errors import BadRequest, Forbidden, NoEndpoint
from arena.exchange import Inbound
from arena.fleet import Endpoint
from arena.fleet.catalogue import ask
from arena.keys import check_model
from arena.names import canonical
from arena.proxy.hosts import ALL, MISSING, of_kind, said
from arena.proxy.reply import Surroundings
from arena.types import NATIVE


def check_open(proxy: Surroundings) -> None:
    """Raises Forbidden where models may not be changed through the proxy.

    A "no" in the settings or in the fleet's file counts; without a "yes" in one of them a public address is closed.
    """
    settings, mode = proxy.settings, proxy.fleet.spec.management
    if settings.management is False or mode == "closed":
        raise Forbidden("Changing models is turned off on this server", code="management_closed")
    if settings.management is None and mode == "auto" and (settings.public or settings.space_id is not None):
        raise Forbidden(
            "Changing models is closed, because this server listens on a public address. The operator can open it: "
            "ARENA_MANAGEMENT=1, or management: open in the fleet's file",
            code="management_closed",
        )


def checked(proxy: Surroundings, inbound: Inbound, model: object, field: str = "model") -> str:
    """The legal name of a model that the caller may change. Raises BadRequest and Forbidden."""
    name = names.checked(model, field=field)
    check_model(inbound.caller.models, name)
    return name


async def targets(
    proxy: Surroundings, inbound: Inbound, *, with_model: str | None = None, without_model: str | None = None
) -> tuple[Endpoint, ...]:
    """The hosts that the header X-Olla-Endpoint or the query `endpoint` asks for: names, `all`, or `missing`.

    `all` are the Ollama servers, and the embedded engine where it has `with_model` or is alone; `missing` are those
    of them without `without_model`. If nothing is said it is the default host, or, where that one does
    not have `with_model`, the first that does. Raises BadRequest for a name that is none, NoEndpoint without hosts.
    """
    native = of_kind(proxy, NATIVE)
    if not native:
        raise NoEndpoint("There is no host whose models could be changed")
    called = said(inbound)
    if not called:
        return (await _default(proxy, native, with_model),)
    if called == [ALL]:
        return _every(native, with_model)
    if called == [MISSING]:
        if without_model is None:
            raise BadRequest("endpoint=missing has a meaning only where a model is made: pull, create and copy")
        await ask(native)
        every = _every(native, with_model)
        return tuple(one for one in every if canonical(without_model) not in one.holds)
    by_name = {one.name: one for one in native}
    if unknown := [name for name in called if name not in by_name]:
        raise BadRequest(
            f"endpoint names {', '.join(unknown)}, but the hosts are {', '.join(by_name)} (or: {ALL}, {MISSING})"
        )
    return tuple(by_name[name] for name in dict.fromkeys(called))


def _every(native: tuple[Endpoint, ...], model: str | None) -> tuple[Endpoint, ...]:
    """All that can do it: the engine downloads from elsewhere, and makes models of its own ones only."""
    key = None if model is None else canonical(model)
    return tuple(one for one in native if one.kind != "engine" or key in one.holds) or native


async def _default(proxy: Surroundings, native: tuple[Endpoint, ...], model: str | None) -> Endpoint:
    default = next((one for one in native if one.name == proxy.fleet.spec.default_endpoint), native[0])
    if model is None or len(native) == 1:
        return default
    key = canonical(model)
    if not any(key in one.holds for one in native):
        await ask(native)
    return default if key in default.holds else next((one for one in native if key in one.holds), default)
