"""One column's events: ask again, stop, pull what is missing, go on alone, close, and its settings."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from arena.ui import parts
from arena.ui.columns import ColumnParts
from arena.ui.compare import CompareParts, Updates, Values, layout, mode_line, read_choice, set_widgets, shown
from arena.ui.conversation import Conversations
from arena.ui.lineup import PRESETS, ColumnChoice, Remembered, from_browser, summary, to_browser
from arena.ui.sessions import Session, Sessions
from arena.ui.wiring import QUICK, STREAM


class ColumnEvents:
    """What the buttons and widgets of one column do."""

    def __init__(
        self, drawn: CompareParts, column: ColumnParts, conversations: Conversations, sessions: Sessions
    ) -> None:
        self.drawn = drawn
        self.column = column
        self.conversations = conversations
        self.sessions = sessions

    def wire(self) -> list[gr.events.Dependency]:
        """Wire the column; returns the events after which the line-up is worth remembering."""
        column, drawn = self.column, self.drawn
        inputs = {*column.widgets.values(), drawn.system}
        statuses = [other.status for other in drawn.columns.values() if other is not column]
        column.retry.click(self.retry, inputs, [*column.answer, *statuses], **STREAM)
        column.notice.click(self.act, inputs, [*column.answer, *statuses], **STREAM)
        column.stop.click(self.stop, None, None, **QUICK)
        column.solo.click(self.solo, None, [drawn.mode], **QUICK)
        closed = column.close.click(self.close, None, [*drawn.boxes, drawn.mode], **QUICK)
        widgets = set(column.widgets.values())
        changed = gr.on(
            [_change_of(widget) for widget in column.widgets.values()], self.describe, widgets, [column.facts],
            trigger_mode="always_last", **QUICK,
        )  # fmt: skip
        self._wire_presets()
        return [closed, changed]

    def _wire_presets(self) -> None:
        column, drawn = self.column, self.drawn
        inputs = {*column.widgets.values(), column.preset, drawn.saved}
        others = [widget for name, widget in column.widgets.items() if name != "model"]
        pickers = [other.preset for other in drawn.columns.values()]
        column.preset.input(self.apply_preset, inputs, [*others, column.facts], **QUICK)
        column.save_preset.click(self.save_preset, inputs, [drawn.saved, *pickers], **QUICK)
        column.drop_preset.click(self.drop_preset, inputs, [drawn.saved, *pickers], **QUICK)

    # ---- answers

    async def retry(self, values: Values, request: gr.Request) -> AsyncGenerator[Updates, None]:
        """Ask the last prompt again with the settings as they are now; the other columns go on undisturbed."""
        choice, system = read_choice(self.column, values), values[self.drawn.system] or ""
        async with aclosing(
            self.conversations.retry(self._session(request), self.column.letter, choice, system)
        ) as views:
            async for view in views:
                yield shown(self.drawn, view)

    async def act(self, values: Values, request: gr.Request, event: gr.EventData) -> AsyncGenerator[Updates, None]:
        """Do what the button in the column's notice says."""
        if event.action == "pull":
            async with aclosing(self.conversations.pull(self._session(request), self.column.letter)) as notices:
                async for notice in notices:
                    yield {self.column.notice: notice}
        elif event.action == "retry":
            async with aclosing(self.retry(values, request)) as updates:
                async for update in updates:
                    yield update

    def stop(self, request: gr.Request) -> None:
        """Stop this column's answer."""
        self._session(request).columns[self.column.letter].stop()

    def solo(self, request: gr.Request) -> Updates:
        """Continue with this column alone, or with all again."""
        session = self._session(request)
        session.only = None if session.only == self.column.letter else self.column.letter
        return {self.drawn.mode: mode_line(session)}

    def close(self, request: gr.Request) -> Updates:
        """Stop and hide this column."""
        session = self._session(request)
        session.close(self.column.letter)
        return layout(self.drawn, session)

    # ---- settings

    def describe(self, values: Values) -> Updates:
        """Say under the model's name what it is and what it is set to."""
        return {self.column.facts: facts(self.conversations, read_choice(self.column, values))}

    def apply_preset(self, values: Values) -> Updates:
        """Set the column to a preset; its model stays."""
        name = values[self.column.preset]
        preset = (PRESETS | from_browser(values[self.drawn.saved]).presets).get(name)
        if preset is None:
            return {self.column.facts: gr.skip()}
        model = read_choice(self.column, values).model
        choice = ColumnChoice(model, preset.options, preset.think, preset.system)
        return set_widgets(self.column, choice, model=False) | {self.column.facts: facts(self.conversations, choice)}

    def save_preset(self, values: Values) -> Updates:
        """Keep the column's settings in the browser under the name in the preset field."""
        name = str(values[self.column.preset] or "").strip()[:60]
        if not name or name in PRESETS:
            gr.Info("Type a name of your own into the preset field, then save.")
            return {self.drawn.saved: gr.skip()}
        kept, choice = from_browser(values[self.drawn.saved]), read_choice(self.column, values)
        preset = ColumnChoice("", choice.options, choice.think, choice.system)
        gr.Info("Preset saved in this browser.")
        return self._with_presets(Remembered(kept.lineup, kept.presets | {name: preset}))

    def drop_preset(self, values: Values) -> Updates:
        """Forget the preset in the preset field."""
        kept = from_browser(values[self.drawn.saved])
        presets = {name: preset for name, preset in kept.presets.items() if name != values[self.column.preset]}
        updates = self._with_presets(Remembered(kept.lineup, presets))
        return updates | {self.column.preset: gr.Dropdown(choices=[*PRESETS, *presets], value=None)}

    def _with_presets(self, remembered: Remembered) -> Updates:
        choices = [*PRESETS, *remembered.presets]
        updates: Updates = {column.preset: gr.Dropdown(choices=choices) for column in self.drawn.columns.values()}
        return updates | {self.drawn.saved: to_browser(remembered)}

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(request.session_hash)


def facts(conversations: Conversations, choice: ColumnChoice) -> str:
    """The line under a model's name."""
    return parts.facts_line(conversations.known(choice.model), summary(choice))


def _change_of(widget: Any) -> Any:
    """The event of a widget that is worth a round trip: not every step of a slider, not every key of a text."""
    if isinstance(widget, gr.Slider):
        return widget.release
    return widget.blur if isinstance(widget, gr.Textbox) else widget.change
