"""What a column is set to, as plain values: read from the page's widgets, the browser's memory and the address bar.

No Gradio here. A `ColumnChoice` is one contestant's settings, a `Lineup` the whole row of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from arena.types import ModelInstance, Options, Order

LETTERS = "ABCDEFGHIJKL"
"""The columns' names; a letter is also the id of the instance in it."""

ThinkChoice = Literal["default", "off", "on", "low", "medium", "high", "max"]
_THINK: dict[str, bool | str | None] = {"default": None, "off": False, "on": True}
ON = " on "
"""Stands between a model and its endpoint in the picker."""
MAX_TEXT = 20_000
"""Longest system prompt or prompt taken from the address bar or the browser, in characters."""


class Dial(Struct, frozen=True):
    """One numeric option: its range, its step, and where it starts once the user takes it into their own hands."""

    name: str
    minimum: float
    maximum: float
    step: float
    start: float
    hint: str
    no_zero: bool = False

    @property
    def whole(self) -> bool:
        """Does it take whole numbers only?"""
        return self.step >= 1

    def checked(self, value: object) -> float | int | None:
        """`value` as a number inside the range, or None if it is none."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        if not math.isfinite(number):
            return None
        number = min(self.maximum, max(self.minimum, number))
        if self.no_zero and number == 0:
            number = self.step
        return int(number) if self.whole else number


DIALS = (
    Dial("temperature", 0.01, 2, 0.01, 0.7, "higher is more varied, lower more predictable"),
    Dial("top_p", 0, 1, 0.01, 0.9, "draw from the likeliest tokens that make up this share"),
    Dial("top_k", 0, 100, 1, 40, "draw from this many tokens; 0 is no limit"),
    Dial("repeat_penalty", 1, 2, 0.01, 1.1, "above 1, repeated words become less likely"),
    Dial("num_predict", -1, 4096, 1, 512, "longest answer in tokens; -1 is no limit", no_zero=True),
    Dial("seed", 0, 2**31 - 1, 1, 42, "the same seed repeats the draw; 0 is a new one each time"),
    Dial("num_ctx", 16, 1_048_576, 16, 8192, "context window in tokens; more needs more memory"),
)
DIAL = {dial.name: dial for dial in DIALS}


class ColumnChoice(Struct, frozen=True, omit_defaults=True):
    """One column's model and settings. A blank `system` means the shared one, a blank `endpoint` any that has it."""

    model: str = ""
    options: Options = Options()
    think: bool | str | None = None
    system: str = ""
    endpoint: str = ""

    @property
    def picked(self) -> str:
        """The model as the picker's value: with its endpoint, if it is to come from that one only."""
        return f"{self.model}{ON}{self.endpoint}" if self.model and self.endpoint else self.model

    def instance(self, letter: str, shared_system: str) -> ModelInstance:
        """The contestant in column `letter`; seed 0 means random and is not sent."""
        options = self.options
        if options.seed == 0:
            options = msgspec.structs.replace(options, seed=None)
        system = self.system.strip() or shared_system.strip() or None
        return ModelInstance(letter, self.model, options, system, self.think, self.endpoint or None)


class Lineup(Struct, frozen=True, omit_defaults=True):
    """The columns from left to right, with what they share."""

    columns: tuple[ColumnChoice, ...] = ()
    system: str = ""
    order: Order = "together"
    prompt: str = ""


PRESETS: dict[str, ColumnChoice] = {
    "Model's own": ColumnChoice(),
    "Precise": ColumnChoice(options=Options(temperature=0.1, top_p=0.9)),
    "Balanced": ColumnChoice(options=Options(temperature=0.7, top_p=0.9, top_k=40, repeat_penalty=1.1)),
    "Inventive": ColumnChoice(options=Options(temperature=1.2, top_p=0.95, top_k=80)),
    "Repeatable": ColumnChoice(options=Options(temperature=0.01, seed=42)),
}


def choice_from(values: Mapping[str, Any]) -> ColumnChoice:
    """Read a column's widgets; a value out of range is brought into it, an unreadable one is the model's own."""
    options: dict[str, Any] = {
        dial.name: dial.checked(values.get(dial.name)) for dial in DIALS if values.get(f"{dial.name}_on")
    }
    stop = tuple(line for line in str(values.get("stop") or "").replace("\r\n", "\n").split("\n") if line)
    model, endpoint = picked(values.get("model"))
    return ColumnChoice(
        model=model,
        endpoint=endpoint,
        options=Options(**options, stop=stop or None),
        think=_think_value(values.get("think")),
        system=str(values.get("system") or ""),
    )


def widget_values(choice: ColumnChoice) -> dict[str, Any]:
    """The values of a column's widgets that show `choice`."""
    values: dict[str, Any] = {"model": choice.picked or None}
    for dial in DIALS:
        value = getattr(choice.options, dial.name)
        values[f"{dial.name}_on"] = value is not None
        values[dial.name] = dial.start if value is None else value
    values["stop"] = "\n".join(choice.options.stop or ())
    values["think"] = _think_choice(choice.think)
    values["system"] = choice.system
    return values


def picked(value: object) -> tuple[str, str]:
    """Model and endpoint in what a picker holds: names have no spaces, what follows them is the label."""
    words = str(value or "").split()
    return words[0] if words else "", words[2] if words[1:2] == [ON.strip()] and len(words) > 2 else ""


def _think_value(choice: object) -> bool | str | None:
    text = str(choice or "default")
    return _THINK[text] if text in _THINK else text if text in get_args(ThinkChoice) else None


def _think_choice(value: bool | str | None) -> str:
    if isinstance(value, str):
        return value if value in get_args(ThinkChoice) else "default"
    return {None: "default", False: "off", True: "on"}[value]


def summary(choice: ColumnChoice) -> str:
    """The settings in a few words, for the line under the model's name."""
    short = {
        "temperature": "T",
        "top_p": "P",
        "top_k": "K",
        "repeat_penalty": "R",
        "num_predict": "N",
        "num_ctx": "ctx",
    }
    words = [f"{short.get(name, name)} {value}" for name, value in choice.options.sent().items() if name != "stop"]
    if choice.options.stop:
        words.append("stop")
    if choice.think is not None:
        words.append(f"think {_think_choice(choice.think)}")
    if choice.system.strip():
        words.append("own system prompt")
    if choice.endpoint:
        words.insert(0, f"on {choice.endpoint}")
    return " · ".join(words)


def kept_lineup(data: object) -> Lineup:
    """The line-up that the browser kept; anything unreadable (an older page's, say) counts as nothing kept."""
    try:
        kept = msgspec.convert(data, Lineup)
    except msgspec.ValidationError:
        return Lineup()
    columns = tuple(choice_from(widget_values(choice)) for choice in kept.columns[: len(LETTERS)])
    return msgspec.structs.replace(kept, columns=columns)


def kept_presets(data: object) -> dict[str, ColumnChoice]:
    """The user's own presets, as far as the browser kept any that can be read."""
    try:
        kept = msgspec.convert(data, dict[str, ColumnChoice])
    except msgspec.ValidationError:
        return {}
    return {name[:60]: choice_from(widget_values(choice)) for name, choice in tuple(kept.items())[:50]}


def from_query(query: Mapping[str, str], most: int) -> Lineup | None:
    """The line-up that a link asks for, or None. `temperature=0.2` means all columns, `temperature_b=0.2` column B."""
    names = [picked(name)[0] for name in query.get("models", "").split(",")]
    names = [name for name in names if name][:most]
    if not names and not query.get("prompt") and not query.get("system"):
        return None
    columns = tuple(_column_from_query(query, letter, name) for letter, name in zip(LETTERS, names, strict=False))
    order: Order = "one_after_another" if query.get("order") == "one_after_another" else "together"
    return Lineup(columns, query.get("system", "")[:MAX_TEXT], order, query.get("prompt", "")[:MAX_TEXT])


def _column_from_query(query: Mapping[str, str], letter: str, model: str) -> ColumnChoice:
    def asked(name: str, default: str = "") -> str:
        return query.get(f"{name}_{letter.lower()}", query.get(name, default))[:MAX_TEXT]

    choice = ColumnChoice(model, endpoint=asked("endpoint"))
    values: dict[str, Any] = {"model": choice.picked, "stop": asked("stop"), "think": asked("think", "default")}
    values["system"] = query.get(f"system_{letter.lower()}", "")[:MAX_TEXT]
    for dial in DIALS:
        values[f"{dial.name}_on"] = DIAL[dial.name].checked(asked(dial.name)) is not None
        values[dial.name] = asked(dial.name)
    return choice_from(values)


def to_query(lineup: Lineup) -> str:
    """The query string (with its `?`) that restores `lineup`; what all columns share is written once."""
    pairs: list[tuple[str, str]] = [("models", ",".join(choice.model for choice in lineup.columns))]
    settings = [_query_settings(choice) for choice in lineup.columns]
    for name in sorted({name for values in settings for name in values}):
        column_values = [values.get(name) for values in settings]
        if name != "system" and len(set(column_values)) == 1:
            pairs.append((name, str(column_values[0])))
        else:
            pairs += [
                (f"{name}_{letter.lower()}", value)
                for letter, value in zip(LETTERS, column_values, strict=False)
                if value is not None
            ]
    pairs += [("system", lineup.system)] if lineup.system.strip() else []
    pairs += [("order", lineup.order)] if lineup.order != "together" else []
    pairs += [("prompt", lineup.prompt)] if lineup.prompt.strip() else []
    return "?" + urlencode(pairs, safe=":,/")


def _query_settings(choice: ColumnChoice) -> dict[str, str]:
    values = {name: str(value) for name, value in choice.options.sent().items() if name != "stop"}
    if choice.options.stop:
        values["stop"] = "\n".join(choice.options.stop)
    if choice.think is not None:
        values["think"] = _think_choice(choice.think)
    if choice.system.strip():
        values["system"] = choice.system
    if choice.endpoint:
        values["endpoint"] = choice.endpoint
    return values
