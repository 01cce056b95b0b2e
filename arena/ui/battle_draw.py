"""Draws the battle tab: who may fight, the sides, the ballot, the prompt. Wiring and handling are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from arena.ui import battle_parts as parts
from arena.ui.battle_table import MOST_SIDES, Table
from arena.ui.columns import LATEX
from arena.ui.compare import EXAMPLES
from arena.ui.elements import RELAY, carrier, html
from arena.ui.parts import examples

SIDES = "abcd"[:MOST_SIDES]
MODES = (
    ("All models", "installed"),
    ("Chosen models", "chosen"),
    ("Compare's columns", "columns"),
    ("Newcomers", "newcomers"),
)
HINTS = {
    "installed": "drawn from all installed models; those come first whose battle teaches most",
    "chosen": "drawn from the models that you name",
    "columns": "drawn from the columns of the Compare tab, with their settings",
    "newcomers": "one with few votes so far against the best",
}
CATEGORIES = ("coding", "creative writing", "facts", "instructions", "maths", "reasoning", "summary", "translation")
ASK = "Ask, without knowing whom\N{HORIZONTAL ELLIPSIS}"
ASK_AGAIN = "Ask again before you vote\N{HORIZONTAL ELLIPSIS}"
_BLANK = Table()

WATCH = "const tell = () => arenaBattle.changed(element); watch('value', tell); tell();"
"""The page's script hears of every ballot."""


@dataclass(frozen=True, slots=True)
class SideParts:
    """The components of one side."""

    box: gr.Column
    head: gr.HTML
    chat: gr.Chatbot
    status: gr.HTML


@dataclass(frozen=True, slots=True)
class BattleParts:
    """The components of the tab."""

    mode: gr.Radio
    sides: gr.Radio
    hint: gr.HTML
    chosen: gr.Dropdown
    category: gr.Dropdown
    tags: gr.Dropdown
    columns: Mapping[str, SideParts]
    ballot: gr.HTML
    examples: gr.HTML
    prompt: gr.MultimodalTextbox
    frames: gr.HTML
    kept: gr.Textbox

    @property
    def setup(self) -> set[Any]:
        """What a battle is made from."""
        return {self.mode, self.sides, self.chosen, self.category, self.tags, self.prompt}

    @property
    def shown(self) -> list[Any]:
        """What shows a battle."""
        columns = self.columns.values()
        return [*(part for each in columns for part in (each.box, each.head, each.chat, each.status)), self.ballot]


def draw_battle(*, open_to_all: bool = True) -> BattleParts:
    """Draw the tab with a pool of sides, of which two are visible; call inside a Blocks and a Tab.

    `open_to_all`: may whoever opens the page have the conversations of all?
    """
    frames = carrier("battle-frames")
    kept = gr.Textbox("", visible=False, elem_id="battle-kept")
    setup = _draw_setup()
    with gr.Row(elem_id="battle-columns"):
        columns = {side: _draw_side(side, visible=side in _BLANK.sides) for side in SIDES}
    ballot = gr.HTML(parts.ballot(_BLANK), elem_id="battle-ballot", apply_default_css=False, js_on_load=RELAY + WATCH)
    with gr.Column(elem_id="battle-composer", min_width=0):
        html(parts.kept_note(open_to_all), "battle-note")
        suggested = html(examples(EXAMPLES), "battle-examples", relays=True)
        prompt = gr.MultimodalTextbox(
            elem_id="battle-prompt", show_label=False, label="Prompt for all sides", container=False, interactive=True,
            placeholder=ASK, sources=[], lines=1, max_lines=8, max_plain_text_length=100_000,
        )  # fmt: skip
    return BattleParts(
        columns=columns, ballot=ballot, examples=suggested, prompt=prompt, frames=frames, kept=kept, **setup
    )


def _draw_setup() -> dict[str, Any]:
    with gr.Row(elem_id="battle-setup", equal_height=True):
        mode = gr.Radio(
            list(MODES), value="installed", show_label=False, label="Who may fight", container=False,
            elem_id="battle-mode", elem_classes="segments", interactive=True, scale=0, min_width=250,
        )  # fmt: skip
        sides = gr.Radio(
            [(f"{count} sides" if count == 2 else str(count), count) for count in range(2, MOST_SIDES + 1)], value=2,
            show_label=False, label="How many sides", container=False, elem_id="battle-sides",
            elem_classes="segments", interactive=True, scale=0, min_width=120,
        )  # fmt: skip
        hint = html(HINTS["installed"], "battle-hint")
        gr.Button("Category, tags", elem_id="battle-label", size="sm", scale=0, min_width=60)
    chosen = gr.Dropdown(
        [], multiselect=True, visible=False, label="May fight (two or more)", interactive=True,
        allow_custom_value=True, elem_id="battle-chosen", elem_classes="named",
    )  # fmt: skip
    with gr.Row(elem_id="battle-labels"):
        category = gr.Dropdown(
            ["", *CATEGORIES], value="", label="Category", interactive=True, allow_custom_value=True,
            elem_id="battle-category", elem_classes="named", min_width=160,
        )  # fmt: skip
        tags = gr.Dropdown(
            [], multiselect=True, label="Tags", interactive=True, allow_custom_value=True,
            elem_id="battle-tags", elem_classes="named", min_width=160,
        )  # fmt: skip
    return {"mode": mode, "sides": sides, "hint": hint, "chosen": chosen, "category": category, "tags": tags}


def _draw_side(side: str, *, visible: bool) -> SideParts:
    name, letter = parts.element(side), side.upper()
    with gr.Column(
        visible=visible, min_width=240, elem_id=f"col-{name}", elem_classes=["acol", "side", f"hue-{side}"]
    ) as box:
        head = html(parts.head(_BLANK, side), f"head-{name}", "headbox")
        chat = gr.Chatbot(
            elem_id=f"chat-{name}", elem_classes="abot", show_label=False, label=f"Answers of side {letter}",
            height="60vh", autoscroll=False, group_consecutive_messages=False, layout="panel", buttons=["copy"],
            feedback_options=None, allow_tags=False, sanitize_html=True, latex_delimiters=LATEX, container=False,
            allow_file_downloads=False, placeholder=f"### {letter}\n\nOne of the models. Which one, your vote tells.",
        )  # fmt: skip
        status = html(parts.status(_BLANK, 0.0), f"status-{name}", "statbox")
    return SideParts(box, head, chat, status)
