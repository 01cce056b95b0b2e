"""The models tab: what is installed, what is in memory, and the downloads under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from arena.errors import ArenaError
from arena.types import LoadedModel, ModelInfo, PullJob
from arena.ui import parts
from arena.ui.conversation import Conversations
from arena.ui.elements import html
from arena.ui.sessions import Session, Sessions
from arena.ui.wiring import QUICK, TALK

if TYPE_CHECKING:
    from arena.arena import Arena

Updates = dict[Any, Any]

SUGGESTIONS = ("smollm2:135m", "smollm2:360m", "qwen2.5:0.5b", "qwen3:0.6b", "smollm2:1.7b")
"""Small models to start with: they run on a laptop, and both Ollama and the embedded engine can fetch them."""


_NUMBER = " class='num'"
HEAD = (
    ("Model", ""), ("Size", _NUMBER), ("Quantisation", ""), ("Context", _NUMBER), ("Can", ""), ("Server", ""), ("", ""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CatalogParts:
    """The components of the tab."""

    name: gr.Dropdown
    pull: gr.Button
    jobs: gr.HTML
    table: gr.HTML
    memory: gr.HTML
    timer: gr.Timer


class CatalogPanel:
    """The models tab."""

    def __init__(self, arena: Arena, conversations: Conversations, sessions: Sessions) -> None:
        self.arena = arena
        self.conversations = conversations
        self.sessions = sessions

    def render(self) -> CatalogEvents:
        """Draw the tab and wire it; call inside a Blocks and a Tab."""
        events = CatalogEvents(self._draw(), self.arena, self.conversations, self.sessions)
        events.wire()
        return events

    def _draw(self) -> CatalogParts:
        allowed = self.arena.settings.management_allowed
        timer = gr.Timer(0.5, active=False)
        with gr.Column(elem_classes="sheet", min_width=0):
            html(_heading("Models", "What is installed on the servers that answer, and what is in memory now."))
            with gr.Row(elem_id="pull-row", equal_height=True, visible=allowed):
                name = gr.Dropdown(
                    list(SUGGESTIONS), value=None, allow_custom_value=True, label="Name of a model to pull",
                    show_label=False, container=False, interactive=True, elem_id="pull-name", scale=5,
                    elem_classes="picker",
                )  # fmt: skip
                pull = gr.Button("Pull", elem_id="pull", variant="primary", size="sm", scale=0, min_width=84)
            jobs = html("", "jobs", relays=True)
            table = html('<p class="empty" role="status">Asking the servers…</p>', "models", relays=True)
            memory = html("", "memory", relays=True)
        return CatalogParts(name, pull, jobs, table, memory, timer)


class CatalogEvents:
    """What the buttons of the models tab do."""

    def __init__(self, drawn: CatalogParts, arena: Arena, conversations: Conversations, sessions: Sessions) -> None:
        self.drawn = drawn
        self.arena = arena
        self.conversations = conversations
        self.sessions = sessions

    @property
    def outputs(self) -> list[Any]:
        """What a refresh changes."""
        return [self.drawn.table, self.drawn.jobs, self.drawn.memory, self.drawn.timer]

    def wire(self) -> None:
        """Wire the tab."""
        drawn = self.drawn
        drawn.pull.click(self.pull, drawn.name, [*self.outputs, drawn.name], **TALK)
        for part in (drawn.table, drawn.jobs, drawn.memory):
            part.click(self.act, None, self.outputs, **TALK)
        drawn.timer.tick(self.refresh, None, self.outputs, **QUICK)

    async def pull(self, name: str | None, request: gr.Request) -> Updates:
        """Start a download."""
        started = self.start_pull(name)
        return await self.refresh(request) | {self.drawn.name: gr.skip() if started is None else None}

    async def act(self, request: gr.Request, event: gr.EventData) -> Updates:
        """Do what a button of the lists asks for."""
        data = {key: str(getattr(event, key)) for key in ("model", "endpoint", "job") if key in event._data}
        await self.do(self.sessions.of(request.session_hash), str(event.action), **data)
        return await self.refresh(request)

    def start_pull(self, name: str | None, endpoint: str = "") -> PullJob | None:
        """Start a download, to the default endpoint unless one is named; what is wrong is said on the page."""
        wanted = (name or "").strip()
        if not wanted:
            gr.Info("Type the name of a model, for example qwen3:0.6b.")
            return None
        try:
            self.arena.catalog.check_management()
            return self.arena.catalog.pull(wanted, endpoint or None)
        except ArenaError as error:
            gr.Warning(escape(error.message))
            return None

    async def do(self, session: Session, action: str, model: str = "", endpoint: str = "", job: str = "") -> None:
        """Carry out one action; a failure becomes a message on the page."""
        catalog = self.arena.catalog
        session.confirming = model if action == "ask-delete" else None
        try:
            if action in ("delete", "load", "unload", "cancel"):
                catalog.check_management()
            match action:
                case "delete":
                    await catalog.delete(model)
                case "load":
                    await catalog.load(model, endpoint or None)
                case "unload":
                    await catalog.unload(model, endpoint or None)
                case "cancel":
                    catalog.cancel(job)
                case "pull":
                    self.start_pull(model, endpoint)
        except ArenaError as error:
            gr.Warning(escape(error.message))

    async def refresh(self, request: gr.Request) -> Updates:
        """The lists as they are now. The timer runs only while something is being downloaded."""
        confirming = self.sessions.of(request.session_hash).confirming
        models, loaded = await self.conversations.models(), await self.conversations.loaded()
        jobs, may_manage = self.arena.catalog.jobs(), self.arena.settings.management_allowed
        error = self.conversations.listing_error
        return {
            self.drawn.table: models_table(models, confirming, error, may_manage=may_manage),
            self.drawn.jobs: jobs_list(jobs),
            self.drawn.memory: memory_list(loaded, may_manage=may_manage),
            self.drawn.timer: gr.Timer(active=any(job.state == "downloading" for job in jobs)),
        }


def _heading(title: str, text: str) -> str:
    return f'<header class="sheet-head"><h2>{escape(title)}</h2><p class="dim">{escape(text)}</p></header>'


def models_table(
    models: Sequence[ModelInfo], confirming: str | None, error: ArenaError | None, *, may_manage: bool
) -> str:
    """The installed models with what can be done to each."""
    if error is not None:
        why = f"<p><b>The models cannot be listed</b></p><p>{escape(error.message)}</p>"
        return f'<div class="notice" role="alert">{why}</div>'
    if not models:
        return '<p class="empty">No models yet. Pull one above: smollm2:135m is 100 MB and answers on any machine.</p>'
    head = "".join(f"<th scope='col'{kind}>{text}</th>" for text, kind in HEAD)
    rows = "".join(_model_row(info, confirming == info.name, may_manage) for info in models)
    return f'<div class="scroll"><table class="grid"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _model_row(info: ModelInfo, confirming: bool, may_manage: bool) -> str:
    memory = '<span class="chip hot">loaded</span>' if info.loaded_on else ""
    abilities = "".join(f'<span class="chip">{escape(name)}</span>' for name in info.capabilities or ())
    context = f"{info.context_length:,}" if info.context_length else parts.DASH
    parameters = f'<span class="dim">{escape(info.parameter_size)}</span>' if info.parameter_size else ""
    actions = _row_actions(info, confirming) if may_manage else ""
    return (
        f'<tr><th scope="row"><span class="name">{escape(info.name)}</span> {parameters} {memory}</th>'
        f'<td class="num">{parts.size(info.size_bytes)}</td><td>{escape(info.quantization) or parts.DASH}</td>'
        f'<td class="num">{context}</td><td>{abilities or parts.DASH}</td><td>{escape(", ".join(info.endpoints))}</td>'
        f'<td class="actions">{actions}</td></tr>'
    )


def _row_actions(info: ModelInfo, confirming: bool) -> str:
    if confirming:
        return (
            f'<span class="ask">Delete {escape(info.name)}?</span>'
            f"{action('delete', 'Delete', 'danger', model=info.name)}"
            f"{action('keep', 'Keep', model=info.name)}"
        )
    memory = ("unload", "Unload") if info.loaded_on else ("load", "Load")
    return action(*memory, model=info.name, label=f"{memory[1]} {info.name}") + action(
        "ask-delete", "Delete", model=info.name, label=f"Delete {info.name}"
    )


def action(name: str, text: str, kind: str = "", *, label: str = "", **data: str) -> str:
    """A button that the page's click relay understands."""
    extra = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
    named = f' aria-label="{escape(label)}"' if label else ""
    return f'<button type="button" class="act {kind}" data-action="{name}"{extra}{named}>{escape(text)}</button>'


def jobs_list(jobs: Sequence[PullJob], *, hosts: bool = False) -> str:
    """The downloads, newest first, with progress and a way to stop them; with `hosts`, on which host each runs."""
    rows = "".join(_job_row(job, hosts) for job in jobs[:8])
    return f'<section class="jobs" aria-label="Downloads">{rows}</section>' if rows else ""


def _job_row(job: PullJob, on_host: bool) -> str:
    name = f"<b>{escape(job.model)}</b>" + (f' <span class="dim">on {escape(job.endpoint)}</span>' if on_host else "")
    if job.state == "downloading":
        status = f'<span class="dim">{escape(job.status)}</span>'
        button = action("cancel", "Cancel", job=job.id, label=f"Cancel the download of {job.model}")
        return f'<div class="job">{name}{status}{parts.progress(job)}{button}</div>'
    words = {"done": "installed", "cancelled": "cancelled", "failed": job.error or "failed"}
    button = "" if job.state == "done" else action("pull", "Try again", model=job.model, endpoint=job.endpoint)
    return f'<div class="job {job.state}">{name}<span class="word">{escape(words[job.state])}</span>{button}</div>'


def memory_list(loaded: Sequence[LoadedModel], *, may_manage: bool) -> str:
    """What is in memory, how much of it on a GPU, and until when."""
    if not loaded:
        nothing = "<h3>In memory</h3><p class='dim'>Nothing. A model is loaded by its first prompt.</p>"
        return f'<section class="memory">{nothing}</section>'
    rows = "".join(_memory_row(item, may_manage) for item in loaded)
    total = parts.size(sum(item.size_bytes for item in loaded))
    return f'<section class="memory"><h3>In memory <span class="dim">{total}</span></h3>{rows}</section>'


def _memory_row(item: LoadedModel, may_manage: bool) -> str:
    share = f"{item.vram_bytes / item.size_bytes:.0%} on GPU" if item.size_bytes and item.vram_bytes else "on CPU"
    context = f"{item.context_length:,} tokens of context" if item.context_length else ""
    facts = " · ".join(text for text in (parts.size(item.size_bytes), share, context, item.endpoint) if text)
    button = (
        action("unload", "Unload", model=item.name, endpoint=item.endpoint, label=f"Unload {item.name}")
        if may_manage
        else ""
    )
    return f'<div class="job"><b>{escape(item.name)}</b><span class="dim">{escape(facts)}</span>{button}</div>'
