"""Draws one column: picker, settings, chat, status. Wiring and handling are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from arena.ui import parts
from arena.ui.elements import html, icon
from arena.ui.lineup import DIALS, PRESETS, Dial

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]
THINK_CHOICES = [
    ("model's own", "default"),
    ("off", "off"),
    ("on", "on"),
    ("low", "low"),
    ("medium", "medium"),
    ("high", "high"),
]


@dataclass(frozen=True, slots=True)
class ColumnParts:
    """The components of one column. `widgets` are its inputs by name, as lineup.widget_names lists them."""

    letter: str
    box: gr.Column
    widgets: Mapping[str, Any]
    facts: gr.HTML
    chat: gr.Chatbot
    status: gr.HTML
    notice: gr.HTML
    preset: gr.Dropdown
    save_preset: gr.Button
    drop_preset: gr.Button
    stop: gr.Button
    retry: gr.Button
    solo: gr.Button
    close: gr.Button

    @property
    def answer(self) -> tuple[Any, ...]:
        """The outputs that a running answer changes."""
        return (self.chat, self.status, self.notice)


def draw_column(letter: str, *, visible: bool) -> ColumnParts:
    """One column of the pool. The letter is in every id, so that tests and scripts find its parts."""
    low = letter.lower()
    with gr.Column(visible=visible, min_width=240, elem_id=f"col-{low}", elem_classes=["acol", f"hue-{low}"]) as box:
        with gr.Row(elem_classes="colhead", equal_height=True):
            html(f'<span class="tile" aria-hidden="true">{letter}</span>', None, "tilebox")
            model = gr.Dropdown(
                [],
                show_label=False,
                label=f"Model {letter}",
                container=False,
                elem_id=f"model-{low}",
                interactive=True,
                allow_custom_value=True,
                min_width=110,
                scale=5,
                elem_classes="picker",
            )
            icon(f"Settings of {letter}", f"settings-{low}", "settings")
            close = icon(f"Close {letter}", f"close-{low}", "close")
        facts = html(parts.facts_line(None, ""), f"facts-{low}", "factsbox")
        with gr.Column(elem_id=f"body-{low}", elem_classes="colbody", min_width=0):
            chat = gr.Chatbot(
                elem_id=f"chat-{low}", elem_classes="abot", show_label=False, label=f"Answers of {letter}",
                height="60vh", autoscroll=False, group_consecutive_messages=False, layout="panel", buttons=["copy"],
                feedback_options=None, allow_tags=False, sanitize_html=True, latex_delimiters=LATEX, container=False,
                allow_file_downloads=False,
                placeholder=f"### {letter}\n\nIts answers appear here, at their own pace.",
            )  # fmt: skip
            notice = html("", f"notice-{low}", "noticebox", relays=True)
            widgets, preset, save_preset, drop_preset = _draw_settings(letter)
        with gr.Row(elem_classes="colfoot", equal_height=True):
            status = html(parts.status(None, 0.0), f"status-{low}", "statbox")
            stop = icon(f"Stop {letter}", f"stop-{low}", "stop")
            retry = icon(f"Ask {letter} again", f"retry-{low}", "retry")
            solo = icon(f"Continue with {letter} only", f"solo-{low}", "solo")
    return ColumnParts(
        letter=letter, box=box, widgets={"model": model, **widgets}, facts=facts, chat=chat, status=status,
        notice=notice, preset=preset, save_preset=save_preset, drop_preset=drop_preset, stop=stop, retry=retry, solo=solo, close=close,
    )  # fmt: skip


def _draw_settings(letter: str) -> tuple[dict[str, Any], gr.Dropdown, gr.Button, gr.Button]:
    """The settings of a column. They lie over its chat, so that no other column moves when they open."""
    low = letter.lower()
    widgets: dict[str, Any] = {}
    with gr.Column(elem_id=f"drawer-{low}", elem_classes="drawer", min_width=0):
        with gr.Row(elem_classes="presets", equal_height=True):
            preset = gr.Dropdown(
                list(PRESETS), value=None, label=f"Preset for {letter}", show_label=False, container=False,
                interactive=True, allow_custom_value=True, elem_id=f"preset-{low}", min_width=100, scale=5, elem_classes="picker",
            )  # fmt: skip
            save = icon(f"Save the settings of {letter} under this name", f"preset-save-{low}", "save")
            drop = icon("Delete this preset", f"preset-drop-{low}", "delete")
        for dial in DIALS:
            widgets |= _draw_dial(dial, low)
        widgets["think"] = gr.Dropdown(
            THINK_CHOICES, value="default", label="think", info="let the model reason first", interactive=True,
            elem_id=f"think-{low}", elem_classes="think", filterable=False,
        )  # fmt: skip
        widgets["stop"] = gr.Textbox(
            "", label="stop", info="end the answer at any of these, one a line", lines=1, max_lines=4, interactive=True,
            elem_id=f"stopwords-{low}",
        )  # fmt: skip
        widgets["system"] = gr.Textbox(
            "", label="system prompt of this column", info="instead of the shared one", lines=2, max_lines=8,
            interactive=True, elem_id=f"system-{low}",
        )  # fmt: skip
    return widgets, preset, save, drop


def _draw_dial(dial: Dial, low: str) -> dict[str, Any]:
    """A switch with the option's name, and its control, which shows while the switch is on."""
    with gr.Column(elem_classes="dial", min_width=0):
        switch = gr.Checkbox(
            False, label=dial.name, info=dial.hint, interactive=True, elem_id=f"{dial.name}-on-{low}",
            elem_classes="switch", container=False,
        )  # fmt: skip
        shared: dict[str, Any] = {
            "value": dial.start, "label": f"{dial.name} of {low.upper()}", "show_label": False, "interactive": True,
            "elem_id": f"{dial.name}-{low}", "elem_classes": "dialvalue", "container": False,
        }  # fmt: skip
        control: Any
        if dial.maximum > 100_000:
            control = gr.Number(minimum=dial.minimum, maximum=dial.maximum, precision=0, **shared)
        else:
            control = gr.Slider(dial.minimum, dial.maximum, step=dial.step, **shared)
    return {f"{dial.name}_on": switch, dial.name: control}
