"""The fleet file: YAML to a FleetSpec, or one line that says what is wrong with it, where, and what was meant."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from arena.fleet.document import Document, Place, Problem, read
from arena.fleet.schema import FleetBody, Surroundings, known_keys
from arena.fleet.spec import EndpointSpec, FleetSpec
from arena.names import canonical
from arena.settings import Settings, endpoint_name_and_url
from arena.wire import Timeouts

log = logging.getLogger(__name__)

FILE: Final = "fleet.yaml"


def fleet_file(settings: Settings) -> Path | None:
    """The fleet file: the one that ARENA_FLEET names, else fleet.yaml in ARENA_DATA if it is there, else None."""
    if settings.fleet is not None:
        return settings.fleet
    path = settings.data / FILE
    return path if path.is_file() else None


def fleet_spec(settings: Settings) -> FleetSpec:
    """The fleet that the settings ask for, by a file or by ARENA_ENDPOINTS. Raises SettingsError.

    A file that names endpoints wins over ARENA_ENDPOINTS; one that names none is about those of ARENA_ENDPOINTS.
    """
    timeouts = timeouts_of(settings)
    simple = tuple(
        EndpointSpec(name=name, url=url, timeouts=timeouts)
        for name, url in map(endpoint_name_and_url, settings.endpoints)
    )
    path = fleet_file(settings)
    if path is None:
        return FleetSpec(endpoints=simple)
    spec = reload(path, timeouts, simple)
    if simple and spec.endpoints != simple:
        log.warning("ARENA_ENDPOINTS is not used: %s names the endpoints", path)
    return spec


def reload(path: Path, timeouts: Timeouts | None = None, endpoints: tuple[EndpointSpec, ...] = ()) -> FleetSpec:
    """What the fleet file at `path` says now. `timeouts` and `endpoints` stand where it says nothing of them.

    Raises SettingsError, in one line; whoever keeps a running fleet then keeps it as it is.
    """
    document = read(path)
    try:
        body = FleetBody.model_validate(document.data, context=Surroundings(path.parent, os.environ))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise document.refuse([_problem(document, details) for details in found]) from None
    spec = body.spec(timeouts or Timeouts(), endpoints)
    if problems := [*_contradictions(document, spec)]:
        raise document.refuse(problems)
    return spec


def timeouts_of(settings: Settings) -> Timeouts:
    """The time-outs of endpoints that have none of their own."""
    return Timeouts(
        connect_s=settings.connect_timeout_s,
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        total_s=settings.total_timeout_s,
    )


def _contradictions(document: Document, spec: FleetSpec) -> Iterator[Problem]:
    """What is wrong between keys that are right by themselves."""
    names = [endpoint.name for endpoint in spec.endpoints]
    for key, values in (("name", map(str.lower, names)), ("url", (_address(item.url) for item in spec.endpoints))):
        seen: dict[str, str] = {}
        for position, value in enumerate(values):
            if value in seen:
                reason = f"the endpoint {seen[value]} has the same {key}; give each its own"
                yield _at(document, ("endpoints", position, key), reason)
            seen.setdefault(value, names[position])
    if spec.default_endpoint is not None and names and spec.default_endpoint not in names:
        hint = _nearest(spec.default_endpoint, names)
        yield _at(document, ("default_endpoint",), f"no endpoint is called {spec.default_endpoint}; {hint}")
    aliases: dict[str, str] = {}
    for alias in spec.aliases:
        if (first := aliases.setdefault(canonical(alias), alias)) != alias:
            yield _at(document, ("aliases", alias), f"is the same name as {first}")
    for alias, models in spec.aliases.items():
        for model in models:
            if canonical(model) in aliases and canonical(model) != canonical(alias):
                yield _at(document, ("aliases", alias), f"{model} is an alias too; name the models themselves")


def _problem(document: Document, details: ErrorDetails) -> Problem:
    """What pydantic found, in our words. Its messages and contexts never hold a value of the file but a tag's."""
    kind, context = details["type"], details.get("ctx", {})
    place = _place(document.data, details["loc"], missing=kind == "missing")
    if kind == "extra_forbidden":
        known = known_keys(place[:-1], str(details["loc"][-2]) if len(place) > 1 else "")
        return _at(document, place, f"there is no such key; {_nearest(str(place[-1]), known)}")
    if kind == "missing":
        return _at(document, place, "is missing")
    if kind == "union_tag_not_found":
        return _at(document, place, "type is missing: bearer, api_key or basic")
    if kind == "union_tag_invalid":
        return _at(document, (*place, "type"), f"must be {context['expected_tags']}")
    if kind == "too_short":
        return _at(document, place, "must hold at least one; leave the key out to say nothing")
    if kind == "string_type":
        return _at(document, place, "must be text; put it into quotes")
    reason = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return _at(document, place, reason[:1].lower() + reason[1:])


def _place(data: Any, loc: tuple[int | str, ...], *, missing: bool) -> Place:
    """`loc` without the words that pydantic puts between the file's own keys; a `missing` key comes last."""
    place: list[int | str] = []
    for part in loc:
        if part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int):
            data = data[part]
            place.append(part)
    return (*place, loc[-1]) if missing else tuple(place)


def _at(document: Document, place: Place, reason: str) -> Problem:
    return Problem(document.line(place), _said(document.data, place), reason)


def _said(data: dict[str, Any], place: Place) -> str:
    """`place` as one would say it: endpoints[gpu1].auth.token."""
    said = ""
    here: Any = data
    for part in place:
        if isinstance(part, int):
            here = here[part]
            name = here.get("name") if isinstance(here, dict) else None
            said += f"[{name if isinstance(name, str) else f'#{part + 1}'}]"
        else:
            here = here.get(part)
            said += f".{part}" if said else part
    return said


def _nearest(word: str, known: list[str]) -> str:
    """The word that was probably meant, or all there are."""
    if near := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(known)}"


def _address(url: str) -> str:
    """`url` in the form in which two spellings of one server are equal."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}{parts.path}"
