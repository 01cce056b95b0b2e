"""The last requests as the page draws them: what was asked of whom, how it went, and who had failed before."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from arena.fleet.book import Entry
from arena.ui.hosts import clock, span
from arena.ui.parts import DASH

SHOWN = 50
"""Requests that are listed."""

OUTCOMES = {"succeeded": "answered", "failed": "failed", "left": "left", "refused": "refused"}
WHY = {
    "backend_unreachable": "no connection",
    "timeout": "silent for too long",
    "total_timeout": "took too long",
    "upstream_eof": "the answer broke off",
    "upstream_reset": "the answer broke off",
    "upstream_broken": "the answer broke off",
    "upstream_truncated": "the answer broke off",
    "upstream_error": "the host reports an error",
    "upstream_refused": "the host refuses our credentials",
    "malformed": "no HTTP",
    "not_ollama": "not an Ollama server",
    "not_openai": "not an OpenAI-compatible server",
    "answer_too_large": "the answer is too large",
    "line_too_long": "a line of the answer is too long",
    "budget_exceeded": "the answer grew too long",
    "busy": "the host is busy",
    "rate_limited": "the host limits requests",
    "resting": "every host rests",
    "queue_full": "the queue is full",
    "queue_timeout": "waited too long for a place",
    "no_endpoint": "no host can serve it",
    "unknown_endpoint": "no such host",
    "model_not_found": "no such model",
    "bad_request": "not a valid request",
    "server_shutting_down": "the arena was stopping",
    "stopped": "stopped by the user",
}
"""The words for an error's code, as far as the code itself does not say it."""

_TOKENS = "of the prompt, of the answer; ≈ is the count of its pieces"
_NUMBER = " class='num'"
_HEAD = (
    ("When", ""), ("Model", ""), ("Host", ""), ("Route", ""), ("Outcome", ""), ("First token", _NUMBER),
    ("Total", _NUMBER), ("Tokens", _NUMBER),
)  # fmt: skip


def recent_table(entries: Sequence[Entry]) -> str:
    """The last requests, newest first; `entries` are in that order."""
    title = "<h3>Recent requests</h3>"
    if not entries:
        return (
            f'{title}<p class="empty">None yet. Ask something in the Compare tab, or point a client at '
            "<code>/olla/ollama</code> of this address.</p>"
        )
    keyed = any(entry.key for entry in entries)
    head = "".join(f"<th scope='col'{kind}>{text}</th>" for text, kind in (*_HEAD, *((("Key", ""),) if keyed else ())))
    rows = "".join(_row(entry, keyed) for entry in entries[:SHOWN])
    return (
        f'{title}<div class="scroll"><table class="grid" aria-label="Recent requests"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def why(entry: Entry) -> str:
    """What was wrong, in words; empty if nothing was."""
    if entry.outcome == "left" and entry.error is None:
        return "the client hung up"
    if entry.error is not None:
        return WHY.get(entry.error, entry.error.replace("_", " "))
    if entry.outcome == "failed":
        return "the host answered with an error" if entry.status else "without a reason"
    return ""


def _row(entry: Entry, keyed: bool) -> str:
    about = "≈ " if entry.estimated else ""
    tokens = f"{entry.prompt_tokens:,} → {about}{entry.completion_tokens:,}"
    known = bool(entry.prompt_tokens or entry.completion_tokens)
    waited = f' <span class="dim">{span(entry.queued_s)} in the queue</span>' if entry.queued_s >= 0.1 else ""
    cells = (
        ("who", "", _host(entry)),
        ("route", "", f"<code>{escape(entry.route)}</code>" if entry.route else DASH),
        ("outcome", "", _outcome(entry)),
        ("num", "first token", span(entry.ttft_s)),
        ("num", "total", f"{span(entry.total_s)}{waited}"),
        (
            "num",
            "tokens",
            f'<span title="of the prompt, of the answer; ≈ is the count of its pieces">{tokens}</span>'
            if known
            else DASH,
        ),
        *((("key", "key", escape(entry.key) or DASH),) if keyed else ()),
    )
    told = "".join(f'<td class="{kind}"{label and f" data-label={label!r}"}>{text}</td>' for kind, label, text in cells)
    when = clock("ago", round(entry.at))
    return (
        f'<tr><td class="when">{when}</td><th scope="row" class="model">{escape(entry.model) or DASH}</th>{told}</tr>'
    )


def _host(entry: Entry) -> str:
    """The host, after those that had failed before it."""
    host = escape(entry.endpoint) or DASH
    if not entry.tried:
        return host
    before = escape(", ".join(sorted(entry.tried)))
    return f'<span class="dim" title="had failed before"><s>{before}</s> →</span> {host}'


def _outcome(entry: Entry) -> str:
    status = f" {entry.status}" if entry.status and entry.outcome != "succeeded" else ""
    word = f'<span class="state" data-outcome="{escape(entry.outcome)}"><i class="dot"></i>'
    reason = why(entry)
    told = f' <span class="dim">{escape(reason)}</span>' if reason else ""
    return f"{word}{escape(OUTCOMES.get(entry.outcome, entry.outcome))}{status}</span>{told}"
