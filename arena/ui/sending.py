"""The composer's events: send, stop all, edit the last prompt, start anew."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import gradio as gr

from arena.ui.callers import caller_of
from arena.ui.compare import CompareParts, Updates, Values, mode_line, remind, shown
from arena.ui.conversation import Conversations
from arena.ui.drafts import for_script
from arena.ui.sessions import Asking, Sessions
from arena.ui.wiring import QUICK, STREAM, TALK


class Sending:
    """What the composer does. One stream feeds all columns, so that the browser gets one calm frame for all."""

    def __init__(self, drawn: CompareParts, conversations: Conversations, sessions: Sessions) -> None:
        self.drawn = drawn
        self.conversations = conversations
        self.sessions = sessions

    def wire(self) -> tuple[gr.events.Dependency, gr.events.Dependency]:
        """Wire the composer; returns the event of a prompt sent, and that of its answers' end."""
        drawn = self.drawn
        settled = [*drawn.answers, drawn.mode]
        sent = drawn.prompt.submit(self.take, drawn.inputs, [drawn.prompt, *settled], **TALK)
        answered = sent.then(self.answer, None, drawn.frames, **STREAM).then(self.settle, None, settled, **QUICK)
        drawn.frames.submit(self.settle, None, settled, trigger_mode="always_last", **QUICK)
        drawn.stop_all.click(self.stop_all, None, None, **QUICK)
        drawn.examples.click(self.example, None, [drawn.prompt], **QUICK)
        drawn.edit.click(self.edit, None, [drawn.prompt, drawn.mode], **QUICK)
        drawn.mode.click(self.leave_mode, None, [drawn.mode, drawn.prompt], **QUICK)
        drawn.clear.click(self.clear, None, [*drawn.answers, drawn.mode], **QUICK)
        return sent, answered

    async def take(self, values: Values, request: gr.Request) -> Updates:
        """Accept the prompt, empty the box and show it in the columns; one that cannot be sent now stays in the box."""
        session = self.sessions.of(request.session_hash)
        drawn, message = self.drawn, values[self.drawn.prompt] or {}
        remind(drawn, session, values)
        asking = Asking(message.get("text") or "", (), session.choices, values[drawn.system] or "", values[drawn.order])
        refusal = self.conversations.take(session, asking, message.get("files") or [])
        if refusal is None:
            views = await self.conversations.open(session)
            return shown(drawn, views) | {drawn.prompt: {"text": "", "files": []}, drawn.mode: mode_line(session)}
        if refusal:
            gr.Info(refusal)
        return {drawn.prompt: gr.skip(), drawn.mode: gr.skip()}

    async def answer(self, request: gr.Request) -> AsyncGenerator[Updates, None]:
        """Stream the answers of all columns that were asked."""
        session = self.sessions.of(request.session_hash)
        async with aclosing(self.conversations.answer(session, caller_of(request))) as frames:
            async for frame in frames:
                yield {self.drawn.frames: for_script(frame)}

    def settle(self, request: gr.Request) -> Updates:
        """Give the answers that have ended to their chats."""
        session = self.sessions.of(request.session_hash)
        return shown(self.drawn, self.conversations.ended(session)) | {self.drawn.mode: mode_line(session)}

    def stop_all(self, request: gr.Request) -> None:
        """Stop every answer of this page."""
        self.sessions.of(request.session_hash).stop()

    def example(self, event: gr.EventData) -> Updates:
        """Put an example prompt into the box."""
        return {self.drawn.prompt: {"text": str(event.prompt), "files": []}}

    def edit(self, request: gr.Request) -> Updates:
        """Bring the last prompt back into the box; sending it replaces the last turn."""
        session = self.sessions.of(request.session_hash)
        turn = session.last_prompt()
        if turn is None:
            return {self.drawn.prompt: gr.skip(), self.drawn.mode: gr.skip()}
        session.editing = True
        files = [item.path for item in turn.attachments if item.path]
        whole = len(files) == len(turn.attachments)  # of what was kept, files are there as a part of the text only
        text = turn.shown if whole else turn.prompt.content
        return {self.drawn.prompt: {"text": text, "files": files}, self.drawn.mode: mode_line(session)}

    def leave_mode(self, event: gr.EventData, request: gr.Request) -> Updates:
        """Send to all columns again, or give up editing."""
        session = self.sessions.of(request.session_hash)
        if event.action == "all":
            session.only = None
            return {self.drawn.mode: mode_line(session), self.drawn.prompt: gr.skip()}
        session.editing = False
        return {self.drawn.mode: mode_line(session), self.drawn.prompt: {"text": "", "files": []}}

    def clear(self, request: gr.Request) -> Updates:
        """Start anew with the same columns."""
        session = self.sessions.of(request.session_hash)
        session.clear()
        views = {letter: self.conversations.view(session, letter) for letter in session.columns}
        return shown(self.drawn, views) | {self.drawn.mode: mode_line(session)}
