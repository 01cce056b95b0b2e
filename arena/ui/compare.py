"""The compare tab: draws its columns and its composer. What they do is wired in sending, column_events and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from arena.ui import parts
from arena.ui.columns import ColumnParts, draw_column
from arena.ui.conversation import View
from arena.ui.drawer import DrawerParts, draw_drawer
from arena.ui.elements import carrier, html, icon, panel
from arena.ui.lineup import LETTERS, Lineup, kept_lineup
from arena.ui.sessions import Session

EXAMPLES = (
    ("Explain simply", "Explain why the sky is blue to a ten-year-old, in three sentences."),
    (
        "Think it through",
        "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. What does the ball cost?",
    ),
    (
        "Write code",
        "Write a Python function that returns the n-th Fibonacci number, with a docstring and two examples.",
    ),
    ("Make a table", "Compare tea and coffee in a table with the columns taste, caffeine and origin."),
    ("Tell a story", "Tell a story of six sentences about a lighthouse keeper who finds a letter in a bottle."),
)
UPLOADS = [
    "image", "text", ".md", ".py", ".js", ".ts", ".json", ".csv", ".yaml", ".yml", ".toml", ".html", ".css", ".c", ".h",
    ".cpp", ".rs", ".go", ".java", ".kt", ".rb", ".sh", ".sql", ".log", ".xml",
]  # fmt: skip
ORDER_HINT = (
    '<span class="when-together">quickest, but speeds are not comparable</span>'
    '<span class="when-one">each alone on the machine: speeds are comparable</span>'
)

Updates = dict[Any, Any]
"""What a handler changes: component to value, or to a component with the properties to change."""
Values = Mapping[Any, Any]
"""What a handler is given: component to value."""


@dataclass(frozen=True, slots=True)
class CompareParts:
    """The components of the tab."""

    columns: Mapping[str, ColumnParts]
    drawer: DrawerParts
    prompt: gr.MultimodalTextbox
    system: gr.Textbox
    order: gr.Radio
    add: gr.Button
    stop_all: gr.Button
    edit: gr.Button
    clear: gr.Button
    link: gr.Button
    presets_button: gr.Button
    presets_panel: gr.HTML
    keep_button: gr.Button
    keep_panel: gr.HTML
    mode: gr.HTML
    examples: gr.HTML
    banner: gr.HTML
    frames: gr.HTML
    parcel: gr.Textbox
    saved: gr.BrowserState
    presets: gr.BrowserState
    timer: gr.Timer

    @property
    def inputs(self) -> set[Any]:
        """What a line-up is read from, beside the session."""
        return {self.system, self.order, self.prompt, self.saved}

    @property
    def models(self) -> list[gr.Dropdown]:
        """The model pickers."""
        return [column.model for column in self.columns.values()]

    @property
    def facts(self) -> list[gr.HTML]:
        """The lines under the pickers."""
        return [column.facts for column in self.columns.values()]

    @property
    def answers(self) -> list[Any]:
        """What running answers change, in all columns."""
        return [part for column in self.columns.values() for part in column.answer]

    @property
    def boxes(self) -> list[gr.Column]:
        """The columns' own boxes, which are shown and hidden."""
        return [column.box for column in self.columns.values()]


def draw_compare(most_columns: int) -> CompareParts:
    """Draw the tab with a pool of `most_columns`, of which two are visible; call inside a Blocks and a Tab."""
    # apart, so that a line-up remembered late cannot undo a preset saved meanwhile
    saved, presets = (
        gr.BrowserState(None, storage_key=f"ollama-arena-{what}", secret=what) for what in ("lineup", "presets")
    )
    timer = gr.Timer(1.5)
    frames = carrier("frames")
    parcel = gr.Textbox("", visible=False, elem_id="parcel")
    toolbar = _draw_toolbar()
    presets_panel, keep_panel = panel("presets-panel"), panel("keep-panel")
    system = gr.Textbox(
        "", label="System prompt for all columns", show_label=False, lines=2, max_lines=6, interactive=True,
        elem_id="system", placeholder="System prompt for all columns; a column's own settings can replace it",
        container=False,
    )  # fmt: skip
    banner = html("", "banner")
    with gr.Row(elem_id="columns"):
        columns = {
            letter: draw_column(letter, visible=index < 2) for index, letter in enumerate(LETTERS[:most_columns])
        }
    with gr.Column(elem_id="composer", min_width=0):
        examples = html(parts.examples(EXAMPLES), "examples", relays=True)
        mode = html("", "mode", relays=True)
        with gr.Row(equal_height=True, elem_id="composer-row"):
            prompt = gr.MultimodalTextbox(
                elem_id="prompt", show_label=False, label="Prompt for all columns", container=False, interactive=True,
                placeholder="Ask all columns…", sources=["upload"], file_types=UPLOADS, file_count="multiple",
                lines=1, max_lines=8, max_plain_text_length=100_000, autofocus=True, scale=5,
            )  # fmt: skip
            edit = icon("Edit the last prompt", "edit", "edit")
            stop_all = gr.Button("Stop all", elem_id="stop-all", size="sm", scale=0, min_width=84, variant="stop")
    drawer = draw_drawer()
    return CompareParts(
        columns=columns, drawer=drawer, prompt=prompt, system=system, stop_all=stop_all, edit=edit, mode=mode,
        examples=examples, banner=banner, frames=frames, parcel=parcel, saved=saved,
        presets=presets, timer=timer, presets_panel=presets_panel, keep_panel=keep_panel, **toolbar,
    )  # fmt: skip


def _draw_toolbar() -> dict[str, Any]:
    with gr.Row(elem_id="toolbar", equal_height=True):
        add = icon("Add a column", "add", "add")
        html("", "letters")
        order = gr.Radio(
            [("Together", "together"), ("One after another", "one_after_another")], value="together", show_label=False,
            label="How the columns run", container=False, elem_id="order", interactive=True, scale=0, min_width=250,
        )  # fmt: skip
        html(ORDER_HINT, "order-hint")
        _tool("System prompt", "system-toggle")
        return {
            "add": add,
            "order": order,
            "presets_button": _tool("Presets", "presets-toggle"),
            "link": _tool("Copy link", "link"),
            "keep_button": _tool("Keep", "keep-toggle"),
            "clear": _tool("New chat", "clear"),
        }


def _tool(text: str, elem_id: str) -> gr.Button:
    return gr.Button(text, elem_id=elem_id, size="sm", scale=0, min_width=60)


# ---- from values to line-ups, from views to updates


def read_lineup(drawn: CompareParts, session: Session, values: Values) -> Lineup:
    """The visible columns' settings with what they share."""
    remind(drawn, session, values)
    text = (values[drawn.prompt] or {}).get("text") or ""
    columns = tuple(session.choices[letter] for letter in session.visible)
    return Lineup(columns, values[drawn.system] or "", values[drawn.order] or "together", text)


def remind(drawn: CompareParts, session: Session, values: Values) -> None:
    """Give a session that the server has forgotten (it was restarted, say) its columns back, from the browser's memory.

    What the pickers and the drawer show is never read but when the user changes it: on a slow machine they show
    nothing yet when the first events arrive.
    """
    if not session.set_up:
        session.set_columns(kept_lineup(values[drawn.saved]).columns)


def shown(drawn: CompareParts, views: Mapping[str, View]) -> Updates:
    """Views as component updates."""
    updates: Updates = {}
    for letter, view in views.items():
        column = drawn.columns[letter]
        told = {column.chat: view.chat, column.status: view.status, column.notice: view.notice}
        updates |= {part: value for part, value in told.items() if value is not None}
    return updates


def layout(drawn: CompareParts, session: Session) -> Updates:
    """Which columns are visible, and what the line over the composer says."""
    boxes: Updates = {c.box: gr.Column(visible=letter in session.visible) for letter, c in drawn.columns.items()}
    return boxes | {drawn.mode: mode_line(session)}


def mode_line(session: Session) -> str:
    """What is special about the next prompt, with the way out of it."""
    lines = []
    if session.editing:
        lines.append(f"Editing your last prompt: sending it replaces the last turn. {_way_out('keep', 'Cancel')}")
    alone = session.only if session.only in session.visible and len(session.visible) > 1 else None
    if alone:
        lines.append(
            f"Only <b>{alone}</b> gets your next prompt; the others stay as they are. "
            f"{_way_out('all', 'Send to all again')}"
        )
    only = f' data-only="{alone.lower()}"' if alone else ""
    return f'<div class="mode"{only}>{"".join(f"<p>{line}</p>" for line in lines)}</div>'


def _way_out(action: str, text: str) -> str:
    return f'<button type="button" data-action="{action}">{text}</button>'
