"""The settings drawer's events: what is set, and presets. A column opens it."""

from __future__ import annotations

from typing import Any

import gradio as gr
import msgspec

from arena.ui.compare import CompareParts, Updates, Values
from arena.ui.conversation import Conversations
from arena.ui.drawer import as_preset
from arena.ui.lineup import PRESETS, ColumnChoice, choice_from, kept_presets
from arena.ui.sessions import Session, Sessions
from arena.ui.wiring import QUICK, TALK


class DrawerEvents:
    """What the widgets of the drawer do to the column that it is open for."""

    def __init__(self, drawn: CompareParts, conversations: Conversations, sessions: Sessions) -> None:
        self.drawn = drawn
        self.drawer = drawn.drawer
        self.conversations = conversations
        self.sessions = sessions

    def wire(self) -> list[gr.events.Dependency]:
        """Wire the drawer; returns the events after which the line-up is worth remembering."""
        drawer, drawn = self.drawer, self.drawn
        widgets = list(drawer.widgets.values())
        changed = gr.on(
            [_input_of(widget) for widget in widgets], self.change, set(widgets), drawn.facts,
            trigger_mode="always_last", **QUICK,
        )  # fmt: skip
        with_presets: set[Any] = {drawer.preset, drawn.presets}
        applied = drawer.preset.input(self.apply_preset, with_presets, [*widgets, *drawn.facts], **QUICK)
        drawer.save.click(self.save_preset, with_presets, [drawn.presets, drawer.preset], **TALK)
        drawer.drop.click(self.drop_preset, with_presets, [drawn.presets, drawer.preset], **QUICK)
        return [changed, applied]

    def change(self, values: Values, request: gr.Request) -> Updates:
        """Take over what was set."""
        session = self._session(request)
        choice = choice_from({name: values.get(widget) for name, widget in self.drawer.widgets.items()})
        return self._set(session, choice)

    def apply_preset(self, values: Values, request: gr.Request) -> Updates:
        """Set the column to a preset; its model stays."""
        presets = PRESETS | kept_presets(values[self.drawn.presets])
        preset = presets.get(values[self.drawer.preset])
        if preset is None:
            return self._set(self._session(request), None)
        return self._set(self._session(request), preset) | self.drawer.showing(preset)

    def save_preset(self, values: Values, request: gr.Request) -> Updates:
        """Keep the column's settings in the browser under the name in the preset field."""
        name = str(values[self.drawer.preset] or "").strip()[:60]
        if not name or name in PRESETS:
            gr.Info("Type a name of your own into the preset field, then save.")
            return {self.drawn.presets: gr.skip()}
        session = self._session(request)
        gr.Info("Preset saved in this browser.")
        own = kept_presets(values[self.drawn.presets])
        return self._presets(own | {name: as_preset(session.choices[session.drawer])}, name)

    def drop_preset(self, values: Values) -> Updates:
        """Forget the preset in the preset field."""
        own = kept_presets(values[self.drawn.presets])
        own.pop(values[self.drawer.preset], None)
        return self._presets(own, None)

    def _set(self, session: Session, settings: ColumnChoice | None) -> Updates:
        letter = session.drawer
        if settings is not None:
            own = session.choices[letter]
            session.choices[letter] = msgspec.structs.replace(settings, model=own.model, endpoint=own.endpoint)
        return {self.drawn.columns[letter].facts: self.conversations.facts(session.choices[letter])}

    def _presets(self, own: dict[str, ColumnChoice], chosen: str | None) -> Updates:
        picker = gr.Dropdown(choices=[*PRESETS, *own], value=chosen)
        return {self.drawn.presets: msgspec.to_builtins(own), self.drawer.preset: picker}

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(request.session_hash)


def _input_of(widget: Any) -> Any:
    """The event of a widget that only the user causes; of a slider, the end of a move."""
    return widget.release if isinstance(widget, gr.Slider) else widget.input
