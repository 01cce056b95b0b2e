"""The battle tab: its events. What a battle does is in battle_play, what it looks like in battle_parts."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, get_args

import gradio as gr

from arena.battle import Ballot, Contest
from arena.battle.draw import can_chat
from arena.keys import allows
from arena.leaderboard import may_have_all
from arena.types import ModelInstance, Verdict
from arena.ui import battle_parts as parts
from arena.ui.battle_draw import ASK, ASK_AGAIN, HINTS, SIDES, BattleParts, draw_battle
from arena.ui.battle_play import Playing
from arena.ui.battle_table import MOST_SIDES, STOPPED, Table, Tables
from arena.ui.callers import caller_of, voter_of
from arena.ui.conversation import Conversations
from arena.ui.drafts import for_script
from arena.ui.sessions import Sessions
from arena.ui.wiring import QUICK, STREAM, TALK

if TYPE_CHECKING:
    from arena.arena import Arena

Updates = dict[Any, Any]
Values = Mapping[Any, Any]

TAB = "battle"
"""The tab's name among the page's tabs."""

_KEPT = "() => [window.arenaBattle.kept()]"
MOST_TAGS, MOST_LABEL = 8, 40
_NO_LABEL = re.compile(r"[^\w .+#-]+")


class BattlePanel:
    """The battle tab. The columns of the compare tab (`sessions`) may fight in it."""

    def __init__(self, arena: Arena, conversations: Conversations, sessions: Sessions) -> None:
        self.arena = arena
        self.clock = time.monotonic
        self.playing = Playing(arena, self.clock)
        self.tables = Tables()
        self.conversations = conversations
        self.sessions = sessions

    def render(self, system: gr.Textbox, tabs: gr.Tabs) -> BattleEvents:
        """Draw the tab, one of `tabs`, and wire it; `system` is what the compare tab's columns share.

        Call inside a Blocks and a Tab.
        """
        drawn = draw_battle(open_to_all=may_have_all(self.arena.settings))
        events = BattleEvents(drawn, self, system, tabs)
        events.wire()
        return events


class BattleEvents:
    """What the tab's prompt, ballot and set-up do."""

    def __init__(self, drawn: BattleParts, panel: BattlePanel, system: gr.Textbox, tabs: gr.Tabs) -> None:
        self.drawn = drawn
        self.panel = panel
        self.system = system
        self.tabs = tabs

    def wire(self) -> None:
        """Wire the tab."""
        drawn = self.drawn
        inputs, shown = {*drawn.setup, self.system}, [*drawn.shown, drawn.prompt]
        who = [drawn.mode, drawn.sides]
        offered = [*shown, drawn.chosen, drawn.sides]
        asked = drawn.prompt.submit(self.ask, inputs, shown, **TALK)
        acted = drawn.ballot.click(self.act, inputs, offered, trigger_mode="multiple", **TALK)
        for begun in (asked, acted):
            answered = begun.then(self.answer, None, drawn.frames, **STREAM)
            answered.then(self.settle, None, shown, **QUICK).then(self.rate, None, drawn.ballot, **QUICK)
        drawn.examples.click(self.example, None, drawn.prompt, **QUICK)
        drawn.mode.change(self.choose, who, [*offered, drawn.hint], **QUICK)
        drawn.sides.change(self.arrange, who, offered, **QUICK)

    def live_in(self, demo: gr.Blocks, tab: gr.Tab) -> None:
        """Look for models whenever `tab` is opened; stop when the page leaves, and go on when it was only reloaded."""
        drawn = self.drawn
        offered = [*drawn.shown, drawn.prompt, drawn.chosen, drawn.sides]
        tab.select(self.arrange, [drawn.mode, drawn.sides], offered, **QUICK)
        demo.load(self.resume, drawn.kept, [*drawn.shown, drawn.prompt, self.tabs], js=_KEPT, **QUICK)
        demo.unload(self.leave)

    # ---- what the user does

    async def ask(self, values: Values, request: gr.Request) -> Updates:
        """Take the prompt and empty the box; one that cannot be sent now stays in the box."""
        text = (values[self.drawn.prompt] or {}).get("text") or ""
        return await self._take(self._table(request), text, values, request)

    async def act(self, values: Values, event: gr.EventData, request: gr.Request) -> Updates:
        """Do what a button of the ballot asks for."""
        table = self._table(request)
        match str(event.action):
            case "vote" if event.verdict in get_args(Verdict):
                return await self._vote(table, event.verdict, request)
            case "rank":
                return await self._vote(table, ranks_of(str(event.order)), request)
            case "stop":
                table.stop(STOPPED)
            case "retry":
                return await self._take(table, table.again, values, request)
            case "again":
                prompt = table.prompts[0] if table.prompts else ""
                return await self._take(table, prompt, values, request)
            case "next" if table.phase in ("voted", "failed"):
                table.clear()
                return await self.arrange(values[self.drawn.mode], values[self.drawn.sides], request)
        return {self.drawn.ballot: parts.ballot(table)}

    async def answer(self, request: gr.Request) -> AsyncGenerator[Updates, None]:
        """Stream what may be shown of the turn that was asked for, if one was."""
        answers = self.panel.playing.answer(self._table(request), caller_of(request))
        async with aclosing(answers) as frames:
            async for frame in frames:
                yield {self.drawn.frames: for_script(frame)}

    def settle(self, request: gr.Request) -> Updates:
        """Show what the turn has come to."""
        table = self._table(request)
        return self.show(table) if table.phase in ("ready", "failed") else {self.drawn.ballot: gr.skip()}

    async def rate(self, request: gr.Request) -> Any:
        """Tell how the ratings stand after the vote."""
        table = self._table(request)
        if table.phase != "voted" or table.ratings:
            return gr.skip()
        await self.panel.playing.rate(table, caller_of(request))
        return parts.ballot(table)

    def example(self, event: gr.EventData) -> Any:
        """Put an example prompt into the box."""
        return {"text": str(event.prompt), "files": []}

    async def choose(self, mode: str, count: int, request: gr.Request) -> Updates:
        """Tell what a mode means, and see who could fight in it."""
        return {self.drawn.hint: HINTS[mode]} | await self.arrange(mode, count, request)

    async def arrange(self, mode: str, count: int, request: gr.Request) -> Updates:
        """See who could fight, and show as many sides as the next battle has, unless one is under way.

        Says so where too few could; what was said of another set-up is forgotten.
        """
        drawn, names = self.drawn, await self._names(request)
        chosen = gr.Dropdown(choices=names, visible=True) if mode == "chosen" else gr.Dropdown(visible=False)
        table = self._table(request)
        if table.phase != "idle":
            return {drawn.chosen: chosen}
        columns = mode == "columns"
        starting, limited = self.panel.arena.engine_state == "starting", caller_of(request).models is not None
        error = self.panel.conversations.listing_error
        table.told = "" if columns else parts.too_few(names, starting=starting, limited=limited, error=error)
        table.most = min(max(2, len(self._columns(request, "") if columns else names)), MOST_SIDES)
        table.sides = tuple(SIDES[: min(count, table.most)])
        fewer = {} if count == len(table.sides) else {drawn.sides: gr.Radio(value=len(table.sides))}
        return self.show(table) | {drawn.chosen: chosen} | fewer

    # ---- the page's life

    def resume(self, battle_id: str | None, request: gr.Request) -> Updates:
        """Go on with the battle of a page that was reloaded."""
        owner = voter_of(caller_of(request)).name
        table = self.panel.tables.resume(request.session_hash, battle_id or "", owner)
        if table.phase == "idle":
            return {self.drawn.ballot: gr.skip()}
        return self.show(table) | {self.tabs: gr.Tabs(selected=TAB)}

    def leave(self, request: gr.Request) -> None:
        """The page was closed, reloaded or lost."""
        self.panel.tables.leave(request.session_hash)

    # ---- from a table to updates, from values to a battle

    def show(self, table: Table, *, chats: bool = True) -> Updates:
        """Everything that a table shows; without `chats` only what stands around them."""
        drawn, now_s = self.drawn, self.panel.clock()
        known = parts.figures(table)
        updates: Updates = {drawn.ballot: parts.ballot(table)}
        for side, column in drawn.columns.items():
            updates[column.box] = gr.Column(visible=side in table.sides)
            updates[column.head] = parts.head(table, side)
            updates[column.status] = known.get(side) or parts.status(table, now_s)
            if chats:
                updates[column.chat] = parts.chat(table, side)
        placeholder = ASK_AGAIN if table.phase in ("answering", "ready") else ASK
        return updates | {drawn.prompt: gr.MultimodalTextbox(placeholder=placeholder)}

    async def _take(self, table: Table, text: str, values: Values, request: gr.Request) -> Updates:
        drawn = self.drawn
        contest = self._contest(values, request)
        refusal = await self.panel.playing.take(table, caller_of(request), text, contest)
        if refusal is None:
            emptied = gr.MultimodalTextbox(value={"text": "", "files": []}, placeholder=ASK_AGAIN)
            return self.show(table) | {drawn.prompt: emptied}
        if refusal:
            gr.Info(refusal)
        return {drawn.ballot: parts.ballot(table)}

    async def _vote(self, table: Table, ballot: Ballot, request: gr.Request) -> Updates:
        if table.phase == "idle":  # the server was restarted, or has had more battles than it keeps
            table.told = parts.GONE
            return self.show(table)
        await self.panel.playing.vote(table, caller_of(request), ballot)
        return self.show(table, chats=False)

    def _contest(self, values: Values, request: gr.Request) -> Contest:
        """What is to be fought about, from the set-up."""
        drawn, mode = self.drawn, values[self.drawn.mode]
        contestants: tuple[ModelInstance, ...] | None = None
        if mode == "chosen":
            known = filter(self.panel.conversations.known, values[drawn.chosen] or ())  # some may be gone by now
            contestants = tuple(ModelInstance(name, name) for name in known)
        elif mode == "columns":
            contestants = self._columns(request, values[self.system] or "")
        return Contest(
            contestants,
            label_of(values[drawn.category] or ""),
            tuple(dict.fromkeys(filter(None, map(label_of, values[drawn.tags] or ()))))[:MOST_TAGS],
            int(values[drawn.sides] or 2),
            "newcomers" if mode == "newcomers" else None,
        )

    def _columns(self, request: gr.Request, system: str) -> tuple[ModelInstance, ...]:
        """What the columns of the compare tab would fight with."""
        session = self.panel.sessions.of(request.session_hash)
        instances = (session.choices[letter].instance(letter, system) for letter in session.visible)
        return tuple(instance for instance in instances if instance.model)

    def _table(self, request: gr.Request) -> Table:
        return self.panel.tables.of(request.session_hash)

    async def _names(self, request: gr.Request) -> list[str]:
        """The models that can fight, and that whoever asks may use."""
        may, found = caller_of(request).models, await self.panel.conversations.models()
        return [model.name for model in found if can_chat(model) and allows(may, model.name)]


def label_of(text: str) -> str:
    """A category or tag as the ratings take it: words of up to 40 characters in all."""
    return " ".join(_NO_LABEL.sub(" ", text).split())[:MOST_LABEL].strip(" .+#-")


def ranks_of(order: str) -> dict[str, int]:
    """The places of sides that were put in order, best first, equal ones joined: "b>a=c"."""
    return {side: place for place, level in enumerate(order.split(">"), 1) for side in level.split("=") if side}
