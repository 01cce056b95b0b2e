"""The panels' events: presets are saved and set, conversations kept and opened again, and both deleted."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from html import escape
from itertools import count

import gradio as gr

from arena.errors import ArenaError, BadRequest, Conflict, NotFound
from arena.kept import Kept
from arena.ui.callers import caller_of
from arena.ui.compare import CompareParts, Updates, Values, layout, read_lineup, shown
from arena.ui.conversation import Conversations, with_defaults
from arena.ui.export import as_html, as_json, as_markdown, as_masked
from arena.ui.keeping_parts import failed_panel, keep_panel, presets_panel, saying
from arena.ui.kept import conversation_of, has_pictures, lineup_of, preset_of, reopen
from arena.ui.lineup import Lineup
from arena.ui.memory import pickers
from arena.ui.sessions import Session, Sessions
from arena.ui.wiring import QUICK, TALK

EXPORTS: dict[str, tuple[str, Callable[[Session], str]]] = {
    "json": ("json", as_json),
    "markdown": ("md", as_markdown),
    "html": ("html", as_html),
    "masked": ("html", as_masked),
}
"""What can be downloaded: the file's ending, and what writes it."""

Outcome = tuple[Updates, str]
"""What changes on the page, and the word that says so."""


class Keeping:
    """What the two panels do."""

    def __init__(self, drawn: CompareParts, conversations: Conversations, sessions: Sessions, kept: Kept) -> None:
        self.drawn = drawn
        self.conversations = conversations
        self.sessions = sessions
        self.kept = kept
        self._words = count()

    def wire(self) -> list[gr.events.Dependency]:
        """Wire the panels; returns the events after which the line-up is worth remembering."""
        drawn = self.drawn
        everything = [*drawn.boxes, *drawn.answers, *drawn.models, *drawn.facts, drawn.mode, drawn.system, drawn.order]
        drawn.presets_button.click(self.show_presets, None, drawn.presets_panel, **QUICK)
        drawn.keep_button.click(self.show_kept, None, drawn.keep_panel, **QUICK)
        inputs = {*drawn.inputs}
        used = drawn.presets_panel.click(self.act_on_presets, inputs, [drawn.presets_panel, *everything], **TALK)
        panel = [drawn.keep_panel, drawn.parcel]
        opened = drawn.keep_panel.click(self.act_on_kept, None, [*panel, *everything], **TALK)
        download = "(parcel) => { if (parcel) arena.download(parcel); }"
        opened.then(None, drawn.parcel, None, js=download, **QUICK)
        return [used, opened]

    async def show_presets(self, request: gr.Request, confirming: str = "") -> str:
        """The presets as they are now."""
        try:
            return presets_panel(await self.kept.presets(caller_of(request)), confirming)
        except ArenaError as error:
            return failed_panel(error)

    async def show_kept(self, request: gr.Request, confirming: str = "") -> str:
        """The kept conversations as they are now."""
        asked = any(column.turns for column in self._session(request).columns.values())
        try:
            return keep_panel(await self.kept.conversations(caller_of(request)), confirming, asked=asked)
        except ArenaError as error:
            return failed_panel(error)

    async def act_on_presets(self, values: Values, request: gr.Request, event: gr.EventData) -> Updates:
        """Do what was clicked among the presets, and say what has happened."""
        updates, word = await self._tried(self._act_on_presets(values, request, event))
        panel = await self.show_presets(request, str(event.key) if event.action == "ask" else "")
        return updates | {self.drawn.presets_panel: self._saying(panel, word)}

    async def act_on_kept(self, request: gr.Request, event: gr.EventData) -> Updates:
        """Do what was clicked among the conversations, and say what has happened."""
        if event.action == "export" and (export := EXPORTS.get(str(getattr(event, "kind", "")))):
            ending, write = export
            return {self.drawn.parcel: f"{ending}\n{write(self._session(request))}"}
        updates, word = await self._tried(self._act_on_kept(request, event))
        panel = await self.show_kept(request, str(event.key) if event.action == "ask" else "")
        return updates | {self.drawn.keep_panel: self._saying(panel, word), self.drawn.parcel: ""}

    async def _act_on_presets(self, values: Values, request: gr.Request, event: gr.EventData) -> Outcome:
        match event.action:
            case "save":
                return await self._save(values, request, str(event.name).strip())
            case "use":
                return await self._use(request, str(event.key))
            case "delete":
                await self.kept.delete_preset(caller_of(request), str(event.key))
                return {}, f"Deleted: {event.key}"
        return {}, ""

    async def _act_on_kept(self, request: gr.Request, event: gr.EventData) -> Outcome:
        match event.action:
            case "keep":
                return await self._keep(request)
            case "open":
                return await self._open(request, str(event.key))
            case "delete":
                return await self._forget(request, str(event.key))
            case "export":
                raise BadRequest(f"kind: there is no such file. Choose one of {', '.join(EXPORTS)}.")
        return {}, ""

    @staticmethod
    async def _tried(act: Awaitable[Outcome]) -> Outcome:
        try:
            return await act
        except ArenaError as error:
            gr.Warning(escape(error.message))
            return {}, ""

    def _saying(self, panel: str, word: str) -> str:
        return saying(panel, word, next(self._words))

    async def _save(self, values: Values, request: gr.Request, name: str) -> Outcome:
        session = self._session(request)
        lineup = read_lineup(self.drawn, session, values)
        if not all(choice.model for choice in lineup.columns):
            raise BadRequest("Choose a model in every column first, or close those without one.")
        await self.kept.save_preset(caller_of(request), name, preset_of(lineup, session.visible))
        return {}, f"Saved: {name}"

    async def _use(self, request: gr.Request, name: str) -> Outcome:
        preset = (await self.kept.presets(caller_of(request))).get(name)
        if preset is None:
            raise NotFound("This preset is not there any more.")
        lineup = lineup_of(preset, len(self.drawn.columns))
        updates = await self._set(self._session(request), lineup)
        return updates | {self.drawn.system: lineup.system, self.drawn.order: lineup.order}, f"Columns set: {name}"

    async def _set(self, session: Session, lineup: Lineup | None = None) -> Updates:
        """The updates that show the session, set to a line-up if one is given."""
        models = await self.conversations.models()
        if lineup is not None:
            session.arrange(with_defaults(lineup, models).columns)
        views = {letter: self.conversations.view(session, letter) for letter in session.visible}
        columns = layout(self.drawn, session) | shown(self.drawn, views)
        return columns | pickers(self.drawn, self.conversations, session, models)

    async def _keep(self, request: gr.Request) -> Outcome:
        session = self._session(request)
        if session.busy:
            raise Conflict("Wait until the answers are complete, or stop them.")
        told = await self.kept.keep(caller_of(request), conversation_of(session), conversation_id=session.kept)
        again, session.kept = session.kept == told.id, told.id
        return {}, f"{'Kept as it is now' if again else 'Kept'}: {told.title}"

    async def _open(self, request: gr.Request, conversation_id: str) -> Outcome:
        told, conversation = await self.kept.conversation(caller_of(request), conversation_id)
        session = self._session(request)
        system = reopen(session, conversation, time.monotonic())
        have, fit = len(conversation.columns), len(session.columns)
        session.kept = told.id if have <= fit else ""  # a part must not take the place of the whole
        without = f" (the first {fit} of its {have} columns)" if have > fit else ""
        without += " (its pictures were not kept)" if has_pictures(conversation) else ""
        return await self._set(session) | {self.drawn.system: system}, f"Opened: {told.title}{without}"

    async def _forget(self, request: gr.Request, conversation_id: str) -> Outcome:
        await self.kept.delete_conversation(caller_of(request), conversation_id)
        session = self._session(request)
        if session.kept == conversation_id:
            session.kept = ""
        return {}, "The conversation is deleted"

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(request.session_hash)
