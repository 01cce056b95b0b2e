"""Battles in every state, for the tests of what the page makes of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
from msgspec import to_builtins

from arena.battle import BattleView, RevealedSide, Shown
from arena.exchange import Caller
from arena.types import Manifest, Metrics
from arena.ui.battle_table import Table

ANN = Caller("192.0.2.1", "ann", "1")
METRICS = Metrics(tokens=20, duration_s=1.0, tokens_per_sec=20.0, rate_reliable=True, ttft_s=0.2, prompt_s=0.5)


def request(session: str = "s", caller: Caller | None = ANN) -> gr.Request:
    """An event of the page."""
    scope = {} if caller is None else {"arena.caller": caller}
    return cast(gr.Request, SimpleNamespace(session_hash=session, request=SimpleNamespace(scope=scope)))


def event(**data: str) -> gr.EventData:
    """A click on a button with these data."""
    return gr.EventData(None, data)


def asked(*prompts: str, sides: str = "ab") -> Table:
    """A table whose sides have answered `prompts`, the last of which is not settled yet."""
    table = Table()
    table.begin("b" * 32, tuple(sides), "ann")
    for prompt in prompts or ("Why?",):
        table.ask(prompt, 0.0)
        for side in sides:
            table.hear(Shown(side, f"{side} says", done=True))  # type: ignore[arg-type]
    table.waiting = False
    return table


def ready(*prompts: str, sides: str = "ab") -> Table:
    """A table whose vote is open."""
    table = asked(*prompts, sides=sides)
    table.settle()
    return table


def known(model: str, **changes: Any) -> RevealedSide:
    """A side after the vote."""
    manifest = Manifest(model, "gpu1", parameter_size="3B", quantization="Q4_K_M")
    values: dict[str, Any] = {
        "model": model, "endpoint": "gpu1", "configuration": f"c-{model}", "label": f"{model}, temperature 0.2",
        "options": {"temperature": 0.2}, "answers": ("Hi.",), "metrics": (to_builtins(METRICS),),
        "manifests": (to_builtins(manifest),), **changes,
    }  # fmt: skip
    return RevealedSide(**values)


def voted(*models: str, **outcome: Any) -> Table:
    """A table after the vote, by default "a is better"."""
    names = models or ("llama3.2:3b", "qwen2.5:3b")
    sides = dict(zip("abcd", names, strict=False))
    table = ready(sides="".join(sides))
    values: dict[str, Any] = {"verdict": "a", "rated": True, **outcome}
    told = {side: known(model) for side, model in sides.items()}
    view: dict[str, Any] = {"revealed": told, **values}
    table.phase, table.outcome = "voted", BattleView(table.battle_id, "voted", 1, False, tuple(sides), **view)
    return table
