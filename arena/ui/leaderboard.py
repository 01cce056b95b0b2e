"""The leaderboard tab: what the votes say of the models, and how sure that is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import TYPE_CHECKING, Any

import gradio as gr
from msgspec.structs import replace

from arena.errors import ArenaError
from arena.ui.callers import caller_of, voter_of
from arena.ui.leaderboard_filters import filters
from arena.ui.leaderboard_query import PARTS, Chosen, chosen
from arena.ui.leaderboard_view import BoardView, Sight, installed, opening, told, unavailable
from arena.ui.wiring import QUICK

if TYPE_CHECKING:
    from arena.arena import Arena

Updates = dict[Any, Any]

POLL_S = 5.0
"""How often an open tab asks whether somebody has voted, in seconds."""
_LOOK = "() => ({__type__: 'update', active: true})"
_AWAY = "() => ({__type__: 'update', active: false})"

BOARD = """
const form = () => document.querySelector('#board-filters form');
function ask(data) {
  const body = document.getElementById('board-body');
  body.ariaBusy = 'true';
  setTimeout(() => body.removeAttribute('aria-busy'), 8000);
  trigger('click', data);
}
function filter() { ask({ action: 'filter', value: new URLSearchParams(new FormData(form())).toString() }); }
const HERE = {
  battle: () => {
    [...document.querySelectorAll('#tabs [role=tab]')].find((tab) => tab.textContent.trim() === 'Battle')?.click();
  },
  gone: () => {
    form().elements.gone.checked = true;
    filter();
  },
  clear: () => {
    [...form().elements].filter((field) => !field.closest('.switches')).forEach((field) => {
      if (field.type === 'checkbox') field.checked = false; else field.value = '';
    });
    filter();
  },
};
function close(beside) {
  element.querySelectorAll('details[open]').forEach((each) => { if (!each.contains(beside)) each.open = false; });
}
element.addEventListener('click', ({ target }) => {
  const data = target.closest('[data-action]')?.dataset;
  if (data) (HERE[data.action] || ask)({...data});
});
element.addEventListener('change', ({ target }) => { if (target.form) filter(); });
element.addEventListener('submit', (event) => event.preventDefault());
element.addEventListener('keydown', (event) => {
  const open = event.key === 'Escape' && event.target.closest('details[open]');
  if (!open) return;
  event.preventDefault();
  close();
  open.querySelector('summary').focus();
});
document.addEventListener('click', ({ target }) => close(target));
const tell = () => {
  document.getElementById('board-body')?.removeAttribute('aria-busy');
  arena.tellTimes(element);
};
watch('value', tell);
tell();
"""
"""The form is asked as a whole: the browser alone knows what is picked in it. A popup closes beside itself."""


@dataclass(frozen=True, slots=True)
class BoardParts:
    """The components of the tab. `asked` is the browser's word on what is to be seen, `marks` on what it shows."""

    head: gr.HTML
    filters: gr.HTML
    body: gr.HTML
    asked: gr.Textbox
    marks: gr.Textbox
    timer: gr.Timer

    @property
    def pieces(self) -> tuple[gr.HTML, ...]:
        """What is drawn."""
        return self.head, self.filters, self.body


# ---- the tab


class LeaderboardPanel:
    """The leaderboard tab."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena

    def render(self) -> BoardEvents:
        """Draw the tab and wire it; call inside a Blocks and a Tab."""
        head, body = opening()
        with gr.Column(elem_classes="sheet", elem_id="board", min_width=0):
            parts = BoardParts(
                head=_piece("board-head", head),
                filters=_piece("board-filters"),
                body=_piece("board-body", body),
                asked=gr.Textbox("", visible=False, elem_id="board-asked"),
                marks=gr.Textbox("", visible=False, elem_id="board-marks"),
                timer=gr.Timer(POLL_S, active=False),
            )
        events = BoardEvents(parts, self.arena)
        events.wire()
        return events


def _piece(elem_id: str, value: str = "") -> gr.HTML:
    return gr.HTML(f"<div>{value}</div>", elem_id=elem_id, apply_default_css=False, js_on_load=BOARD)


class BoardEvents:
    """What the tab does by itself, and what its buttons and its form do."""

    def __init__(self, drawn: BoardParts, arena: Arena) -> None:
        self.drawn = drawn
        self.arena = arena
        self.view = BoardView(arena)

    @property
    def outputs(self) -> list[Any]:
        """What a refresh changes."""
        return [*self.drawn.pieces, self.drawn.asked, self.drawn.marks]

    def wire(self) -> None:
        """Wire the tab."""
        drawn = self.drawn
        told = [drawn.asked, drawn.marks]
        drawn.timer.tick(self.refresh, told, self.outputs, **QUICK)
        for piece in drawn.pieces:
            piece.click(self.act, told, self.outputs, trigger_mode="multiple", **QUICK)

    def live_in(self, tab: gr.Tab, others: Sequence[gr.Tab]) -> None:
        """Look for new votes while `tab` is the open one of all, and the browser shows the page."""
        timer = self.drawn.timer
        tab.select(None, None, timer, js=_LOOK, **QUICK)
        tab.select(self.refresh, [self.drawn.asked, self.drawn.marks], self.outputs, **QUICK)
        for other in others:
            other.select(None, None, timer, js=_AWAY, **QUICK)

    async def act(self, asked: str | None, marks: str | None, request: gr.Request, event: gr.EventData) -> Updates:
        """Do what a button or the form asks for."""
        value = str(event.value) if "value" in event._data else ""
        kept = (marks or "").split()[1:-1]
        anew = " ".join(["-", *kept, "-"])  # the browser waits for a body, be it the one that it has
        return await self.refresh(changed(chosen(asked), str(event.action), value).told(), anew, request)

    async def refresh(self, asked: str | None, marks: str | None, request: gr.Request) -> Updates:
        """What has changed since the browser was told what it shows."""
        known, models = installed(self.arena.fleet), told(self.arena.fleet)
        wanted, caller = chosen(asked), caller_of(request)
        try:
            last_vote = await asyncio.to_thread(self.view.last_vote)
            state = _mark(f"{wanted.told()} {last_vote} {known is None} {sorted(models)}")
            if (marks or "").split()[:1] == [state]:
                return {self.drawn.marks: gr.skip()}
            who = voter_of(caller).name, caller.key
            sight = replace(await self.arena.rated(self.view.sight, wanted, last_vote, known, *who), told=models)
            pieces = await self.arena.rated(self.view.pieces, sight)
        except ArenaError as error:
            return {self.drawn.body: unavailable(error), self.drawn.marks: ""}
        return self._news(wanted, pieces, [state, *_signs(sight, pieces)], (marks or "").split())

    def _news(self, wanted: Chosen, pieces: Sequence[str], now: list[str], before: list[str]) -> Updates:
        old = before if len(before) == len(now) else [""] * len(now)
        made = time.time()
        updates: Updates = {
            part: f'<div data-now="{made:.1f}">{piece}</div>'
            for part, piece, sign, was in zip(self.drawn.pieces, pieces, now[1:], old[1:], strict=True)
            if sign != was
        }
        return updates | {self.drawn.asked: wanted.told(), self.drawn.marks: " ".join(now)}


def changed(wanted: Chosen, action: str, value: str) -> Chosen:
    """What is wanted after an action: another part, or what the form says now."""
    if action == "part":
        return replace(wanted, part=PARTS.get(value, "ranking"))
    if action == "filter":
        return replace(chosen(value or "part=ranking"), part=wanted.part)  # no field at all: not even "blind only"
    return wanted


def _signs(sight: Sight, pieces: Sequence[str]) -> list[str]:
    """What stands for the pieces; for the form only what it offers: what is picked in it, the browser knows."""
    offered = filters(Chosen(), sight.choices) if pieces[1] else ""
    return [_mark(pieces[0]), _mark(offered), _mark(pieces[2])]


def _mark(text: str) -> str:
    return blake2s(text.encode(), digest_size=6).hexdigest()
