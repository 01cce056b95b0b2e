"""The about tab: which servers answer, what runs here, where the token comes from, which limits hold."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from typing import TYPE_CHECKING

import gradio as gr

from arena import __version__
from arena.settings import Settings
from arena.types import EndpointStatus
from arena.ui.elements import html
from arena.ui.parts import DASH, size
from arena.ui.readiness import KEYS

if TYPE_CHECKING:
    from arena.arena import Arena


_HEAD = '<header class="sheet-head"><h2>About this arena</h2></header>'


class AboutPanel:
    """The about tab."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena

    def render(self) -> gr.HTML:
        """Draw the tab; it is filled when it is opened."""
        with gr.Column(elem_classes="sheet", min_width=0):
            return html(f'{_HEAD}<p class="empty" role="status">Asking the servers…</p>', "about")

    def text(self, statuses: Sequence[EndpointStatus]) -> str:
        """The whole sheet."""
        settings = self.arena.settings
        cards = "".join(
            (
                _section("Model servers", endpoints_table(statuses), "wide"),
                _section("Embedded engine", self._engine()),
                _section("Access", access(settings)),
                _section("Limits", _pairs(limits(settings))),
                _section("Versions", _pairs(versions())),
                _section("Keys", _pairs(KEYS), "keys"),
                _section(
                    "For programs",
                    '<p>The HTTP API is described under <a href="docs">/docs</a>; its machine-readable form is '
                    '<a href="openapi.json">/openapi.json</a>.</p>',
                ),
            )
        )
        return f'{_HEAD}<div class="cards">{cards}</div>'

    def _engine(self) -> str:
        words = {
            "off": "Off: a model server answers, or ARENA_ENGINE=off.",
            "starting": "Starting…",
            "running": "Running.",
            "failed": self.arena.engine_error or "It did not start.",
        }
        state = self.arena.engine_state
        return f'<p><span class="state" data-state="{state}"><i class="dot"></i>{escape(words[state])}</span></p>'


def endpoints_table(statuses: Sequence[EndpointStatus]) -> str:
    """Which servers are configured, and which of them answer."""
    if not statuses:
        return "<p>None is configured, and the embedded engine is off.</p>"
    rows = "".join(
        f'<tr><th scope="row">{escape(status.name)}</th><td><code>{escape(status.url)}</code></td>'
        f"<td>{escape(status.kind)}</td>"
        f'<td><span class="state" data-state="{"running" if status.reachable else "failed"}"><i class="dot"></i>'
        f"{'answers' if status.reachable else escape(status.error or 'does not answer')}</span></td>"
        f'<td data-label="version">{escape(status.version or DASH)}</td>'
        f'<td class="num" data-label="models">{status.models if status.reachable else DASH}</td></tr>'
        for status in statuses
    )
    head = "".join(f"<th scope='col'>{text}</th>" for text in ("Name", "Address", "Kind", "State", "Version"))
    head += "<th scope='col' class='num'>Models</th>"
    return f'<div class="scroll"><table class="grid"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def access(settings: Settings) -> str:
    """Where the token comes from and what is allowed; never its value."""
    if settings.token is not None:
        token = "A token is set (<code>WEB_CHAT_TOKEN</code>): the page asks for it once, programs send it as bearer."
    elif settings.public:
        token = "<b>No token is set</b> on a public address: anyone who reaches this server can use your models."
    else:
        token = (
            "No token is set; only this machine can reach the arena. "
            "Set <code>WEB_CHAT_TOKEN</code> before you open it to others."
        )
    management = "allowed" if settings.management_allowed else "turned off (<code>ARENA_MANAGEMENT</code>)"
    host = f"<code>{escape(settings.host)}</code>"
    return f"<p>{token}</p><p>Listening on {host}. Pulling and deleting models is {management}.</p>"


def limits(settings: Settings) -> tuple[tuple[str, str], ...]:
    """The limits that a user of the page can meet."""
    return (
        ("Columns", str(settings.max_columns)),
        ("Pieces of text in one answer", f"{settings.max_answer_tokens:,}"),
        ("One answer may take", f"{settings.total_timeout_s:,.0f} s"),
        ("Waiting for its first token", f"{settings.first_byte_timeout_s:,.0f} s"),
        ("Silence inside an answer", f"{settings.idle_timeout_s:,.0f} s"),
        ("Attached file", size(settings.max_upload_bytes)),
        ("Messages kept of a history", f"{settings.history_limit:,}"),
    )


def versions() -> tuple[tuple[str, str], ...]:
    """What runs here."""
    names = ("gradio", "fastapi", "uvicorn")
    return (
        ("Ollama Arena", __version__),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in names),
    )


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return (
        "<dl>" + "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs) + "</dl>"
    )


def _section(title: str, body: str, kind: str = "") -> str:
    return f'<section class="card {kind}"><h3>{escape(title)}</h3>{body}</section>'
