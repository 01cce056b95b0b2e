"""The fleet tab: hosts and last requests, live while somebody looks, and the levers of whoever may use them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2s
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from arena.errors import ArenaError, BadRequest, SettingsError
from arena.fleet import Endpoint
from arena.fleet.book import Counts, Entry
from arena.fleet.config import fleet_file
from arena.ui.catalog import SUGGESTIONS, jobs_list
from arena.ui.elements import live
from arena.ui.hosts import MAX_WEIGHT, Moment, host_cards
from arena.ui.recent import SHOWN, recent_table
from arena.ui.wiring import QUICK, TALK

if TYPE_CHECKING:
    from arena.arena import Arena
    from arena.fleet import FleetSpec

Updates = dict[Any, Any]

POLL_S = 2.0
"""How often an open tab asks what is new, in seconds; as often as the hosts are asked."""
ALL = "all"
"""What is chosen to pull a model to every host; no endpoint may have this name."""
DATA = ("endpoint", "model", "job", "value")

_LOOK = "() => ({__type__: 'update', active: true})"
_AWAY = "() => ({__type__: 'update', active: false})"


@dataclass(frozen=True, slots=True)
class FleetParts:
    """The components of the tab. `shown` is the browser's word on which version of the others it shows."""

    hosts: gr.HTML
    pull: gr.HTML
    jobs: gr.HTML
    requests: gr.HTML
    models: gr.HTML
    shown: gr.Textbox
    timer: gr.Timer

    @property
    def pieces(self) -> tuple[gr.HTML, ...]:
        """What is drawn."""
        return self.hosts, self.pull, self.jobs, self.requests, self.models


class FleetView:
    """The fleet as pieces of HTML. `clock` is the fleet's own and `wall` that of its books, both in seconds."""

    def __init__(
        self, arena: Arena, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.arena = arena
        self._clock = clock
        self._wall = wall
        self._epoch_s = wall() - clock()
        self._newest: Entry | None = None
        self._counted: dict[str, Counts] = {}
        self._refused: tuple[FleetSpec, str] | None = None

    def complain(self, text: str) -> None:
        """Tell why the fleet file could not be read again, until one could."""
        self._refused = self.arena.fleet.spec, text

    def pieces(self) -> tuple[str, str, str, str, str]:
        """Hosts, the pull form, downloads, requests, what the form suggests.

        Each stays the same as long as nothing has changed but the time.
        """
        fleet, settings = self.arena.fleet, self.arena.settings
        may_manage, recent = settings.management_allowed, fleet.book.recent
        hosts = host_cards(
            fleet,
            self._counts(recent),
            Moment(self._clock(), self._epoch_s),
            may_manage=may_manage,
            can_reload=fleet_file(settings) is not None,
            complaint=self._refused[1] if self._refused is not None and self._refused[0] is fleet.spec else "",
        )
        pull = pull_form(fleet.endpoints) if may_manage else ""
        jobs = jobs_list(self.arena.catalog.jobs(), hosts=True)
        return hosts, pull, jobs, recent_table(recent[:SHOWN]), suggestions(fleet.endpoints) if pull else ""

    def changes(self, shown: str) -> tuple[list[str | None], str]:
        """The pieces that are not what `shown` stands for (None for the others), and what stands for all of them now.

        Each knows when it was made: the browser tells the time that has passed since.
        """
        pieces = self.pieces()
        marks = [blake2s(piece.encode(), digest_size=6).hexdigest() for piece in pieces]
        old = shown.split()
        if len(old) != len(marks):
            old = [""] * len(marks)
        fresh = [
            f'<div data-now="{self._wall():.1f}">{piece}</div>' if mark != before else None
            for piece, mark, before in zip(pieces, marks, old, strict=True)
        ]
        return fresh, " ".join(marks)

    def _counts(self, recent: Sequence[Entry]) -> dict[str, Counts]:
        """The counters by host; added up anew only after another request has ended."""
        newest = recent[0] if recent else None
        if newest is not self._newest:
            self._newest, self._counted = newest, self.arena.fleet.book.by_endpoint()
        return self._counted


class FleetPanel:
    """The fleet tab."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena

    def render(self) -> FleetEvents:
        """Draw the tab and wire it; call inside a Blocks and a Tab."""
        with gr.Column(elem_classes="sheet", elem_id="fleet", min_width=0):
            parts = FleetParts(
                hosts=live("fleet-hosts"),
                pull=live("fleet-pull"),
                jobs=live("fleet-jobs"),
                requests=live("fleet-requests"),
                models=live("fleet-suggestions"),
                shown=gr.Textbox("", visible=False, elem_id="fleet-shown"),
                timer=gr.Timer(POLL_S, active=False),
            )
        events = FleetEvents(parts, self.arena)
        events.wire()
        return events


class FleetEvents:
    """What the tab does by itself, and what its buttons do."""

    def __init__(self, drawn: FleetParts, arena: Arena) -> None:
        self.drawn = drawn
        self.arena = arena
        self.view = FleetView(arena)

    @property
    def outputs(self) -> list[Any]:
        """What a refresh changes."""
        return [*self.drawn.pieces, self.drawn.shown]

    def wire(self) -> None:
        """Wire the tab."""
        drawn = self.drawn
        drawn.timer.tick(self.refresh, drawn.shown, self.outputs, **QUICK)
        for piece in drawn.pieces:
            piece.click(self.act, drawn.shown, self.outputs, trigger_mode="multiple", **TALK)

    def live_in(self, tab: gr.Tab, others: Sequence[gr.Tab]) -> None:
        """Poll while `tab` is the open one of all, and the browser shows the page (Gradio's timer sees to that).

        The browser switches the timer by itself: an answer that comes late would switch it in the wrong tab.
        """
        timer = self.drawn.timer
        tab.select(None, None, timer, js=_LOOK, **QUICK)
        tab.select(self.refresh, self.drawn.shown, self.outputs, **QUICK)
        for other in others:
            other.select(None, None, timer, js=_AWAY, **QUICK)

    def refresh(self, shown: str | None) -> Updates:
        """What has changed since the browser was told what it shows."""
        fleet = self.arena.fleet
        fleet.wake()
        for endpoint in fleet.endpoints:
            if not endpoint.spec.check_interval_s:
                endpoint.freshen()  # nobody else asks it
        fresh, marks = self.view.changes(shown or "")
        updates: Updates = {
            part: piece for part, piece in zip(self.drawn.pieces, fresh, strict=True) if piece is not None
        }
        return updates | {self.drawn.shown: marks if updates else gr.skip()}

    async def act(self, shown: str | None, event: gr.EventData) -> Updates:
        """Do what a button or a form asks for."""
        data = {key: str(getattr(event, key)) for key in DATA if key in event._data}
        await self.do(str(event.action), **data)
        return self.refresh(shown)

    async def do(self, action: str, endpoint: str = "", model: str = "", job: str = "", value: str = "") -> None:
        """Carry out one action; a failure becomes a message on the page."""
        arena = self.arena
        try:
            arena.catalog.check_management()
            match action:
                case "drain" | "serve":
                    arena.fleet.drain(endpoint, action == "drain")
                case "weight":
                    arena.fleet.weight(endpoint, weight_of(value))
                case "pull":
                    self._pull(model.strip(), endpoint)
                case "cancel":
                    arena.catalog.cancel(job)
                case "unload":
                    await self._unload(model, endpoint)
                case "reload":
                    await self._reload()
        except ArenaError as error:
            gr.Warning(escape(error.message))

    def _pull(self, model: str, endpoint: str) -> None:
        """Start one download, or one on each host; what is wrong with the name is wrong for all of them."""
        names = [one.name for one in every(self.arena.fleet.endpoints)] if endpoint == ALL else [endpoint or None]
        for name in names:
            self.arena.catalog.pull(model, name)

    async def _unload(self, model: str, endpoint: str) -> None:
        await self.arena.catalog.unload(model, endpoint)
        with suppress(ArenaError):  # the next look at the host tells what is wrong with it
            await self.arena.fleet.endpoint(endpoint).loaded(0.0)

    async def _reload(self) -> None:
        try:
            await self.arena.reload_fleet()
        except SettingsError as error:
            self.view.complain(error.message)
        else:
            gr.Info("The fleet file was read again.")


def weight_of(text: str) -> float:
    """A weight as it was typed. Raises BadRequest."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_WEIGHT:
        raise BadRequest(f"A weight is a number above 0, at most {MAX_WEIGHT}.")
    return number


def pullers(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The hosts that can fetch models."""
    return [endpoint for endpoint in endpoints if endpoint.native]


def every(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The hosts that "all" means: the Ollama servers, whose names of models are the same; else whoever can pull."""
    return [endpoint for endpoint in endpoints if endpoint.kind == "ollama"] or pullers(endpoints)


def pull_form(endpoints: Sequence[Endpoint]) -> str:
    """The form that pulls a model to one host or to all; empty where no host can fetch any.

    It knows no models, so that what somebody types in it stays when they change.
    """
    able = pullers(endpoints)
    if not able:
        return ""
    hosts = "".join(f'<option value="{escape(one.name)}">{escape(one.name)}</option>' for one in able)
    count = len(every(endpoints))
    together = f'<option value="{ALL}">all {count} hosts</option>' if count > 1 else ""
    return (
        '<form class="pull" data-form="pull" aria-label="Pull a model">'
        '<input name="model" list="fleet-models" required autocomplete="off" spellcheck="false" '
        'placeholder="name of a model, for example qwen3:0.6b" aria-label="Name of a model to pull">'
        f'<label>to <select name="endpoint" aria-label="Host to pull to">{together}{hosts}</select></label>'
        '<button class="act primary">Pull</button></form>'
    )


def suggestions(endpoints: Sequence[Endpoint]) -> str:
    """What the form suggests: what some host has and another may lack, and small models to start with."""
    known = {info.name for endpoint in pullers(endpoints) for info in endpoint.holds.values()} | set(SUGGESTIONS)
    models = "".join(f'<option value="{escape(name)}"></option>' for name in sorted(known))
    return f'<datalist id="fleet-models">{models}</datalist>'
