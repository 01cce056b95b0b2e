"""The settings drawer: one set of widgets for all columns, shown over the column that it belongs to.

One set, because every component costs the browser time at every update, used or not; a set for each of six columns made
the page three times slower to open. What a column is set to is kept in the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import msgspec

from arena.ui import parts
from arena.ui.elements import html, icon
from arena.ui.lineup import DIALS, PRESETS, ColumnChoice, Dial, widget_values

THINK_CHOICES = [
    ("model's own", "default"), ("off", "off"), ("on", "on"), ("low", "low"), ("medium", "medium"), ("high", "high"),
    ("max", "max"),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DrawerParts:
    """The components of the drawer. `widgets` are its inputs by name, as `lineup.widget_values` names them."""

    title: gr.HTML
    preset: gr.Dropdown
    save: gr.Button
    drop: gr.Button
    widgets: Mapping[str, Any]

    def showing(self, choice: ColumnChoice) -> dict[Any, Any]:
        """The updates that make the widgets show `choice`."""
        values = widget_values(choice)
        return {widget: values[name] for name, widget in self.widgets.items()}


def draw_drawer() -> DrawerParts:
    """Draw the drawer; call inside a Blocks. It stays hidden until the page's script shows it."""
    widgets: dict[str, Any] = {}
    with gr.Column(elem_id="drawer", min_width=0):
        title = html("", "drawer-title")
        with gr.Row(elem_classes="presets", equal_height=True):
            preset = gr.Dropdown(
                list(PRESETS), value=None, label="Preset", show_label=False, container=False, interactive=True,
                allow_custom_value=True, elem_id="preset", min_width=100, scale=5, elem_classes="picker",
            )  # fmt: skip
            save = icon("Save these settings under this name", "preset-save", "save")
            drop = icon("Delete this preset", "preset-drop", "delete")
        for dial in DIALS:
            widgets |= _draw_dial(dial)
        widgets["think"] = gr.Dropdown(
            THINK_CHOICES, value="default", label="think", info="let the model reason first", interactive=True,
            elem_id="think", elem_classes="think", filterable=False,
        )  # fmt: skip
        widgets["stop"] = gr.Textbox(
            "", label="stop", info="end the answer at any of these, one a line", lines=1, max_lines=4, interactive=True,
            elem_id="stopwords",
        )  # fmt: skip
        widgets["system"] = gr.Textbox(
            "", label="system prompt of this column", info="instead of the shared one", lines=2, max_lines=8,
            interactive=True, elem_id="own-system",
        )  # fmt: skip
    return DrawerParts(title, preset, save, drop, widgets)


def _draw_dial(dial: Dial) -> dict[str, Any]:
    """A switch with the option's name, and its control, which shows while the switch is on."""
    with gr.Column(elem_classes="dial", min_width=0):
        switch = gr.Checkbox(
            False, label=dial.name, info=dial.hint, interactive=True, elem_id=f"{dial.name}-on", elem_classes="switch",
            container=False,
        )  # fmt: skip
        shared: dict[str, Any] = {
            "value": dial.start, "label": dial.name, "show_label": False, "interactive": True, "elem_id": dial.name,
            "elem_classes": "dialvalue", "container": False,
        }  # fmt: skip
        control: Any
        if dial.maximum > 100_000:
            control = gr.Number(minimum=dial.minimum, maximum=dial.maximum, precision=0, **shared)
        else:
            control = gr.Slider(dial.minimum, dial.maximum, step=dial.step, **shared)
    return {f"{dial.name}_on": switch, dial.name: control}


def drawer_title(letter: str, model: str, think: parts.Ability) -> str:
    """Whose settings these are; also tells the style sheet whether the model can think."""
    name = f' <span class="dim">{escape(model)}</span>' if model else ""
    return (
        f'<div class="drawer-title" data-letter="{letter.lower()}" data-think="{think}">'
        f"<b>Settings of {letter}</b>{name}"
        '<button type="button" data-ui="close-drawer" aria-label="Close the settings">Done</button></div>'
    )


def as_preset(choice: ColumnChoice) -> ColumnChoice:
    """The settings without the model they were made for."""
    return msgspec.structs.replace(choice, model="", endpoint="")
