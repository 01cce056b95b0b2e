"""Draws one column: picker, chat, status. Wiring and handling are elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from arena.ui import parts
from arena.ui.elements import carrier, html, icon

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]


@dataclass(frozen=True, slots=True)
class ColumnParts:
    """The components of one column."""

    letter: str
    box: gr.Column
    model: gr.Dropdown
    facts: gr.HTML
    chat: gr.Chatbot
    notice: gr.HTML
    frames: gr.HTML
    status: gr.HTML
    settings: gr.Button
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
            model = gr.Dropdown(
                [], show_label=False, label=f"Model {letter}", container=False, elem_id=f"model-{low}",
                interactive=True, allow_custom_value=True, min_width=110, scale=5, elem_classes="picker",
            )  # fmt: skip
            settings = icon(f"Settings of {letter}", f"settings-{low}", "settings")
            close = icon(f"Close {letter}", f"close-{low}", "close")
        facts = html(parts.facts_line(None, ""), f"facts-{low}", "factsbox")
        chat = gr.Chatbot(
            elem_id=f"chat-{low}", elem_classes="abot", show_label=False, label=f"Answers of {letter}", height="60vh",
            autoscroll=False, group_consecutive_messages=False, layout="panel", buttons=["copy"],
            feedback_options=None, allow_tags=False, sanitize_html=True, latex_delimiters=LATEX, container=False,
            allow_file_downloads=False, placeholder=f"### {letter}\n\nIts answers appear here, at their own pace.",
        )  # fmt: skip
        notice = html("", f"notice-{low}", "noticebox", relays=True)
        frames = carrier(f"frames-{low}")  # of an answer asked again; the others may be in the middle of theirs
        with gr.Row(elem_classes="colfoot", equal_height=True):
            status = html(parts.status(None, 0.0), f"status-{low}", "statbox", relays=True)
            stop = icon(f"Stop {letter}", f"stop-{low}", "stop")
            retry = icon(f"Ask {letter} again", f"retry-{low}", "retry")
            solo = icon(f"Continue with {letter} only", f"solo-{low}", "solo")
    return ColumnParts(
        letter=letter, box=box, model=model, facts=facts, chat=chat, notice=notice, frames=frames, status=status,
        settings=settings, stop=stop, retry=retry, solo=solo, close=close,
    )  # fmt: skip
