"""The compare tab: draws the columns and the composer, and wires them to the conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from arena.types import ModelInfo
from arena.ui import parts
from arena.ui.columns import ColumnParts, draw_column
from arena.ui.conversation import Conversations, View, with_defaults
from arena.ui.elements import html, icon
from arena.ui.export import as_json, as_markdown
from arena.ui.lineup import (
    LETTERS,
    PRESETS,
    ColumnChoice,
    Lineup,
    Remembered,
    choice_from,
    from_browser,
    from_query,
    summary,
    to_browser,
    to_query,
    widget_values,
)
from arena.ui.sessions import Asking, Session, Sessions

QUICK: dict[str, Any] = {
    "queue": False, "show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None,
}  # fmt: skip
"""How a handler is wired that answers at once."""
STREAM: dict[str, Any] = {
    "show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None, "trigger_mode": "multiple",
}  # fmt: skip
"""How a handler is wired that streams. The fleet limits the models; the page's queue limits nothing."""

EXAMPLES = (
    ("Explain simply", "Explain why the sky is blue to a ten-year-old, in three sentences."),
    ("Think it through", "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. What does the ball cost?"),
    ("Write code", "Write a Python function that returns the n-th Fibonacci number, with a docstring and two examples."),
    ("Make a table", "Compare tea and coffee in a table with the columns taste, caffeine and origin."),
    ("Tell a story", "Tell a story of six sentences about a lighthouse keeper who finds a letter in a bottle."),
)
UPLOADS = ["image", "text", ".md", ".py", ".js", ".ts", ".json", ".csv", ".yaml", ".yml", ".toml", ".html", ".css", ".c", ".rs", ".go", ".java", ".sh", ".sql", ".log", ".xml"]

Updates = dict[Any, Any]
Values = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class CompareParts:
    """The components of the tab that others react to."""

    columns: Mapping[str, ColumnParts]
    prompt: gr.MultimodalTextbox
    system: gr.Textbox
    order: gr.Radio
    add: gr.Button
    stop_all: gr.Button
    edit: gr.Button
    clear: gr.Button
    link: gr.Button
    save_json: gr.Button
    save_markdown: gr.Button
    mode: gr.HTML
    examples: gr.HTML
    banner: gr.HTML
    parcel: gr.Textbox
    saved: gr.BrowserState
    timer: gr.Timer

    @property
    def inputs(self) -> set[Any]:
        """Everything that a line-up is read from."""
        widgets = {widget for column in self.columns.values() for widget in column.widgets.values()}
        return widgets | {self.system, self.order, self.prompt}


class ComparePanel:
    """The compare tab."""

    def __init__(self, conversations: Conversations, sessions: Sessions) -> None:
        self.conversations = conversations
        self.sessions = sessions

    # ---- draw

    def render(self) -> CompareParts:
        """Draw the tab and wire it; call inside a Blocks and a Tab."""
        drawn = self._draw()
        self._wire_sending(drawn)
        self._wire_columns(drawn)
        self._wire_tools(drawn)
        return drawn

    def _draw(self) -> CompareParts:
        letters = LETTERS[: self.conversations.most_columns]
        saved = gr.BrowserState(None, storage_key="ollama-arena", secret="ollama-arena")
        timer = gr.Timer(1.5)
        parcel = gr.Textbox("", visible=False, elem_id="parcel")
        with gr.Row(elem_id="toolbar", equal_height=True):
            add = icon("Add a column", "add", "add")
            order = gr.Radio(
                [("Together", "together"), ("One after another", "one_after_another")], value="together", show_label=False,
                label="How the columns run", container=False, elem_id="order", interactive=True, scale=0, min_width=250,
            )  # fmt: skip
            html(ORDER_HINT, "order-hint")
            gr.Button("System prompt", elem_id="system-toggle", size="sm", scale=0, min_width=110)
            link = gr.Button("Copy link", elem_id="link", size="sm", scale=0, min_width=84)
            save_json = gr.Button("JSON", elem_id="export-json", size="sm", scale=0, min_width=60)
            save_markdown = gr.Button("Markdown", elem_id="export-markdown", size="sm", scale=0, min_width=84)
            clear = gr.Button("New chat", elem_id="clear", size="sm", scale=0, min_width=84)
        system = gr.Textbox(
            "", label="System prompt for all columns", show_label=False, lines=2, max_lines=6, interactive=True,
            elem_id="system", placeholder="System prompt for all columns; a column's own settings can replace it",
            container=False,
        )  # fmt: skip
        banner = html("", "banner")
        with gr.Row(elem_id="columns"):
            columns = {letter: draw_column(letter, visible=index < 2) for index, letter in enumerate(letters)}
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
        return CompareParts(
            columns=columns, prompt=prompt, system=system, order=order, add=add, stop_all=stop_all, edit=edit, clear=clear,
            link=link, save_json=save_json, save_markdown=save_markdown, mode=mode, examples=examples, banner=banner,
            parcel=parcel, saved=saved, timer=timer,
        )  # fmt: skip

    # ---- wire

    def _wire_sending(self, drawn: CompareParts) -> None:
        answers = [part for column in drawn.columns.values() for part in column.answer]

        def take(values: Values, request: gr.Request) -> Updates:
            session = self.sessions.of(request.session_hash)
            return self._taken(drawn, session, self._take(drawn, session, values))

        async def answer(request: gr.Request) -> AsyncGenerator[Updates, None]:
            session = self.sessions.of(request.session_hash)
            yield {drawn.mode: mode_line(session)}
            async with aclosing(self.conversations.answer(session)) as views:
                async for view in views:
                    yield shown(drawn, view)
            yield {drawn.mode: mode_line(session)}

        taken = drawn.prompt.submit(take, drawn.inputs, [drawn.prompt, drawn.mode], **QUICK)
        taken.then(answer, None, [*answers, drawn.mode], **STREAM)
        taken.then(self._remember(drawn), drawn.inputs | {drawn.saved}, drawn.saved, **QUICK)

        def stop_all(request: gr.Request) -> None:
            self.sessions.of(request.session_hash).stop()

        drawn.stop_all.click(stop_all, None, None, **QUICK)

        def example(event: gr.EventData) -> Updates:
            return {drawn.prompt: {"text": str(event.prompt), "files": []}}

        drawn.examples.click(example, None, [drawn.prompt], **QUICK)

    def _wire_columns(self, drawn: CompareParts) -> None:
        remember = self._remember(drawn)
        for column in drawn.columns.values():
            self._wire_answer(drawn, column)
            self._wire_settings(drawn, column, remember)

        boxes = [column.box for column in drawn.columns.values()]
        answers = [part for column in drawn.columns.values() for part in column.answer]

        def add(values: Values, request: gr.Request) -> Updates:
            session = self.sessions.of(request.session_hash)
            letter = session.add()
            if letter is None:
                gr.Info(f"All {len(drawn.columns)} columns are open.")
                return {drawn.mode: gr.skip()}
            model = drawn.columns[letter].widgets["model"]
            updates: Updates = layout(drawn, session) | shown(drawn, {letter: self.conversations.view(session, letter)})
            if not values[model]:
                updates[model] = self._next_model(drawn, session, values)
            return updates

        models = [column.widgets["model"] for column in drawn.columns.values()]
        added = drawn.add.click(add, set(models), [*boxes, *answers, *models, drawn.mode], **QUICK)
        added.then(remember, drawn.inputs | {drawn.saved}, drawn.saved, **QUICK)

    def _wire_answer(self, drawn: CompareParts, column: ColumnParts) -> None:
        letter = column.letter
        inputs = {*column.widgets.values(), drawn.system}

        async def retry(values: Values, request: gr.Request) -> AsyncGenerator[Updates, None]:
            session = self.sessions.of(request.session_hash)
            retried = self.conversations.retry(session, letter, read_choice(column, values), values[drawn.system] or "")
            async with aclosing(retried) as views:
                async for view in views:
                    yield shown(drawn, view)

        async def act(values: Values, request: gr.Request, event: gr.EventData) -> AsyncGenerator[Updates, None]:
            if event.action == "pull":
                async with aclosing(self.conversations.pull(self.sessions.of(request.session_hash), letter)) as notices:
                    async for notice in notices:
                        yield {column.notice: notice}
            elif event.action == "retry":
                async with aclosing(retry(values, request)) as updates:
                    async for update in updates:
                        yield update

        def stop(request: gr.Request) -> None:
            self.sessions.of(request.session_hash).columns[letter].stop()

        def solo(request: gr.Request) -> Updates:
            session = self.sessions.of(request.session_hash)
            session.only = None if session.only == letter else letter
            return {drawn.mode: mode_line(session)}

        def close(request: gr.Request) -> Updates:
            session = self.sessions.of(request.session_hash)
            session.close(letter)
            return layout(drawn, session)

        column.retry.click(retry, inputs, list(column.answer), **STREAM)
        column.notice.click(act, inputs, list(column.answer), **STREAM)
        column.stop.click(stop, None, None, **QUICK)
        column.solo.click(solo, None, [drawn.mode], **QUICK)
        closed = column.close.click(close, None, [*(c.box for c in drawn.columns.values()), drawn.mode], **QUICK)
        closed.then(self._remember(drawn), drawn.inputs | {drawn.saved}, drawn.saved, **QUICK)

    def _wire_settings(self, drawn: CompareParts, column: ColumnParts, remember: Any) -> None:
        widgets = column.widgets

        def describe(values: Values) -> Updates:
            return {column.facts: self._facts(read_choice(column, values))}

        changes = [
            widget.release if isinstance(widget, gr.Slider) else widget.blur if isinstance(widget, gr.Textbox) else widget.change
            for widget in widgets.values()
        ]
        described = gr.on(changes, describe, set(widgets.values()), [column.facts], trigger_mode="always_last", **QUICK)
        described.then(remember, drawn.inputs | {drawn.saved}, drawn.saved, **QUICK)

        others = [widget for name, widget in widgets.items() if name != "model"]

        def apply(values: Values) -> Updates:
            name = values[column.preset]
            presets = PRESETS | from_browser(values[drawn.saved]).presets
            if name not in presets:
                return {column.facts: gr.skip()}
            updates = set_widgets(column, presets[name], model=False)
            choice = presets[name]
            model = ColumnChoice(str(values[widgets["model"]] or ""), choice.options, choice.think, choice.system)
            return updates | {column.facts: self._facts(model)}

        def save(values: Values) -> Updates:
            name = str(values[column.preset] or "").strip()[:60]
            if not name or name in PRESETS:
                gr.Info("Type a name of its own into the preset field, then save.")
                return {drawn.saved: gr.skip()}
            kept = from_browser(values[drawn.saved])
            choice = read_choice(column, values)
            presets = kept.presets | {name: ColumnChoice("", choice.options, choice.think, choice.system)}
            gr.Info(f"Saved as {name}.")
            return self._presets(drawn, Remembered(kept.lineup, presets))

        def drop(values: Values) -> Updates:
            kept = from_browser(values[drawn.saved])
            presets = {name: preset for name, preset in kept.presets.items() if name != values[column.preset]}
            return self._presets(drawn, Remembered(kept.lineup, presets)) | {column.preset: gr.Dropdown(value=None)}

        pickers = [other.preset for other in drawn.columns.values()]
        inputs = {*widgets.values(), column.preset, drawn.saved}
        column.preset.input(apply, inputs, [*others, column.facts], **QUICK)
        column.save_preset.click(save, inputs, [drawn.saved, *pickers], **QUICK)
        column.drop_preset.click(drop, inputs, [drawn.saved, *pickers], **QUICK)

    def _wire_tools(self, drawn: CompareParts) -> None:
        def edit(request: gr.Request) -> Updates:
            session = self.sessions.of(request.session_hash)
            turn = session.last_prompt()
            if turn is None:
                return {drawn.mode: gr.skip()}
            session.editing = True
            files = [item.path for item in turn.attachments]
            return {drawn.prompt: {"text": turn.shown, "files": files}, drawn.mode: mode_line(session)}

        def leave_mode(event: gr.EventData, request: gr.Request) -> Updates:
            session = self.sessions.of(request.session_hash)
            if event.action == "all":
                session.only = None
                return {drawn.mode: mode_line(session)}
            session.editing = False
            return {drawn.mode: mode_line(session), drawn.prompt: {"text": "", "files": []}}

        def clear(request: gr.Request) -> Updates:
            session = self.sessions.of(request.session_hash)
            session.clear()
            views = {letter: self.conversations.view(session, letter) for letter in session.columns}
            return shown(drawn, views) | {drawn.mode: mode_line(session)}

        drawn.edit.click(edit, None, [drawn.prompt, drawn.mode], **QUICK)
        drawn.mode.click(leave_mode, None, [drawn.mode, drawn.prompt], **QUICK)
        answers = [part for column in drawn.columns.values() for part in column.answer]
        drawn.clear.click(clear, None, [*answers, drawn.mode], **QUICK)
        self._wire_export(drawn)

    def _wire_export(self, drawn: CompareParts) -> None:
        def link(values: Values, request: gr.Request) -> str:
            return to_query(self._lineup(drawn, self.sessions.of(request.session_hash), values))

        def save_json(request: gr.Request) -> str:
            return as_json(self.sessions.of(request.session_hash))

        def save_markdown(request: gr.Request) -> str:
            return as_markdown(self.sessions.of(request.session_hash))

        drawn.link.click(link, drawn.inputs, drawn.parcel, **QUICK).then(
            None, drawn.parcel, None, js="(query) => { arena.copyLink(query); }", **QUICK
        )
        drawn.save_json.click(save_json, None, drawn.parcel, **QUICK).then(
            None, drawn.parcel, None, js="(text) => { arena.download('json', text); }", **QUICK
        )
        drawn.save_markdown.click(save_markdown, None, drawn.parcel, **QUICK).then(
            None, drawn.parcel, None, js="(text) => { arena.download('md', text); }", **QUICK
        )

    # ---- handle

    async def restore(self, drawn: CompareParts, kept: object, query: Mapping[str, str], session: Session) -> Updates:
        """Set the page up: from its link, else from the browser's memory, else for a first visit."""
        remembered = from_browser(kept)
        models = await self.conversations.models()
        lineup = from_query(query, len(drawn.columns)) or remembered.lineup
        lineup = with_defaults(lineup, models)
        session.show(min(len(lineup.columns), len(drawn.columns)))
        updates: Updates = layout(drawn, session) | {drawn.system: lineup.system, drawn.order: lineup.order}
        if lineup.prompt:
            updates[drawn.prompt] = {"text": lineup.prompt, "files": []}
        choices = model_choices(models, lineup)
        for column, choice in zip(drawn.columns.values(), lineup.columns, strict=False):
            updates |= set_widgets(column, choice) | {column.facts: self._facts(choice)}
        for column in drawn.columns.values():
            model = column.widgets["model"]
            updates[model] = gr.Dropdown(choices=choices, value=updates.get(model))
            updates[column.preset] = gr.Dropdown(choices=[*PRESETS, *remembered.presets])
        return updates

    async def refresh(self, drawn: CompareParts, values: Values, session: Session) -> Updates:
        """List the models again; empty pickers of a first visit are filled once there is something to choose."""
        models = await self.conversations.models()
        lineup = self._lineup(drawn, session, values)
        filled = with_defaults(lineup, models)
        updates: Updates = {}
        choices = model_choices(models, filled)
        for letter, column in drawn.columns.items():
            model = column.widgets["model"]
            updates[model] = gr.Dropdown(choices=choices)
            choice = read_choice(column, values)
            if letter in session.visible and filled != lineup:
                index = session.visible.index(letter)
                choice = filled.columns[index] if index < len(filled.columns) else choice
                updates |= set_widgets(column, choice) | {model: gr.Dropdown(choices=choices, value=choice.model or None)}
            updates[column.facts] = self._facts(choice)
        return updates

    def _take(self, drawn: CompareParts, session: Session, values: Values) -> str | None:
        message = values[drawn.prompt] or {}
        choices = {letter: read_choice(column, values) for letter, column in drawn.columns.items()}
        asking = Asking(message.get("text") or "", (), choices, values[drawn.system] or "", values[drawn.order])
        return self.conversations.take(session, asking, message.get("files") or [])

    @staticmethod
    def _taken(drawn: CompareParts, session: Session, refusal: str | None) -> Updates:
        if refusal is None:
            return {drawn.prompt: {"text": "", "files": []}, drawn.mode: mode_line(session)}
        if refusal:
            gr.Info(refusal)
        return {drawn.prompt: gr.skip(), drawn.mode: gr.skip()}

    def _lineup(self, drawn: CompareParts, session: Session, values: Values) -> Lineup:
        columns = tuple(read_choice(drawn.columns[letter], values) for letter in session.visible)
        text = (values[drawn.prompt] or {}).get("text") or ""
        return Lineup(columns, values[drawn.system] or "", values[drawn.order] or "together", text)

    def _remember(self, drawn: CompareParts) -> Any:
        def remember(values: Values, request: gr.Request) -> Any:
            session = self.sessions.of(request.session_hash)
            kept = from_browser(values[drawn.saved])
            lineup = self._lineup(drawn, session, values)
            return to_browser(Remembered(Lineup(lineup.columns, lineup.system, lineup.order), kept.presets))

        return remember

    def _facts(self, choice: ColumnChoice) -> str:
        return parts.facts_line(self.conversations.known(choice.model), summary(choice))

    def _next_model(self, drawn: CompareParts, session: Session, values: Values) -> Any:
        """The model of a new column: the first that no other column has, else the left neighbour's."""
        taken = [read_choice(drawn.columns[letter], {**values}).model for letter in session.visible if letter]
        return next((model for model in reversed(taken) if model), None)

    @staticmethod
    def _presets(drawn: CompareParts, remembered: Remembered) -> Updates:
        choices = [*PRESETS, *remembered.presets]
        updates: Updates = {column.preset: gr.Dropdown(choices=choices) for column in drawn.columns.values()}
        return updates | {drawn.saved: to_browser(remembered)}


ORDER_HINT = (
    '<span class="when-together">quickest; answers share the machine, so their speeds are not comparable</span>'
    '<span class="when-one">each has the machine to itself, so speeds are comparable</span>'
)


def read_choice(column: ColumnParts, values: Values) -> ColumnChoice:
    """A column's settings, read from the values of its widgets."""
    return choice_from({name: values.get(widget) for name, widget in column.widgets.items()})


def set_widgets(column: ColumnParts, choice: ColumnChoice, *, model: bool = True) -> Updates:
    """The updates that make a column's widgets show `choice`."""
    values = widget_values(choice)
    return {widget: values[name] for name, widget in column.widgets.items() if model or name != "model"}


def shown(drawn: CompareParts, views: Mapping[str, View]) -> Updates:
    """Views as component updates."""
    updates: Updates = {}
    for letter, view in views.items():
        column = drawn.columns[letter]
        updates |= {column.chat: view.chat, column.status: view.status, column.notice: view.notice}
    return updates


def layout(drawn: CompareParts, session: Session) -> Updates:
    """Which columns are visible, and what the line over the composer says."""
    boxes: Updates = {c.box: gr.Column(visible=letter in session.visible) for letter, c in drawn.columns.items()}
    return boxes | {drawn.mode: mode_line(session)}


def mode_line(session: Session) -> str:
    """What is special about the next prompt, with the way out of it."""
    lines = []
    if session.editing:
        lines.append('Editing your last prompt: sending replaces the last turn. <button type="button" data-action="keep">Cancel</button>')
    if session.only in session.visible and len(session.visible) > 1:
        lines.append(
            f'Only <b>{session.only}</b> gets your next prompt; the others stay as they are. '
            '<button type="button" data-action="all">Send to all again</button>'
        )
    only = f' data-only="{session.only.lower()}"' if session.only in session.visible and session.only else ""
    return f'<div class="mode"{only}>{"".join(f"<p>{line}</p>" for line in lines)}</div>'


def model_choices(models: tuple[ModelInfo, ...], lineup: Lineup) -> list[tuple[str, str]]:
    """The picker's entries: what is installed, and what the line-up names besides."""
    names = {info.name for info in models}
    missing = sorted({choice.model for choice in lineup.columns if choice.model} - names)
    return [(parts.picker_label(info), info.name) for info in models] + [(name, name) for name in missing]
