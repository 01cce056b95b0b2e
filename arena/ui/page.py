"""Puts the tabs together, wires what one tab means to another, and mounts the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import gradio as gr

from arena.types import EndpointStatus, PullJob
from arena.ui import parts
from arena.ui.about import AboutPanel
from arena.ui.catalog import CatalogPanel
from arena.ui.compare import QUICK, ComparePanel, CompareParts
from arena.ui.conversation import Conversations
from arena.ui.elements import html
from arena.ui.lineup import LETTERS
from arena.ui.pace import calm_the_queue
from arena.ui.sessions import Sessions
from arena.ui.theme import theme

if TYPE_CHECKING:
    from fastapi import FastAPI

    from arena.arena import Arena

MAX_EVENTS = 200
"""Handlers that may run at once; Gradio's own cap would be 40, also for those that only wait."""

BRAND = (
    '<div class="brand"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M3 20V9a9 9 0 0 1 18 0v11h-4V9.5a5 5 0 0 0-10 0V20z"/>'
    '<path d="M10 20v-9.5a2 2 0 0 1 4 0V20z"/></svg><h1>Ollama Arena</h1></div>'
)
TOOLS = (
    '<div class="tools"><button type="button" data-ui="keys" aria-label="Show the keys" title="Keys (?)">?</button>'
    '<button type="button" data-ui="theme" aria-label="Switch between light and dark" title="Light or dark">'
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 3a9 9 0 1 0 9 9 7 7 0 0 1-9-9z"/></svg></button></div>'
)


class Page:
    """All tabs of the page on one Arena."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.conversations = Conversations(arena)
        self.sessions = Sessions(LETTERS[: self.conversations.most_columns])
        self.compare = ComparePanel(self.conversations, self.sessions)
        self.catalog = CatalogPanel(arena, self.conversations, self.sessions)
        self.about = AboutPanel(arena)

    def build(self) -> gr.Blocks:
        """The page as Gradio Blocks, ready to be mounted."""
        with gr.Blocks(title="Ollama Arena", analytics_enabled=False, fill_width=True) as demo:
            html(BRAND, "brand")
            pill = html("", "pill")
            html(TOOLS, "tools")
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Compare", id="compare"):
                    compare = self.compare.render()
                with gr.Tab("Models", id="models") as models_tab:
                    catalog = self.catalog.render()
                with gr.Tab("About", id="about") as about_tab:
                    about = self.about.render()
            self._wire_start(demo, compare, pill)

            async def list_models(request: gr.Request) -> dict[Any, Any]:
                return await self.catalog.refresh(catalog, self.sessions.of(request.session_hash))

            async def describe() -> dict[Any, Any]:
                return {about.sheet: self.about.text(await self.conversations.statuses())}

            models_tab.select(list_models, None, list(catalog.lists), **QUICK)
            about_tab.select(describe, None, [about.sheet], **QUICK)
        demo.max_threads = MAX_EVENTS
        demo.queue(default_concurrency_limit=None, max_size=MAX_EVENTS, api_open=False)
        calm_the_queue(demo)
        return demo

    def _wire_start(self, demo: gr.Blocks, compare: CompareParts, pill: gr.HTML) -> None:
        """Restore the page when it opens, refresh it until its servers are settled, stop everything when it leaves."""
        widgets = [widget for column in compare.columns.values() for widget in column.widgets.values()]
        facts = [column.facts for column in compare.columns.values()]
        state = [compare.banner, compare.timer, pill]

        async def restore(kept: Any, request: gr.Request) -> dict[Any, Any]:
            session = self.sessions.of(request.session_hash)
            query = dict(request.query_params)
            return await self.compare.restore(compare, kept, query, session) | await self._state(compare, pill)

        async def refresh(values: dict[Any, Any], request: gr.Request) -> dict[Any, Any]:
            session = self.sessions.of(request.session_hash)
            return await self.compare.refresh(compare, values, session) | await self._state(compare, pill)

        def leave(request: gr.Request) -> None:
            self.sessions.leave(request.session_hash)

        boxes = [column.box for column in compare.columns.values()]
        presets = [column.preset for column in compare.columns.values()]
        restored = [*boxes, *widgets, *facts, *presets, compare.system, compare.order, compare.prompt, compare.mode, *state]
        demo.load(restore, compare.saved, restored, **QUICK)
        compare.timer.tick(refresh, compare.inputs, [*widgets, *facts, *state], **QUICK)
        demo.unload(leave)

    async def _state(self, compare: CompareParts, pill: gr.HTML) -> dict[Any, Any]:
        statuses = await self.conversations.statuses()
        models = await self.conversations.models()
        jobs = self.arena.catalog.jobs()
        downloading = [job for job in jobs if job.state == "downloading"]
        settled = bool(models) and self.arena.engine_state != "starting"
        return {
            compare.banner: banner(statuses, bool(models), self.arena.engine_state, self.arena.engine_error, downloading),
            compare.timer: gr.Timer(active=not settled),
            pill: pill_text(statuses, self.arena.engine_state),
        }


def pill_text(statuses: Sequence[EndpointStatus], engine: str) -> str:
    """The short word in the page's head on who answers."""
    up = [status for status in statuses if status.reachable]
    if not up:
        state, text = ("starting", "engine starting") if engine == "starting" else ("failed", "no model server")
    else:
        names = ", ".join(f"{status.name} {status.version}" if status.version else status.name for status in up[:2])
        more = f" +{len(up) - 2}" if len(up) > 2 else ""
        count = sum(status.models for status in up)
        state = "running" if len(up) == len(statuses) else "partly"
        text = f"{names}{more} · {count} model{'' if count == 1 else 's'}"
    return f'<div class="pill"><span class="state" data-state="{state}"><i class="dot"></i>{escape(text)}</span></div>'


def banner(
    statuses: Sequence[EndpointStatus], any_models: bool, engine: str, engine_error: str | None, downloading: Sequence[PullJob]
) -> str:
    """What stands between the user and a first answer, in plain words with the remedy; empty when nothing does."""
    if any_models:
        return ""
    if downloading:
        return f'<div class="notice calm"><p><b>Getting a first model: {escape(downloading[0].model)}</b></p>{parts.progress(downloading[0])}</div>'
    if engine == "starting":
        return '<div class="notice calm"><p><b>The embedded engine is starting.</b> This page goes on by itself.</p></div>'
    if any(status.reachable for status in statuses):
        return (
            '<div class="notice calm"><p><b>No models are installed yet.</b> Pull one in the Models tab; '
            "<code>smollm2:135m</code> is 100 MB and answers on any machine.</p></div>"
        )
    silent = "".join(
        f"<li><code>{escape(status.url)}</code> {escape(status.error or 'does not answer')}</li>" for status in statuses
    )
    failed = f"<p>The embedded engine did not start: {escape(engine_error or '')}</p>" if engine == "failed" else ""
    return (
        f'<div class="notice" role="alert"><p><b>No model server answers.</b></p><ul>{silent}</ul>{failed}'
        "<p>Start Ollama with <code>ollama serve</code>, or set <code>ARENA_ENGINE=on</code> and restart to use the embedded "
        "engine. This page notices by itself.</p></div>"
    )


def mount(app: FastAPI, arena: Arena) -> FastAPI:
    """Build the page and mount it at `/`, after every other route."""
    here = files("arena.ui")
    script = here.joinpath("ui.js").read_text("utf-8")
    return gr.mount_gradio_app(
        app, Page(arena).build(), path="/", run_history=False, footer_links=["settings"], theme=theme(),
        css=here.joinpath("style.css").read_text("utf-8"), head=f"<script>{script}</script>", show_error=True,
        max_file_size=arena.settings.max_upload_bytes, allowed_paths=[], enable_monitoring=False, mcp_server=False,
        ssr_mode=False, pwa=False, root_path=arena.settings.root_path or None,
    )  # fmt: skip
