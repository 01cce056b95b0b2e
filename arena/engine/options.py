"""Ollama's options, by allow-list: only what stands in RULES, with its type and range, ever reaches llama.cpp.

One negative number in the wrong place has been an out-of-bounds write in llama.cpp's server; so names we do not know
are ignored, as Ollama ignores them, and values out of range are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from arena.errors import ArenaError, BadRequest

RANDOM_SEED = 0xFFFFFFFF  # what llama.cpp takes for "choose one"
MOST_STOPS = 64
LONGEST_STOP = 1024
CONTEXTS_PER_ANSWER = 10  # an answer without num_predict ends after this many contexts, as in Ollama

Kind = Literal["integer", "float32", "boolean", "array"]


class Rule(Struct, frozen=True):
    """What one option may be."""

    kind: Kind
    low: float = -math.inf
    high: float = math.inf


_WHOLE = 2.0**53
_WORD = 2.0**63
RULES: Mapping[str, Rule] = {
    "temperature": Rule("float32", -1000, 1000),
    "top_k": Rule("integer", -1, 1_000_000),
    "top_p": Rule("float32", 0, 1000),
    "min_p": Rule("float32", 0, 1000),
    "typical_p": Rule("float32", 0, 1000),
    "repeat_penalty": Rule("float32", 0.001, 1000),
    "repeat_last_n": Rule("integer", -1, 1_000_000),
    "presence_penalty": Rule("float32", -1000, 1000),
    "frequency_penalty": Rule("float32", -1000, 1000),
    "seed": Rule("integer", -_WORD, _WORD),
    "num_predict": Rule("integer", -_WHOLE, _WHOLE),
    "num_keep": Rule("integer", -1, 10_000_000),
    "stop": Rule("array"),
    "num_ctx": Rule("integer", 1, 10_000_000),
    "num_batch": Rule("integer", 1, 16384),
    "num_gpu": Rule("integer", -1, 100_000),
    "main_gpu": Rule("integer", 0, 64),
    "num_thread": Rule("integer", 0, 4096),
    "use_mmap": Rule("boolean"),
}

LEAST_TOKENS = 4
"""Fewest of a context, as with Ollama, and of a batch: llama.cpp crashes where it may take a single one at a time."""

DEFAULTS: Mapping[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "repeat_last_n": 64,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": -1,
    "num_predict": -1,
    "num_keep": 4,
    "stop": [],
}


class Loading(Struct, frozen=True):
    """The options a model is loaded with; another value means another load. None means automatic."""

    context: int
    batch: int = 512
    gpu_layers: int = -1
    threads: int = 1
    shift: bool = True


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The known options with clean values. A wrong type is Ollama's 500; a value out of range raises BadRequest."""
    return {
        name: _checked(name, value, rule) for name, rule in RULES.items() if (value := options.get(name)) is not None
    }


def _checked(name: str, value: Any, rule: Rule) -> Any:
    match rule.kind:
        case "array":
            return _stops(name, value)
        case "boolean":
            if not isinstance(value, bool):
                raise ArenaError(f'option "{name}" must be of type boolean')
            return value
        case _:
            return _number(name, value, rule)


def _number(name: str, value: Any, rule: Rule) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArenaError(f'option "{name}" must be of type {rule.kind}')
    if not rule.low <= value <= rule.high:
        raise BadRequest(f'option "{name}" must be between {rule.low:g} and {rule.high:g}')
    return int(value) if rule.kind == "integer" else float(value)


def _stops(name: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ArenaError(f'option "{name}" must be of type array')
    if not all(isinstance(item, str) for item in value):
        raise ArenaError(f'option "{name}" must be of an array of strings')
    if len(value) > MOST_STOPS or any(len(item) > LONGEST_STOP for item in value):
        raise BadRequest(f'option "{name}" holds at most {MOST_STOPS} strings of {LONGEST_STOP} characters')
    return value


def sampling(options: Mapping[str, Any], context: int) -> dict[str, Any]:
    """llama.cpp's names and values for checked options. All are sent, so that its own defaults never show."""
    value = {**DEFAULTS, **options}
    seed = value["seed"]
    limit = context * CONTEXTS_PER_ANSWER
    predict = value["num_predict"]
    last_n = value["repeat_last_n"]
    return {
        "temperature": max(0.0, value["temperature"]),
        "top_k": max(0, value["top_k"]),
        "top_p": value["top_p"],
        "min_p": value["min_p"],
        "typical_p": value["typical_p"],
        "repeat_penalty": value["repeat_penalty"],
        "repeat_last_n": context if last_n < 0 else min(last_n, context),
        "presence_penalty": value["presence_penalty"],
        "frequency_penalty": value["frequency_penalty"],
        "seed": RANDOM_SEED if seed == -1 else seed & 0xFFFFFFFF,
        "n_predict": min(predict, limit) if predict > 0 else limit,
        "n_keep": min(max(0, value["num_keep"]), context),
        "stop": value["stop"],
    }


def loading(
    options: Mapping[str, Any], *, default_context: int, trained_context: int | None, threads: int, shift: bool
) -> Loading:
    """How to load the model for checked options; the context never exceeds what the model was trained for."""
    context = options.get("num_ctx", default_context)
    return Loading(
        context=max(min(context, trained_context) if trained_context else context, LEAST_TOKENS),
        batch=max(min(options.get("num_batch", 512), 2048), LEAST_TOKENS),
        gpu_layers=options.get("num_gpu", -1),
        # more threads than cores can hang llama.cpp
        threads=min(options.get("num_thread") or threads, threads),
        shift=shift,
    )
