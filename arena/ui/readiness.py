"""What the page says about the servers behind it: the word in its head, and what stands before a first answer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from arena.types import EndpointStatus, PullJob
from arena.ui import parts

BRAND = (
    '<div class="brand"><svg viewBox="0 0 24 24" aria-hidden="true">'
    '<path d="M3 20V9a9 9 0 0 1 18 0v11h-4V9.5a5 5 0 0 0-10 0V20z"/><path d="M10 20v-9.5a2 2 0 0 1 4 0V20z"/></svg>'
    "<h1>Ollama Arena</h1></div>"
)
KEYS = (
    ("Enter", "send"),
    ("Shift + Enter", "new line"),
    ("Esc", "stop all answers, or close what is open"),
    ("/", "go to the prompt"),
    ("↑", "edit the last prompt (in an empty prompt)"),
    ("Alt + N", "add a column"),
    ("Alt + W", "one column over the whole width, the next one, all again"),
    ("Alt + 1 … 9", "open the settings of a column"),
    ("1 · 2 · 0 · 9", "vote in a battle: A, B, a tie, both bad"),
    ("N · R", "after a battle: the next one, or the same prompt again"),
    ("?", "show these keys"),
)
"""The page's shortcuts: what is pressed, and what it does. `ui.js` acts on them."""

_TOOLS = (
    '<button type="button" data-ui="keys" aria-label="Show the keys" title="Keys (?)">?</button>'
    '<button type="button" data-ui="theme" aria-label="Switch between light and dark" title="Light or dark">'
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5z"/></svg>'
    "</button>"
)
_SIGN_OUT = (
    '<a href="signout" aria-label="Sign out" title="Sign out"><svg viewBox="0 0 24 24" aria-hidden="true">'
    '<path d="M10 4H5v16h5M9 12h11M16 8l4 4-4 4"/></svg></a>'
)


def tools(*, signed_in: bool) -> str:
    """The small buttons in the page's head, with the dialog that one of them opens."""
    rows = "".join(f"<div><dt><kbd>{escape(key)}</kbd></dt><dd>{escape(does)}</dd></div>" for key, does in KEYS)
    dialog = (
        f'<dialog id="arena-keys" aria-label="Keys"><h2>Keys</h2><dl>{rows}</dl>'
        '<form method="dialog"><button>Close</button></form></dialog>'
    )
    return f'<div class="tools">{_TOOLS}{_SIGN_OUT if signed_in else ""}</div>{dialog}'


def settled(any_models: bool, engine: str) -> bool:
    """Is there nothing left to wait for, so that the page need not look again by itself?"""
    return any_models and engine != "starting"


def pill_text(statuses: Sequence[EndpointStatus], engine: str, count: int) -> str:
    """The short word in the page's head on who answers, and that there are `count` models."""
    up = [status for status in statuses if status.reachable]
    if not up:
        state, text = ("starting", "engine starting") if engine == "starting" else ("failed", "no model server")
    else:
        names = ", ".join(f"{status.name} {status.version}" if status.version else status.name for status in up[:2])
        more = f" +{len(up) - 2}" if len(up) > 2 else ""
        state = "running" if len(up) == len(statuses) else "partly"
        text = f"{names}{more} · {count} model{'' if count == 1 else 's'}"
        if down := len(statuses) - len(up):
            text += f" · {down} server{'' if down == 1 else 's'} down"
    return f'<div class="pill"><span class="state" data-state="{state}"><i class="dot"></i>{escape(text)}</span></div>'


def banner(
    statuses: Sequence[EndpointStatus],
    any_models: bool,
    engine: str,
    engine_error: str | None,
    jobs: Sequence[PullJob],
) -> str:
    """What stands between the user and a first answer, in plain words with the remedy; empty when nothing does.

    `jobs` are the downloads, newest first.
    """
    if any_models:
        return ""
    if job := next((job for job in jobs if job.state == "downloading"), None):
        return _calm(f"<b>Getting a first model: {escape(job.model)}</b>", parts.progress(job))
    if engine == "starting":
        return _calm("<b>The embedded engine is starting.</b> This page goes on by itself.")
    if up := [status for status in statuses if status.reachable]:
        if jobs and jobs[0].state == "failed":
            return _not_fetched(jobs[0], any(status.kind == "engine" for status in up))
        return _calm(
            "<b>No models are installed yet.</b> Pull one in the Models tab; <code>smollm2:135m</code> is 100 MB and "
            "answers on any machine."
        )
    return _nobody_answers(statuses, engine_error if engine == "failed" else None)


def _calm(text: str, more: str = "") -> str:
    return f'<div class="notice calm"><p>{text}</p>{more}</div>'


def _not_fetched(job: PullJob, by_engine: bool) -> str:
    own = " Or put any GGUF file into the folder <code>models</code> of <code>ARENA_DATA</code>." if by_engine else ""
    return (
        f'<div class="notice" role="alert"><p><b>{escape(job.model)} could not be fetched, and no other model is '
        f"installed.</b></p><p>{escape(job.error or 'It is not known why.')}</p>"
        f"<p>When that is mended, pull it again in the Models tab.{own} This page notices by itself.</p></div>"
    )


def _nobody_answers(statuses: Sequence[EndpointStatus], engine_error: str | None) -> str:
    silent = "".join(
        f"<li><code>{escape(status.url)}</code> {escape(status.error or 'does not answer')}</li>" for status in statuses
    )
    failed = f"<p>{escape(engine_error)}</p>" if engine_error else ""
    return (
        f'<div class="notice" role="alert"><p><b>No model server answers.</b></p><ul>{silent}</ul>{failed}'
        "<p>Start Ollama with <code>ollama serve</code>, or set <code>ARENA_ENGINE=on</code> and restart to use the "
        "embedded engine. This page notices by itself.</p></div>"
    )
