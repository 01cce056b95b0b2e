"""The head of the leaderboard tab: which votes are asked about, which part is open, and everything as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from arena.leaderboard import Choices
from arena.ui.leaderboard_query import Chosen, Part
from arena.ui.plots import short, words

NAMES: Mapping[Part, str] = {
    "ranking": "Ranking",
    "pairs": "Head to head",
    "time": "Over time",
    "cost": "Speed and memory",
    "style": "Style",
    "method": "Method",
}


_PARQUET = (("Parquet", "api/votes?format=parquet", "votes.parquet"),)
"""Offered where the server can write it."""
_CONVERSATIONS = (
    ("JSON lines, with conversations", "api/votes?format=jsonl", "votes.jsonl"),
    ("Preference pairs, JSON lines", "api/votes/preferences", "preferences.jsonl"),
)
_NOT_GIVEN = "What was said in battles is exported by the operator of this server alone."


# ---- which votes


def filters(chosen: Chosen, choices: Choices) -> str:
    """The form that says which votes count. The browser sends it as a whole whenever something in it changes."""
    return (
        '<form class="filters" aria-label="Which votes count">'
        f"{_select('category', 'Category', 'all', choices.categories, chosen.category)}"
        f"{_select('tag', 'Tag', 'all', choices.tags, chosen.tag)}"
        f"{_day('since', 'From', chosen.since)}{_day('until', 'To', chosen.until)}{_raters(chosen, choices)}"
        '<span class="switches">'
        f"{_switch('settings', 'Settings apart', chosen.settings, 'List every model with its settings')}"
        f"{_switch('blind', 'Blind only', chosen.blind, 'Only votes cast before the models were known')}"
        f"{_switch('style', 'Style held equal', chosen.style, 'Hold length, headings, lists and bold equal')}"
        f"{_switch('gone', 'Show not installed', chosen.gone, 'Also models that no host has now')}"
        "</span></form>"
    )


def _select(name: str, label: str, every: str, values: Sequence[str], picked: str) -> str:
    """A choice; nothing to choose from is not shown."""
    offered = [*values, *([picked] if picked and picked not in values else [])]
    if not offered:
        return ""
    options = "".join(
        f'<option value="{words(value)}"{" selected" if value == picked else ""}>{words(value)}</option>'
        for value in offered
    )
    return f'<label>{label} <select name="{name}"><option value="">{every}</option>{options}</select></label>'


def _day(name: str, label: str, value: str) -> str:
    return f'<label>{label} <input type="date" name="{name}" value="{value}"></label>'


def _raters(chosen: Chosen, choices: Choices) -> str:
    """Whose votes count; with a single rater there is nothing to choose."""
    heard = dict(choices.raters)
    known = [*heard.items(), *((name, 0) for name in chosen.voters if name not in heard)]
    if len(known) < 2:
        return ""
    boxes = "".join(_rater(name, count, name in chosen.voters, name == choices.me) for name, count in known)
    return (
        '<details class="raters"><summary>Raters</summary><div class="card"><p class="dim">Nobody ticked: everybody '
        f"counts. Names are pseudonyms.</p>{boxes}</div></details>"
    )


def _rater(name: str, count: int, ticked: bool, me: bool) -> str:
    called = "<b>you</b>" if me else f"<code>{words(short(name, 14))}</code>"
    return (
        f'<label><input type="checkbox" name="voter" value="{words(name)}"{_checked(ticked)}> '
        f'{called} <span class="dim">{count:,} vote{"" if count == 1 else "s"}</span></label>'
    )


def _switch(name: str, label: str, on: bool, title: str) -> str:
    return (
        f'<label class="tick" title="{title}"><input type="checkbox" name="{name}" value="1"{_checked(on)}> '
        f"{label}</label>"
    )


def _checked(on: bool) -> str:
    return " checked" if on else ""


# ---- which part


def parts_row(open_part: Part) -> str:
    """The parts of the tab, as buttons."""
    told = "".join(
        f'<button type="button" data-action="part" data-value="{part}"{_current(part == open_part)}>{name}</button>'
        for part, name in NAMES.items()
    )
    return f'<nav class="parts" aria-label="Parts of the leaderboard">{told}</nav>'


def _current(current: bool) -> str:
    return ' aria-current="true"' if current else ""


# ---- files


def files(chosen: Chosen, *, conversations: bool = True) -> str:
    """Everything that the API gives as a file; what is about ratings has the chosen votes.

    Without `conversations` where whoever looks would be refused what was said in battles.
    """
    board, pairs, settings = chosen.asked(), chosen.asked(style=False), chosen.asked(per=False)
    groups = (
        (
            "Ratings of the chosen votes",
            (
                ("Table, CSV", _with(board, "format=csv"), "leaderboard.csv"),
                ("Table, Markdown", _with(board, "format=md"), "leaderboard.md"),
                ("Table, JSON", f"api/leaderboard{board}", "leaderboard.json"),
                ("One page to send around, HTML", _with(board, "format=html"), "leaderboard.html"),
                ("The same, models numbered", _with(board, "format=html&masked=true"), "leaderboard-masked.html"),
                ("Models with settings, JSON", f"api/leaderboard/settings{settings}", "settings.json"),
                ("Pairs, JSON", f"api/leaderboard/matrix{pairs}", "pairs.json"),
                ("Over time, JSON", f"api/leaderboard/timeline{pairs}", "timeline.json"),
            ),
        ),
        (
            "All votes",
            (
                ("CSV", "api/votes?format=csv", "votes.csv"),
                *(_PARQUET if find_spec("pyarrow") is not None else ()),
                *(_CONVERSATIONS if conversations else ()),
            ),
        ),
    )
    told = "".join(f"<h4>{title}</h4><ul>{_links(links)}</ul>" for title, links in groups)
    told += "" if conversations else f'<p class="dim">{_NOT_GIVEN}</p>'
    return f'<details class="files"><summary class="act">Download</summary><div class="card">{told}</div></details>'


def _with(query: str, more: str) -> str:
    return f"api/leaderboard{query}&{more}" if query else f"api/leaderboard?{more}"


def _links(links: Sequence[tuple[str, str, str]]) -> str:
    return "".join(f'<li><a href="{words(href)}" download="{name}">{text}</a></li>' for text, href, name in links)
