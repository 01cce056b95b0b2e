"""Puts the tabs together, wires what one tab means to another, and mounts the page."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi.exceptions import RequestValidationError
from gradio.route_utils import FnIndexInferError

from arena.errors import ArenaError, BadRequest, NotFound
from arena.ui.about import AboutPanel
from arena.ui.battle import TAB, BattlePanel
from arena.ui.catalog import CatalogPanel
from arena.ui.column_events import ColumnEvents
from arena.ui.compare import CompareParts, Updates, draw_compare
from arena.ui.conversation import Conversations
from arena.ui.drawer_events import DrawerEvents
from arena.ui.elements import html
from arena.ui.fleet import FleetPanel
from arena.ui.keeping import Keeping
from arena.ui.leaderboard import LeaderboardPanel
from arena.ui.lineup import LETTERS
from arena.ui.memory import Memory
from arena.ui.pace import calm_the_queue
from arena.ui.readiness import BRAND, banner, pill_text, settled, tools
from arena.ui.sending import Sending
from arena.ui.sessions import Sessions
from arena.ui.theme import theme
from arena.ui.uploads import OUTDATED, UNREADABLE, Listeners, UploadsOnly
from arena.ui.wiring import QUICK

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

    from arena.arena import Arena

SCRIPTS, STYLES = ("columns.js", "ui.js", "battle.js"), ("style.css", "sheets.css", "battle.css", "leaderboard.css")
"""Files of the package that every page carries, in this order."""

MAX_EVENTS = 200
"""Handlers that may run at once; Gradio's own cap would be 40, also for those that only wait."""

UPLOADS_SWEPT_S, UPLOADS_KEPT_S = 3600, 24 * 3600
"""How often uploaded files are swept, and at which age they go, in seconds."""


class Page:
    """All tabs of the page on one Arena."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.conversations = Conversations(arena)
        self.sessions = Sessions(LETTERS[: self.conversations.most_columns])

    def build(self) -> gr.Blocks:
        """The page as Gradio Blocks, ready to be mounted."""
        catalog, about = CatalogPanel(self.arena, self.conversations, self.sessions), AboutPanel(self.arena)
        swept = (UPLOADS_SWEPT_S, UPLOADS_KEPT_S)
        with UploadsOnly(title="Ollama Arena", analytics_enabled=False, fill_width=True, delete_cache=swept) as demo:
            html(BRAND, "brand")
            guarded = self.arena.settings.token is not None
            pill = html("", "pill", "beside-sign-out" if guarded else None)
            html(tools(signed_in=guarded), "tools")
            with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:  # the style sheet has them scroll instead
                with gr.Tab("Compare", id="compare") as compare_tab:
                    compare = draw_compare(self.conversations.most_columns)
                with gr.Tab("Battle", id=TAB, elem_id="battle") as battle_tab:
                    battle = BattlePanel(self.arena, self.conversations, self.sessions).render(compare.system, tabs)
                with gr.Tab("Leaderboard", id="leaderboard") as leaderboard_tab:
                    leaderboard = LeaderboardPanel(self.arena).render()
                with gr.Tab("Models", id="models") as models_tab:
                    lists = catalog.render()
                with gr.Tab("Fleet", id="fleet") as fleet_tab:
                    fleet = FleetPanel(self.arena).render()
                with gr.Tab("About", id="about") as about_tab:
                    sheet = about.render()
            memory, answered = self._wire_compare(compare)
            life = Life(self, compare, memory, pill)
            life.wire(demo)
            for event in (compare_tab.select, answered.then):  # models come, go and move into memory
                event(life.look_after, None, life.looked_after, **QUICK)
            models_tab.select(lists.refresh, None, lists.outputs, **QUICK)
            battle.live_in(demo, battle_tab)
            fleet.live_in(fleet_tab, (compare_tab, battle_tab, leaderboard_tab, models_tab, about_tab))
            leaderboard.live_in(leaderboard_tab, (compare_tab, battle_tab, models_tab, fleet_tab, about_tab))
            about_tab.select(life.describe(about), None, sheet, **QUICK)
        demo.default_config.fns = Listeners(demo.fns)
        demo.max_threads = MAX_EVENTS
        demo.queue(default_concurrency_limit=None, max_size=MAX_EVENTS, api_open=False)
        calm_the_queue(demo)
        return demo

    def _wire_compare(self, drawn: CompareParts) -> tuple[Memory, gr.events.Dependency]:
        sent, answered = Sending(drawn, self.conversations, self.sessions).wire()
        changed = [
            event
            for column in drawn.columns.values()
            for event in ColumnEvents(drawn, column, self.conversations, self.sessions).wire()
        ]
        changed += DrawerEvents(drawn, self.conversations, self.sessions).wire()
        changed += Keeping(drawn, self.conversations, self.sessions, self.arena.kept).wire()
        memory = Memory(drawn, self.conversations, self.sessions)
        memory.wire([sent, *changed])
        return memory, answered


class Life:
    """A page's life: set up when it opens, looked after until its servers are settled, stopped when it leaves."""

    def __init__(self, page: Page, compare: CompareParts, memory: Memory, pill: gr.HTML) -> None:
        self.page = page
        self.compare = compare
        self.memory = memory
        self.pill = pill

    @property
    def looked_after(self) -> list[Any]:
        """What changes when servers and models do."""
        compare = self.compare
        return [*compare.models, *compare.facts, compare.banner, compare.timer, compare.mode, self.pill]

    def wire(self, demo: gr.Blocks) -> None:
        """Wire opening, looking after and leaving."""
        compare = self.compare
        shared = [*compare.boxes, compare.drawer.preset, compare.system, compare.order, compare.prompt]
        demo.load(self.open, [compare.saved, compare.presets], [*self.looked_after, *shared], **QUICK)
        compare.timer.tick(self.look_after, None, self.looked_after, **QUICK)
        demo.unload(self.leave)

    async def open(self, kept: Any, presets: Any, request: gr.Request) -> Updates:
        """Set the page up."""
        session = self.page.sessions.of(request.session_hash)
        return await self.memory.restore(kept, presets, dict(request.query_params), session) | await self._readiness()

    async def look_after(self, request: gr.Request) -> Updates:
        """See whether the servers and their models are there yet."""
        session = self.page.sessions.of(request.session_hash)
        return await self.memory.refresh(session) | await self._readiness()

    def leave(self, request: gr.Request) -> None:
        """The page was closed, reloaded or lost."""
        self.page.sessions.leave(request.session_hash)

    def describe(self, about: AboutPanel) -> Any:
        """The handler that fills the about tab."""

        async def describe() -> str:
            return about.text(await self.page.conversations.statuses())

        return describe

    async def _readiness(self) -> Updates:
        arena, conversations = self.page.arena, self.page.conversations
        statuses, models = await conversations.statuses(), await conversations.models()
        jobs = arena.catalog.jobs()
        return {
            self.compare.banner: banner(statuses, bool(models), arena.engine_state, arena.engine_error, jobs),
            self.compare.timer: gr.Timer(active=not settled(bool(models), arena.engine_state)),
            self.pill: pill_text(statuses, arena.engine_state, len(models)),
        }


def mount(app: FastAPI, arena: Arena) -> FastAPI:
    """Build the page and mount it at `/`, after every other route."""
    script, style = _together(SCRIPTS), _together(STYLES)
    handlers = dict(app.exception_handlers)  # Gradio's errors take the API's form

    async def outdated(request: Request, _: Exception) -> Any:
        return await handlers[ArenaError](request, NotFound(OUTDATED))

    async def unreadable(request: Request, _: Exception) -> Any:
        return await handlers[ArenaError](request, BadRequest(UNREADABLE))

    handlers |= {FnIndexInferError: outdated, RequestValidationError: unreadable}
    return gr.mount_gradio_app(
        app, Page(arena).build(), path="/", run_history=False, footer_links=["settings"], theme=theme(),
        css=style, head=f"<script>{script}</script>", show_error=True,
        max_file_size=arena.settings.max_upload_bytes, allowed_paths=[], enable_monitoring=False, mcp_server=False,
        ssr_mode=False, pwa=False, root_path=arena.settings.root_path or None,
        app_kwargs={"exception_handlers": handlers},
    )  # fmt: skip


def _together(names: tuple[str, ...]) -> str:
    """The texts of these files of the package, one after the other."""
    return "\n".join(files("arena.ui").joinpath(name).read_text("utf-8") for name in names)
