"""Where a page's line-up comes from and goes to: link, browser, first visit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import gradio as gr
import msgspec

from arena.types import ModelInfo
from arena.ui import parts
from arena.ui.compare import CompareParts, Updates, Values, layout, read_lineup, remind, shown
from arena.ui.conversation import Conversations, with_defaults
from arena.ui.lineup import PRESETS, ColumnChoice, Lineup, from_query, kept_lineup, kept_presets, to_query
from arena.ui.sessions import Session, Sessions
from arena.ui.wiring import QUICK, TALK


class Memory:
    """Restores, remembers and links what the compare tab shows."""

    def __init__(self, drawn: CompareParts, conversations: Conversations, sessions: Sessions) -> None:
        self.drawn = drawn
        self.conversations = conversations
        self.sessions = sessions

    def wire(self, worth_remembering: list[gr.events.Dependency]) -> None:
        """Wire the tools over the columns, and the browser's memory behind `worth_remembering`."""
        drawn = self.drawn
        outputs = [*drawn.boxes, *drawn.answers, *drawn.models, *drawn.facts, drawn.mode]
        added = drawn.add.click(self.add, {drawn.saved}, outputs, **TALK)
        for event in (*worth_remembering, added):
            event.then(self.remember, drawn.inputs, drawn.saved, **QUICK)
        drawn.link.click(self.link, drawn.inputs, drawn.parcel, **QUICK).then(
            None, drawn.parcel, None, js="(query) => { arena.copyLink(query); }", **QUICK
        )

    def add(self, values: Values, request: gr.Request) -> Updates:
        """Show one more column, with the model of its left neighbour unless it still has one of its own."""
        session = self.sessions.of(request.session_hash)
        remind(self.drawn, session, values)
        letter = session.add()
        if letter is None:
            gr.Info(f"All {len(self.drawn.columns)} columns are open.")
            return {self.drawn.mode: gr.skip()}
        column = self.drawn.columns[letter]
        updates = layout(self.drawn, session) | shown(self.drawn, {letter: self.conversations.view(session, letter)})
        if not session.choices[letter].model:
            left = next((choice for name in reversed(session.visible) if (choice := session.choices[name]).model), None)
            if left is not None:
                session.choose(letter, left.model, left.endpoint)
            updates[column.model] = session.choices[letter].picked or None
        return updates | {column.facts: self.conversations.facts(session.choices[letter])}

    async def restore(self, kept: object, presets: object, query: Mapping[str, str], session: Session) -> Updates:
        """Set the page up: from its link, else from the browser's memory, else for a first visit."""
        drawn, models = self.drawn, await self.conversations.models()
        lineup = with_defaults(from_query(query, len(drawn.columns)) or kept_lineup(kept), models)
        session.set_columns(lineup.columns)
        updates = layout(drawn, session) | {drawn.system: lineup.system, drawn.order: lineup.order}
        if lineup.prompt:
            updates[drawn.prompt] = {"text": lineup.prompt, "files": []}
        updates[drawn.drawer.preset] = gr.Dropdown(choices=[*PRESETS, *kept_presets(presets)])
        return updates | pickers(drawn, self.conversations, session, models)

    async def refresh(self, session: Session) -> Updates:
        """List the models again; empty pickers of a first visit are filled once there is something to choose."""
        models = await self.conversations.models()
        if not session.set_up:
            return {self.drawn.mode: gr.skip()}
        lineup = Lineup(tuple(session.choices[letter] for letter in session.visible))
        if not any(choice.model for choice in lineup.columns):
            session.set_columns(with_defaults(lineup, models).columns)
        return pickers(self.drawn, self.conversations, session, models)

    def remember(self, values: Values, request: gr.Request) -> Any:
        """What the browser keeps for the next visit."""
        lineup = read_lineup(self.drawn, self.sessions.of(request.session_hash), values)
        return msgspec.to_builtins(msgspec.structs.replace(lineup, prompt=""))

    def link(self, values: Values, request: gr.Request) -> str:
        """The query string that restores these columns."""
        return to_query(read_lineup(self.drawn, self.sessions.of(request.session_hash), values))


def pickers(
    drawn: CompareParts, conversations: Conversations, session: Session, models: tuple[ModelInfo, ...]
) -> Updates:
    """The pickers with what there is to choose and what is chosen, and the lines under them."""
    choices = model_choices(models, session.choices.values())
    updates: Updates = {}
    for letter, column in drawn.columns.items():
        choice = session.choices[letter]
        updates[column.model] = gr.Dropdown(choices=choices, value=choice.picked or None)
        updates[column.facts] = conversations.facts(choice)
    return updates


def model_choices(models: tuple[ModelInfo, ...], chosen: Iterable[ColumnChoice]) -> list[tuple[str, str]]:
    """The picker's entries: what is installed, also on one endpoint of several, and what the columns name besides."""
    entries = [entry for info in models for entry in _entries(info)]
    missing = sorted({choice.picked for choice in chosen if choice.model} - {value for _, value in entries})
    return entries + [(value, value) for value in missing]


def _entries(info: ModelInfo) -> list[tuple[str, str]]:
    entries = [(parts.picker_label(info), info.name)]
    for name in info.endpoints if len(info.endpoints) > 1 else ():
        value = ColumnChoice(info.name, endpoint=name).picked
        entries.append((parts.pinned_label(value, name in info.loaded_on), value))
    return entries
