"""Checks of single values. Each raises BadRequest naming the key and the remedy, and never repeats the value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from arena import names
from arena.errors import BadRequest
from arena.types import Options

MAX_ID_CHARACTERS = 256
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_DEPTH = 64
THINK_LEVELS = ("low", "medium", "high", "max")

_NUMBER = re.compile(r"\s{0,8}[-+]?[0-9]{1,19}(?:\.[0-9]{0,19})?(?:[eE][-+]?[0-9]{1,3})?\s{0,8}", re.ASCII)


class Parameter(Struct, frozen=True):
    """One numeric setting of an instance: its range, and the documented default that fills it in when missing."""

    name: str
    low: float
    high: float
    default: float | None
    whole: bool = False
    rule: str = ""

    def text(self) -> str:
        """The rule in words."""
        return self.rule or f"{self.name} must be between {self.low:g} and {self.high:g}"

    def checked(self, value: object) -> float | None:
        """`value` as a number in range; None: the model's own default. Numeric strings are taken. Raises BadRequest."""
        if value is None:
            return None
        number = _number(value)
        if number is None:
            raise BadRequest(f"{self.name} must be a number: {self.text()}")
        if self.whole and number != int(number):
            raise BadRequest(f"{self.name} must be a whole number: {self.text()}")
        if not self.low <= number <= self.high or (self.name == "num_predict" and number == 0):
            raise BadRequest(self.text())
        return int(number) if self.whole else number


PARAMETERS = (
    Parameter("temperature", 0.01, 2.0, 0.7, rule="temperature must be between 0.01 and 2.0"),
    Parameter("top_p", 0, 1, 0.9),
    Parameter("top_k", 0, 100, 40, whole=True),
    Parameter("repeat_penalty", 1, 2, 1.1, rule="repeat_penalty must be between 1.0 and 2.0"),
    Parameter(
        "num_predict",
        -1,
        4096,
        -1,
        whole=True,
        rule="num_predict must be between -1 and 4096, where -1 is unlimited; "
        "0 is refused because engines disagree about its meaning",
    ),
    Parameter("seed", 0, 2**63 - 1, 0, whole=True, rule="seed must be 0 (random) or greater, below 2^63"),
    Parameter("num_ctx", 16, 2**20, None, whole=True, rule="num_ctx must be between 16 and 1048576 tokens"),
)
"""The settings of an instance, in the order of the documented id. A default of None is not filled in."""


def options(fields: dict[str, Any]) -> Options:
    """The options of an instance: missing ones get the documented default, null ones and seed 0 are not sent."""
    values: dict[str, Any] = {p.name: p.checked(fields[p.name]) if p.name in fields else p.default for p in PARAMETERS}
    if values["seed"] == 0:
        values["seed"] = None
    return Options(**values, stop=_stop(fields.get("stop")))


def instance_id(value: object, field: str = "id") -> str:
    """An id as the client chose it: opaque, printable, up to MAX_ID_CHARACTERS. Raises BadRequest."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS or not value.isprintable():
        raise BadRequest(f"{field} must be 1 to {MAX_ID_CHARACTERS} printable characters, or left out")
    return value


def model_name(value: object, field: str = "model") -> str:
    """A legal model name. Raises BadRequest."""
    return names.checked(value, field=field)


def think(value: object) -> bool | str | None:
    """Whether, or how hard, the model thinks; None leaves it to the model. Raises BadRequest."""
    if value is None or isinstance(value, bool) or value in THINK_LEVELS:
        return value
    raise BadRequest('think must be true, false, "low", "medium", "high" or "max"')


def only(body: Iterable[str], *keys: str) -> None:
    """Refuse a key that nobody reads: such a mistake would go unnoticed. Raises BadRequest."""
    for word in body:
        if word not in keys:
            told = (
                f"the keys are {', '.join(keys[:-1])} and {keys[-1]}" if len(keys) > 1 else f"the only key is {keys[0]}"
            )
            raise BadRequest(f"{word[:40]!r} is no key of this request; {told}")


def text(value: object, field: str) -> str:
    """`value` as the string it must be. Raises BadRequest."""
    if not isinstance(value, str):
        raise BadRequest(f"{field} must be a string")
    return value


def endpoint_name(value: object, known: Sequence[str]) -> str | None:
    """The name of a configured endpoint; None leaves the choice to the server. Raises BadRequest."""
    if value is None:
        return None
    if not isinstance(value, str) or value not in known:
        raise BadRequest("endpoint must be one of the names that GET /api/endpoints lists")
    return value


def shallow(value: object, field: str) -> None:
    """Raises BadRequest for a value nested deeper than MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise BadRequest(f"{field} is nested more than {MAX_DEPTH} levels deep")


def shortest(value: float | None) -> str:
    """A number as it stands in an instance id: 1 rather than 1.0, `default` for the model's own."""
    if value is None:
        return "default"
    return str(int(value)) if value == int(value) else repr(value)


def _number(value: object) -> float | None:
    """`value` as a finite number, if it is one or spells one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return None
        value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
    if isinstance(value, int):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else None


def _children(value: object) -> Sequence[Any]:
    if isinstance(value, dict):
        return tuple(value.values())
    return value if isinstance(value, list) else ()


def _stop(value: object) -> tuple[str, ...] | None:
    """Texts at which the answer ends: one string or a list of them; None leaves it to the model."""
    if value is None:
        return None
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or not 0 < len(stops) <= MAX_STOPS
        or not all(isinstance(stop, str) and 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in stops)
    ):
        raise BadRequest(f"stop must be a list of 1 to {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(stops)
