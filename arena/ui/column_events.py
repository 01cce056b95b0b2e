"""One column's events: ask again, stop, pull what is missing, go on alone, close, choose a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr

from arena.errors import ArenaError
from arena.ui import parts
from arena.ui.callers import caller_of, voter_of
from arena.ui.columns import ColumnParts
from arena.ui.compare import CompareParts, Updates, Values, layout, mode_line, remind, shown
from arena.ui.conversation import Conversations
from arena.ui.drafts import for_script
from arena.ui.drawer import drawer_title
from arena.ui.lineup import picked
from arena.ui.sessions import Session, Sessions
from arena.ui.wiring import QUICK, STREAM, TALK


class ColumnEvents:
    """What the buttons and the picker of one column do."""

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
        inputs: set[Any] = {drawn.system, drawn.saved}
        for again in (
            column.retry.click(self.retry, inputs, [*column.answer], **QUICK),
            column.notice.click(self.act, inputs, [*column.answer], **STREAM),
        ):
            again.then(self.answer, None, column.frames, **STREAM).then(self.settle, None, drawn.answers, **QUICK)
        statuses = [each.status for each in drawn.columns.values()]
        column.status.click(self.prefer, None, statuses, **TALK)
        column.stop.click(self.stop, None, None, **QUICK)
        column.solo.click(self.solo, None, [drawn.mode], **QUICK)
        closed = column.close.click(self.close, None, [*drawn.boxes, drawn.mode], **QUICK)
        chosen = column.model.input(self.choose, {column.model, drawn.saved}, [column.facts], **QUICK)
        drawer = drawn.drawer
        opened = [drawer.title, drawer.preset, *drawer.widgets.values()]
        column.settings.click(self.open_settings, None, opened, **QUICK)
        return [closed, chosen]

    def retry(self, values: Values, request: gr.Request) -> Updates:
        """Open the last prompt again with the settings as they are now; the other columns go on undisturbed."""
        session = self._session(request)
        remind(self.drawn, session, values)
        views = self.conversations.reopen(session, self.column.letter, values[self.drawn.system] or "")
        return shown(self.drawn, views)

    async def answer(self, request: gr.Request) -> AsyncGenerator[Updates, None]:
        """Stream the answer to what was opened again."""
        session = self._session(request)
        async with aclosing(self.conversations.answer(session, caller_of(request), self.column.letter)) as frames:
            async for frame in frames:
                yield {self.column.frames: for_script(frame)}

    def settle(self, request: gr.Request) -> Updates:
        """Give the answers that have ended to their chats."""
        views = self.conversations.ended(self._session(request))
        return shown(self.drawn, views) or {self.column.notice: gr.skip()}

    async def act(self, values: Values, request: gr.Request, event: gr.EventData) -> AsyncGenerator[Updates, None]:
        """Do what the button in the column's notice says."""
        if event.action == "pull":
            async with aclosing(self.conversations.pull(self._session(request), self.column.letter)) as notices:
                async for notice in notices:
                    yield {self.column.notice: notice}
        elif event.action == "retry":
            yield self.retry(values, request)

    async def prefer(self, request: gr.Request) -> Updates:
        """Vote for this column's answer as the best one."""
        session, letter = self._session(request), self.column.letter
        try:
            others = await self.conversations.prefer(session, letter, voter_of(caller_of(request)))
        except ArenaError as error:
            gr.Warning(escape(error.message))
        else:
            gr.Info(f"Thanks! {letter} is kept as the best of {others + 1}.")
        return shown(self.drawn, self.conversations.figures_again(session)) or {self.column.status: gr.skip()}

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

    def choose(self, values: Values, request: gr.Request) -> Updates:
        """Take another model; the column's settings stay."""
        session = self._session(request)
        remind(self.drawn, session, values)
        session.choose(self.column.letter, *picked(values[self.column.model]))
        return {self.column.facts: self.conversations.facts(session.choices[self.column.letter])}

    async def open_settings(self, request: gr.Request) -> Updates:
        """Let the drawer show this column's settings."""
        session, letter, drawer = self._session(request), self.column.letter, self.drawn.drawer
        session.drawer = letter
        choice = session.choices[letter]
        info = await self.conversations.described(choice.model)
        title = drawer_title(letter, choice.model, parts.can_think(info))
        return drawer.showing(choice) | {drawer.title: title, drawer.preset: None}

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(request.session_hash)
