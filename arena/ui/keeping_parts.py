"""Draws the two panels under the toolbar: presets of columns, and what is kept or downloaded of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from arena.errors import ArenaError
from arena.kept import MAX_NAME, KeptTitle, Preset

DOWNLOADS = (
    ("json", "JSON", "for programs"),
    ("markdown", "Markdown", "for people"),
    ("html", "HTML", "a page to send around"),
    ("masked", "Blind HTML", "without the names of the models"),
)


def presets_panel(presets: Mapping[str, Preset], confirming: str = "") -> str:
    """The presets, and the form that saves another one; `confirming` names the one whose deletion is asked for."""
    rows = "".join(
        _row("use", name, name, _columns(preset), "preset", confirming=name == confirming)
        for name, preset in presets.items()
    )
    empty = "None yet. Set the columns up as you like them, then save them under a name."
    return _panel(
        "Presets",
        _list(rows, empty),
        '<form data-form="save"><input name="name" required autocomplete="off" '
        f'maxlength="{MAX_NAME}" placeholder="Name for these columns" aria-label="Name for these columns">'
        '<button class="act primary">Save</button></form>'
        '<p class="dim">Models, settings, system prompt and order of all columns.</p>',
    )


def keep_panel(kept: Sequence[KeptTitle], confirming: str = "", *, asked: bool) -> str:
    """What can be done with the conversation, and those that are kept. `asked`: is there anything to keep?"""
    off = "" if asked else " disabled"
    downloads = "".join(
        f'<button type="button" class="act" id="export-{kind}" data-action="export" data-kind="{kind}" '
        f'title="{hint}">{text}</button>'
        for kind, text, hint in DOWNLOADS
    )
    rows = "".join(
        _row("open", each.id, each.title, _moment(each.kept_at), "conversation", confirming=each.id == confirming)
        for each in kept
    )
    return _panel(
        "Keep",
        f'<button type="button" class="act primary" id="keep-this" data-action="keep"{off}>Keep this conversation'
        f'</button><h3>Download</h3><div class="downloads" role="group" aria-label="Download">{downloads}</div>',
        f"<h3>Kept</h3>{_list(rows, 'Nothing yet. What you keep stays on this server, for you alone.')}",
    )


def failed_panel(error: ArenaError) -> str:
    """Why there is nothing to show."""
    return _panel("Not now", f'<div class="notice" role="alert"><p>{escape(error.message)}</p></div>')


def saying(panel: str, text: str, number: int) -> str:
    """The panel with a word that the page's script says once; its `number` keeps it apart from the same word before."""
    return f'{panel}<p hidden data-say="{escape(text)}" data-number="{number}"></p>' if text else panel


def _panel(name: str, *parts: str) -> str:
    return f'<div class="shelf" role="group" aria-label="{name}">{"".join(parts)}</div>'


def _list(rows: str, empty: str) -> str:
    return f"<ul>{rows}</ul>" if rows else f'<p class="empty">{escape(empty)}</p>'


def _row(action: str, key: str, name: str, facts: str, kind: str, *, confirming: bool) -> str:
    """A thing to choose, with its way out; what is chosen closes the panel."""
    key, name = escape(key), escape(name)
    if confirming:
        return (
            f'<li class="ask"><span>Delete {name}?</span>'
            f'<button type="button" class="act danger" data-action="delete" data-key="{key}">Delete</button>'
            '<button type="button" class="act" data-action="show" data-first>Keep</button></li>'
        )
    return (
        f'<li><button type="button" class="pick" data-action="{action}" data-key="{key}" data-closes><b>{name}</b>'
        f'<span class="dim">{facts}</span></button>'
        f'<button type="button" class="icon i-delete" data-action="ask" data-key="{key}">'
        f"Delete the {kind} {name}</button></li>"
    )


def _columns(preset: Preset) -> str:
    return escape(", ".join(dict.fromkeys(instance.model for instance in preset.instances)))


def _moment(at: str) -> str:
    """The page's script tells it in the reader's own time and words."""
    return f'<time datetime="{escape(at)}">{escape(at[:16].replace("T", " "))} UTC</time>'
