"""The leaderboard as a table that says how sure it is: each rating with its interval, to one scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import exp

from msgspec import Struct

from arena.leaderboard import Board, places
from arena.names import canonical
from arena.ratings import PRELIMINARY, Effect, Flip, Ladder, Rating
from arena.types import ModelInfo
from arena.ui import plots
from arena.ui.leaderboard_query import Chosen
from arena.ui.parts import DASH
from arena.ui.plots import words

FRAGILE = 5
"""Battles: what fewer of them would turn around is called fragile."""
FEATURES = {"tokens": "Length", "headers": "Headings", "lists": "Lists", "bold": "Bold passages"}

_NUMBER = " class='num'"
_HEAD = (
    ("Rank", "", "The places that the votes leave open, with 95 % confidence"),
    ("Model", "", ""),
    ("Rating", _NUMBER, "400 points more win ten of eleven battles; the mean is 1000"),
    ("", " class='wide'", ""),
    ("Votes", _NUMBER, "Comparisons that it was in"),
    ("Won", _NUMBER, "Ties and both bad count as half"),
    ("Both bad", _NUMBER, "How often both answers were called bad"),
)  # fmt: skip

Known = Mapping[str, ModelInfo] | None
"""The models that hosts have, by canonical name; None while not all hosts have told theirs."""


class Line(Struct, frozen=True):
    """One row: a contestant, the name it goes by, and whether it is one of the settings of the model above."""

    rating: Rating
    label: str
    setting: bool = False


def is_gone(model: str, known: Known) -> bool:
    """Has no host this model any more? Not before all hosts have told."""
    return known is not None and canonical(model) not in known


def models_of(rows: Sequence[Rating]) -> list[Line]:
    """The rows of a board of models."""
    return [Line(row, row.name) for row in rows]


def with_settings(ladders: Sequence[Ladder], labels: Mapping[str, str]) -> list[Line]:
    """Every model, and below it its settings where there is more than one way that it was asked."""
    found = []
    for ladder in ladders:
        found.append(Line(ladder.model, ladder.model.name))
        told = [(row, labels.get(row.name, row.name)) for row in ladder.settings]
        if [label for _, label in told] != [ladder.model.name]:
            found += [Line(row, _setting(label, ladder.model.name), setting=True) for row, label in told]
    return found


def shown(lines: Sequence[Line], chosen: Chosen, known: Known) -> tuple[list[Line], list[str]]:
    """The lines to show, and the models that are left out since no host has them."""
    gone = [line.label for line in lines if not line.setting and is_gone(line.rating.model, known)]
    if chosen.gone:
        return list(lines), []
    return [line for line in lines if line.rating.model not in gone], gone


def ranking(lines: Sequence[Line], flips: Sequence[Flip], known: Known, *, hidden: Sequence[str] = ()) -> str:
    """The table, best first."""
    on = plots.scale(bound for line in lines for bound in (line.rating.lower, line.rating.upper))
    lead = {flip.above: flip for flip in flips}
    head = "".join(
        f"<th scope='col'{kind}{_titled(title)}>{text or plots.axis(on)}</th>" for text, kind, title in _HEAD
    )
    if lead:
        head += f"<th scope='col'{_NUMBER}{_titled(_LEAD)}>Votes to flip</th>"
    body = "".join(_row(line, lead, on, is_gone(line.rating.model, known)) for line in lines)
    return (
        f'<div class="scroll card"><table class="grid ranking" aria-label="Leaderboard"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{_notes(lines, hidden)}"
    )


_LEAD = "How many more battles the next one below would have to win against it to pass it"


def _row(line: Line, lead: Mapping[str, Flip], on: plots.Scale, gone: bool) -> str:
    row = line.rating
    told = f"{line.label}: {row.rating:.0f}, 95 % interval {row.lower:.0f} to {row.upper:.0f}"
    drawn = plots.interval(on, row.lower, row.rating, row.upper, told)
    cells = (
        ("num rating", "", f"{row.rating:.0f} <span class='dim'>{_margin(row)}</span>"),
        ("wide", "", drawn),
        ("num", "votes", f"{row.votes:,}"),
        ("num", "won", share(row.win_rate)),
        ("num", "both bad", share(row.both_bad / row.votes if row.votes else None)),
    )
    body = "".join(_cell(*cell) for cell in cells)
    if lead:
        body += _cell("num", "to flip", _flip(None if line.setting else lead.get(row.name)))
    kind = "setting" if line.setting else "model"
    return (
        f'<tr class="{kind}"><td class="rank"{_titled(f"By the rating alone: {row.rank}")}>{places(row, DASH)}</td>'
        f'<th scope="row"><span class="name">{words(line.label)}</span>{_marks(row, gone)}</th>{body}</tr>'
    )


def share(rate: float | None) -> str:
    """A share in percent; a dash where there is nothing to share."""
    return DASH if rate is None else f"{rate:.0%}".replace("%", " %")


def _margin(row: Rating) -> str:
    """How far the interval reaches; in both directions where that differs much."""
    up, down = row.upper - row.rating, row.rating - row.lower
    if abs(up - down) <= 0.1 * (up + down):
        return f"\N{PLUS-MINUS SIGN}{(up + down) / 2:.0f}"
    return f"+{up:.0f} \N{MINUS SIGN}{down:.0f}"


def _marks(row: Rating, gone: bool) -> str:
    few = (
        f'<span class="flag" title="Its votes weigh less than {PRELIMINARY:.0f}: a first impression">preliminary</span>'
    )
    away = '<span class="chip" title="No host has it now">not installed</span>'
    return (few if row.preliminary else "") + (away if gone else "")


def _flip(flip: Flip | None) -> str:
    if flip is None:
        return DASH
    told = f"If {flip.votes} more battles between the two went to {flip.below}, it would pass {flip.above}"
    kind = "fig warn" if flip.votes < FRAGILE else "fig"
    return f'<span class="{kind}"{_titled(told)}>{flip.votes:,}</span>'


def _cell(kind: str, label: str, text: str) -> str:
    named = f' data-label="{label}"' if label else ""
    return f'<td class="{kind}"{named}>{text}</td>'


def _titled(text: str) -> str:
    return f' title="{words(text)}"' if text else ""


def _setting(label: str, model: str) -> str:
    """What sets a configuration apart from its model."""
    return label.removeprefix(model).lstrip(", ") or "the model's own settings"


def _notes(lines: Sequence[Line], hidden: Sequence[str]) -> str:
    """What one must know to read the table."""
    told = ["Rank: the places that the votes leave open. Line: where the rating lies with 95 % confidence."]
    if any(line.setting for line in lines):
        told.append("Settings are rated against everything, beside their models.")
    if hidden:
        one = len(hidden) == 1
        names = ", ".join(hidden[:5]) + ("…" if len(hidden) > 5 else "")
        told.append(
            f"{len(hidden)} model{'' if one else 's'} that no host has {'is' if one else 'are'} hidden ({names}); "
            f"ranks count {'it' if one else 'them'} too."
        )
    return f'<p class="note dim">{words(" ".join(told))}</p>'


# ---- what style buys


def effects(found: Sequence[Effect]) -> str:
    """How often an answer wins that has more of something, among otherwise even battles."""
    on = plots.scale([0.5, *(chance(bound) for each in found for bound in (each.lower, each.upper))], room=0.1)
    hundred = plots.Scale(100 * on.low, 100 * on.high)
    rows = "".join(_effect(each, hundred) for each in found)
    columns = (("More of", ""), ("Wins", _NUMBER), (plots.axis(hundred), " class='wide'"), ("", ""))
    head = "".join(f"<th scope='col'{kind}>{text}</th>" for text, kind in columns)
    return (
        '<section class="effects"><h3>What style buys</h3><div class="scroll card"><table class="grid ranking" '
        f'aria-label="What style buys"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        '<p class="note dim">How many of otherwise even battles an answer wins that has clearly more of it (one '
        "standard deviation), with 95 % bounds; 50 % is no effect.</p></section>"
    )


def chance(log_odds: float) -> float:
    """The chance of a win at these log odds."""
    return 1 / (1 + exp(-log_odds))


def _effect(each: Effect, on: plots.Scale) -> str:
    low, middle, high = (100 * chance(value) for value in (each.lower, each.effect, each.upper))
    name = FEATURES.get(each.feature, each.feature)
    told = f"{name}: {middle:.0f} %, 95 % interval {low:.0f} to {high:.0f} %"
    verdict = "no clear effect" if low <= 50 <= high else "liked" if low > 50 else "disliked"
    return (
        f'<tr class="model"><th scope="row"><span class="name">{words(name)}</span></th>'
        f'<td class="num rating">{middle:.0f} %</td>'
        f'<td class="wide">{plots.interval(on, low, middle, high, told, mark=50.0)}</td><td>{verdict}</td></tr>'
    )


def style_change(plain: Board, held: Board, show: Callable[[Rating], bool]) -> str:
    """The ratings without and with style held equal, side by side."""
    before = {row.name: row for row in plain.rows}
    rows = "".join(_change(row, before[row.name]) for row in held.rows if row.name in before and show(row))
    head = "".join(
        f"<th scope='col'{kind}>{text}</th>"
        for text, kind in (
            ("Model", ""),
            ("Plain", _NUMBER),
            ("Held equal", _NUMBER),
            ("Change", _NUMBER),
            ("Rank", _NUMBER),
        )
    )
    return (
        f'<h3>Ratings with style held equal</h3><div class="scroll card"><table class="grid" aria-label="Ratings with '
        f'style held equal"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="note dim">From {held.votes:,} of {plain.votes:,} votes: those whose answers were counted.</p>'
    )


def _change(row: Rating, before: Rating) -> str:
    change = round(row.rating) - round(before.rating)
    sign = "+" if change > 0 else "\N{MINUS SIGN}" if change < 0 else "\N{PLUS-MINUS SIGN}"
    moved = " → ".join(dict.fromkeys((places(before, DASH), places(row, DASH))))
    return (
        f'<tr><th scope="row"><span class="name">{words(row.name)}</span></th><td class="num">{before.rating:.0f}</td>'
        f'<td class="num">{row.rating:.0f}</td><td class="num">{sign}{abs(change)}</td>'
        f'<td class="num">{moved}</td></tr>'
    )
