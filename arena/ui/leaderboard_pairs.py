"""Everybody against everybody: who wins how often, who met how often, which pairs are decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from arena.leaderboard import Matrix
from arena.ratings import DECIDED, Duel
from arena.ui.parts import DASH
from arena.ui.plots import shortened, words

MOST_NAMES = 40
"""Contestants in a map: beyond that nobody reads it, and the file has them all."""
MOST_SIDE_BY_SIDE = 12
"""Contestants in maps that stand side by side."""
MOST_PAIRS = 50

_NUMBER = " class='num'"


def head_to_head(matrix: Matrix, show: Callable[[str], bool]) -> str:
    """Both maps and the list of pairs, of the contestants that are to be shown."""
    names = [name for name in matrix.names if show(name)]
    kept = set(names)
    met = [duel for duel in matrix.duels if duel.a in kept and duel.b in kept]
    labels = {name: matrix.labels.get(name, name) for name in names}
    best = names[:MOST_NAMES]
    maps = win_map(best, labels, met) + count_map(best, labels, met)
    kind = "maps large" if len(best) > MOST_SIDE_BY_SIDE else "maps"
    return f'<div class="{kind}">{maps}</div>{_cut(names, matrix.omitted)}{pairs_table(met, labels)}'


def _cut(names: Sequence[str], omitted: int) -> str:
    """What is not in sight: of `names` beyond the maps, and those `omitted` before."""
    told = []
    if len(names) > MOST_NAMES:
        told.append(f"The maps show the best {MOST_NAMES} of {len(names)}; the file of pairs has all of these.")
    if omitted:
        told.append(f"Below the best of the board, {omitted:,} {'is' if omitted == 1 else 'are'} left out.")
    return f'<p class="note dim">{" ".join(told)}</p>' if told else ""


# ---- maps


def win_map(names: Sequence[str], labels: Mapping[str, str], duels: Sequence[Duel]) -> str:
    """How often the row beats the column, in colour and in figures."""
    both = {(duel.a, duel.b): duel for duel in duels}

    def cell(row: str, column: str) -> str:
        duel, turned = both.get((row, column)), both.get((column, row))
        if duel is not None and duel.win_rate is not None:
            return _win(
                labels[row], labels[column], duel.win_rate, duel.expected, (duel.wins, duel.losses), _drawn(duel)
            )
        if turned is not None and turned.win_rate is not None:
            rate, expected = 1 - turned.win_rate, 1 - turned.expected
            return _win(labels[row], labels[column], rate, expected, (turned.losses, turned.wins), _drawn(turned))
        return f'<td class="none" title="{words(f"{labels[row]} and {labels[column]} have not met")}">{DASH}</td>'

    told = "How often the row beat the column, in percent; ties count as half."
    return _map("Wins", told, names, labels, cell)


def count_map(names: Sequence[str], labels: Mapping[str, str], duels: Sequence[Duel]) -> str:
    """How many battles each pair has had."""
    counts = {frozenset((duel.a, duel.b)): _votes(duel) for duel in duels}
    most = max(counts.values(), default=1)

    def cell(row: str, column: str) -> str:
        votes = counts.get(frozenset((row, column)), 0)
        told = f"{labels[row]} and {labels[column]}: {votes:,} battle{'' if votes == 1 else 's'}"
        kind = "count" if votes else "none"
        return f'<td class="{kind}" style="--p:{70 * votes / most:.0f}%" title="{words(told)}">{votes or DASH}</td>'

    return _map("Battles", "How many battles each pair has had.", names, labels, cell)


def _win(row: str, column: str, rate: float, expected: float, outcome: tuple[int, int], drawn: int) -> str:
    told = (
        f"{row} against {column}: {outcome[0]} won, {outcome[1]} lost, {drawn} drawn. "
        f"The ratings expect {100 * expected:.0f} %."
    )
    kind = "win" if rate >= 0.5 else "loss"
    return f'<td class="{kind}" style="--p:{150 * abs(rate - 0.5):.0f}%" title="{words(told)}">{100 * rate:.0f}</td>'


def _map(
    title: str, told: str, names: Sequence[str], labels: Mapping[str, str], cell: Callable[[str, str], str]
) -> str:
    numbers = "".join(
        f'<th scope="col" title="{words(labels[name])}">{number}</th>' for number, name in enumerate(names, 1)
    )
    fitting = shortened(labels[name] for name in names)
    rows = "".join(
        f'<tr><th scope="row" title="{words(labels[name])}"><b>{number}</b> {words(fitting[labels[name]])}</th>'
        + "".join('<td class="self"></td>' if name == other else cell(name, other) for other in names)
        + "</tr>"
        for number, name in enumerate(names, 1)
    )
    return (
        f'<section class="card map"><h3>{title}</h3><p class="dim">{told}</p><div class="scroll"><table class="heat" '
        f'aria-label="{title} by pair"><thead><tr><td></td>{numbers}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></section>"
    )


# ---- the list of pairs


def pairs_table(duels: Sequence[Duel], labels: Mapping[str, str]) -> str:
    """Which pairs are decided, and how many votes the others still need; first those that need the fewest."""
    if not duels:
        return '<p class="empty">No two of these models have met yet.</p>'
    decided = sum(duel.decided for duel in duels)
    order = sorted(duels, key=_urgency)
    rows = "".join(_pair(duel, labels) for duel in order[:MOST_PAIRS])
    columns = (("Pair", ""), ("Won", _NUMBER), ("Drawn", _NUMBER), ("Evidence", _NUMBER), ("Decided?", ""))
    head = "".join(f"<th scope='col'{kind}>{text}</th>" for text, kind in columns)
    more = f" The first {MOST_PAIRS} are listed." if len(order) > MOST_PAIRS else ""
    return (
        f"<section><h3>{decided} of {len(duels)} pairs {'is' if len(duels) == 1 else 'are'} decided</h3>"
        '<div class="scroll card"><table class="grid pairs" aria-label="Pairs"><thead>'
        f"<tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="note dim">Evidence is the fortune of somebody who bet 1 that the two do not win equally often: from '
        f"{DECIDED:.0f} on the pair is decided, however often one looked. Only battles between the two count.{more}</p>"
        "</section>"
    )


def _urgency(duel: Duel) -> tuple[int, float]:
    """First what can be decided soonest, then what is decided, then what is out of sight."""
    if duel.decided:
        return 1, -duel.e_value
    return (0, duel.votes_needed) if duel.votes_needed is not None else (2, -duel.e_value)


def _pair(duel: Duel, labels: Mapping[str, str]) -> str:
    a, b, won, lost = duel.a, duel.b, duel.wins, duel.losses
    if lost > won:
        a, b, won, lost = b, a, lost, won
    return (
        f'<tr><th scope="row"><span class="name">{words(labels[a])}</span> <span class="dim">'
        f"{'beats' if duel.decided else 'leads' if won > lost else 'and'}</span> {words(labels[b])}</th>"
        f'<td class="num" data-label="won">{won}{DASH}{lost}</td><td class="num" data-label="drawn">{_drawn(duel)}</td>'
        f'<td class="num" data-label="evidence">{evidence(duel.e_value)}</td>'
        f'<td class="word">{_verdict(duel)}</td></tr>'
    )


def _verdict(duel: Duel) -> str:
    if duel.decided:
        return '<span class="state" data-state="done"><i class="dot"></i>decided</span>'
    if duel.votes_needed is None:
        return '<span class="dim" title="They win about equally often">not in sight</span>'
    votes = f"{duel.votes_needed:,} more vote{'' if duel.votes_needed == 1 else 's'}"
    return f'<span title="If they fall as before">about {votes}</span>'


def evidence(value: float) -> str:
    """An e-value for people."""
    if value >= 1000:
        return "over 1,000"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _drawn(duel: Duel) -> int:
    return duel.ties + duel.both_bad


def _votes(duel: Duel) -> int:
    return duel.wins + duel.losses + duel.ties + duel.both_bad
