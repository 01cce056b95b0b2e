"""The battle tab's pieces of HTML: who is who, the ballot, the reveal. Every word from outside is escaped here.

Before the vote nothing in them differs from one side to the other but its letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import msgspec

from arena.battle import RevealedSide
from arena.errors import ArenaError
from arena.leaderboard import places
from arena.ratings import Rating
from arena.streaming import Reply
from arena.types import ChatMessage, Manifest, Metrics, ModelInstance
from arena.ui import parts
from arena.ui.battle_table import Table
from arena.ui.markdown import safe_markdown
from arena.ui.parts import DASH
from arena.ui.sessions import Turn

Message = dict[str, Any]

WELCOME: Final = (
    "<b>One prompt, and answers without names.</b> Ask something, read them, vote. Then you see who wrote them, "
    "and the leaderboard learns from it."
)
OVER: Final = "This battle is over without a vote: not every side could answer. Nobody is told who they were."
_FURTHER: Final = '<p class="dim">Not sure yet? Ask again: each side goes on from its own answers.</p>'
GONE: Final = (
    "The server does not have this battle any more, so there is nothing to vote on, and nobody is told who they were. "
    "Ask again to begin another one."
)
_SHARES: Final = ("", "a half", "a third", "a quarter", "a fifth", "a sixth", "a seventh")
_ORDER: Final = "Press the sides in order, best first."
_HOW_TWO: Final = "Press 1 if A is better, 2 if B is better, 0 for a tie, 9 if both are bad."
_HOW_MORE: Final = (
    "Press the sides' numbers in order, best first, and Enter. Equals makes the next one equal to the last, "
    "0 makes all equal, 9 says that all are bad."
)
_VERDICTS: Final = {"a": "A is better", "b": "B is better", "tie": "a tie", "both_bad": "both are bad"}


def element(side: str) -> str:
    """What the page's elements are called after a side."""
    return f"battle-{side}"


def chat(table: Table, side: str) -> list[Message]:
    """One side's conversation. An answer that grows is not in it."""
    messages: list[Message] = []
    growing = table.phase == "answering"
    for at, (prompt, text) in enumerate(zip(table.prompts, table.said.get(side, ()), strict=False), 1):
        messages.append({"role": "user", "content": safe_markdown(prompt)})
        if growing and at == len(table.prompts):
            break
        if text or table.phase != "failed":
            told = safe_markdown(text) or "*This side ended without a word.*"
            messages.append({"role": "assistant", "content": told})
    return messages


# ---- the sides


def head(table: Table, side: str) -> str:
    """Who a side is: its letter, and after the vote its model and settings."""
    letter, known = side.upper(), _revealed(table).get(side)
    if known is None:
        why = "stays hidden" if table.phase == "failed" else "hidden until you vote"
        return f'<div class="colhead who"><b>Model {letter}</b><span class="chip">{why}</span>{_turns(table)}</div>'
    model = known.model
    settings = known.label.removeprefix(model).removeprefix(", ")
    chips = [f'<span class="chip set">{escape(settings)}</span>'] if settings else []
    chips += [f'<span class="chip">{escape(fact)}</span>' for fact in _facts(known)]
    chosen = '<span class="mark">your choice</span>' if side in _best(table) else ""
    kind = "colhead who many" if len(table.sides) > 2 else "colhead who"
    told = f'<b>{escape(model)}</b>{chosen}<span class="chips">{"".join(chips)}</span>'
    return f'<div class="{kind}">{told}{_turns(table)}</div>'


def _turns(table: Table) -> str:
    """Buttons that bring a side into sight, for screens that show one at a time; the style sheet marks a side's own."""
    told = "".join(
        f'<button type="button" data-to="{side}" aria-label="Show side {side.upper()}">{side.upper()}</button>'
        for side in table.sides
    )
    return f'<span class="turns">{told}</span>'


def status(table: Table, now_s: float) -> str:
    """The status line of every side before the vote: the same for all of them."""
    if table.phase == "answering":
        writing = any(texts[-1] for texts in table.said.values())
        waiting = f"waiting until {_all(table).lower()} have begun"
        word, state = ("writing", "writing") if writing else (waiting, "reading")
        figures = f'<span class="fig">{max(0.0, now_s - table.asked_s):.0f} s</span>'
        return _stat(state, word, figures, live=True)
    words = {"idle": ("empty", ""), "failed": ("failed", "no result"), "ready": ("done", "complete")}
    state, word = words.get(table.phase, ("done", "complete"))
    return _stat(state, word)


def _stat(state: str, word: str, figures: str = "", *, live: bool = False) -> str:
    told = f'<span class="state"><i class="dot"></i>{word}</span>' if word else ""
    return f'<div class="stat" data-state="{state}" data-live="{str(live).lower()}">{told}{figures}</div>'


def figures(table: Table) -> dict[str, str]:
    """What each side's last answer cost, after the vote: the status lines of the compare tab, on one scale."""
    turns = {side: _measured(side, known) for side, known in _revealed(table).items()}
    scale_s = max((parts.length_s(turn.figures) for turn in turns.values()), default=0.0)
    return {side: parts.status(turn, 0.0, scale_s) for side, turn in turns.items()}


def _measured(side: str, known: RevealedSide) -> Turn:
    metrics = msgspec.convert(known.metrics[-1], Metrics)
    reply = Reply(side, known.answers[-1], metrics=metrics)
    return Turn(ChatMessage("user", ""), "", (), ModelInstance(side, known.model), reply, 0.0)


def _facts(known: RevealedSide) -> list[str]:
    manifest = msgspec.convert(known.manifests[-1], Manifest)
    return [fact for fact in (manifest.parameter_size, manifest.quantization, known.endpoint) if fact]


# ---- the ballot


def ballot(table: Table) -> str:
    """What stands between the answers and the prompt: what to do now, the vote, or what came of it."""
    body = {"idle": _idle, "answering": _answering, "ready": _open, "failed": _failed, "voted": _reveal}[table.phase]
    told = f'<p class="told" role="alert">{escape(table.told)}</p>' if table.told else ""
    facts = f' data-battle="{table.battle_id}"' if table.battle_id else ""
    if table.phase == "idle":
        facts += f' data-most="{table.most}"'
    if best := _best(table):
        facts += f' data-best="{best[0]}"'
    return (
        f'<section class="ballot" data-phase="{table.phase}" data-turns="{len(table.prompts)}"{facts} '
        f'data-say="{escape(say(table))}" aria-label="Ballot" tabindex="-1">{told}{body(table)}</section>'
    )


def say(table: Table) -> str:
    """What a screen reader is told of the state that the ballot has come to."""
    match table.phase:
        case "answering":
            return f"{_all(table)} sides answer."
        case "ready":
            how = _HOW_TWO if len(table.sides) == 2 else _HOW_MORE
            return f"{table.told or f'{_all(table)} answers are complete.'} {how}"
        case "failed":
            return table.told or OVER
        case "voted":
            who = (f"{side.upper()} was {known.label}" for side, known in _revealed(table).items())
            return f"{_verdict(table)} {'. '.join(who)}."
    return ""


def _all(table: Table) -> str:
    return "Both" if len(table.sides) == 2 else f"All {len(table.sides)}"


def _idle(table: Table) -> str:
    return f'<p class="lead">{WELCOME}</p>'


def _answering(table: Table) -> str:
    lead = f"{_all(table)} sides answer, shown at one pace whoever is quicker. The vote opens when all is said."
    return f'<div class="acts"><p class="lead">{lead}</p>{_act("stop", "Stop", "Escape", "Esc")}</div>'


def _open(table: Table) -> str:
    if len(table.sides) > 2:
        return _ranking(table) + _retry(table) + _left(table)
    votes = (("a", "A is better", "1"), ("tie", "Tie", "0"), ("both_bad", "Both bad", "9"), ("b", "B is better", "2"))
    buttons = "".join(_verdict_button(verdict, text, key) for verdict, text, key in votes)
    vote = f'<div class="verdicts" role="group" aria-label="Your vote">{buttons}</div>'
    return f"{vote}{_retry(table) or _FURTHER}{_left(table)}"


def _retry(table: Table) -> str:
    """A way to ask again what came to nothing."""
    return f'<div class="acts">{_act("retry", "Ask it again", "r", "R")}</div>' if table.again else ""


def _left(table: Table) -> str:
    """A word where the votes of the day come to an end."""
    if table.votes_left is None:
        return ""
    told = "This is your last vote" if table.votes_left == 1 else f"You have {table.votes_left} votes left"
    return f'<p class="dim">{told} today; at midnight UTC a new day begins.</p>'


def _ranking(table: Table) -> str:
    """More than two sides are put in order, best first; the page's script keeps the order until it is whole."""
    choices = "".join(
        f'<button type="button" class="verdict v-{side}" data-rank="{side}" data-key="{number}" '
        f'aria-keyshortcuts="{number}"><kbd>{number}</kbd>{side.upper()}<span class="place"></span></button>'
        for number, side in enumerate(table.sides, 1)
    )
    equal = _verdict_button("tie", "All equal", "0") + _verdict_button("both_bad", "All bad", "9")
    acts = (
        _ui("equal", "Next is equal to the last", "=", "=")
        + _ui("undo", "Undo", "Backspace", "\N{LEFTWARDS ARROW}")
        + '<button type="button" class="act primary" data-action="rank" data-order="" data-key="Enter" '
        'aria-keyshortcuts="Enter" disabled><kbd>Enter</kbd>Vote</button>'
    )
    return (
        f'<div class="verdicts many" role="group" aria-label="Your vote, best side first">{choices}{equal}</div>'
        f'<div class="acts"><p class="order dim" aria-live="polite">{_ORDER}</p>{acts}</div>'
    )


def _verdict_button(verdict: str, text: str, key: str) -> str:
    return (
        f'<button type="button" class="verdict v-{verdict}" data-action="vote" data-verdict="{verdict}" '
        f'data-key="{key}" aria-keyshortcuts="{key}"><kbd>{key}</kbd>{text}</button>'
    )


def _failed(table: Table) -> str:
    why = "" if table.told else f'<p class="lead">{OVER}</p>'
    return f'{why}<div class="acts">{_nexts()}</div>'


def _reveal(table: Table) -> str:
    kept = _counted(table) if table.outcome and table.outcome.rated else _unrated(table)
    lead = f'<p class="lead"><b>{escape(_verdict(table))}</b> {kept}</p>'
    return f'{lead}{standings(table)}<div class="acts">{_nexts()}{_pages(table)}</div>'


def _verdict(table: Table) -> str:
    """The vote in words, by the sides' letters."""
    outcome = table.outcome
    if outcome is None:
        return ""
    if len(table.sides) == 2:
        return f"Your vote: {_VERDICTS.get(str(outcome.verdict), '')}."
    if not outcome.ranks:
        return "Your vote: all are bad."
    levels = sorted(set(outcome.ranks.values()))
    if len(levels) == 1:
        return "Your vote: all are equal."
    order = (" = ".join(side.upper() for side, at in outcome.ranks.items() if at == level) for level in levels)
    return f"Your vote: {' > '.join(order)}."


def _counted(table: Table) -> str:
    """What the vote counts for the ratings: the less, the oftener somebody compares two models on one prompt."""
    if not table.repeats:
        return "It is kept and counts for the ratings."
    if len(table.sides) > 2:
        return "It is kept and counts less: you have compared some of these on this prompt before."
    share = _SHARES[table.repeats] if table.repeats < len(_SHARES) else "an eighth"
    return f"It is kept and counts {share}: you have compared these two on this prompt before."


def _unrated(table: Table) -> str:
    if len({known.configuration for known in _revealed(table).values()}) == 1:
        return "It is kept, but not rated: all sides were the same."
    return (
        "It is kept, but not rated: an answer gave its model away or was cut before its first word, or who fights "
        "could be foreseen."
    )


def standings(table: Table) -> str:
    """How the ratings of those who fought stand after the vote; empty until they are known."""
    if not table.ratings:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><span class="letter hue-{side}">{side.upper()}</span>{escape(known.model)}</th>'
        f"{_rating(table.ratings.get(known.model))}</tr>"
        for side, known in _revealed(table).items()
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Model", "Rating", "95 % interval", "Rank", "Votes"))
    return f'<table class="standings"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _rating(row: Rating | None) -> str:
    if row is None:
        return f'<td class="dim" colspan="4">{DASH} not rated yet</td>'
    few = ' <span class="dim">preliminary</span>' if row.preliminary else ""
    cells = (f"{row.rating:.0f}", f"{row.lower:.0f} to {row.upper:.0f}", places(row, DASH), f"{row.votes:,}{few}")
    return "".join(f'<td class="num">{cell}</td>' for cell in cells)


def _nexts() -> str:
    return _act("next", "Next battle", "n", "N", "primary") + _act("again", "Same prompt, new draw", "r", "R")


def _pages(table: Table) -> str:
    """The battle as a file to send around; the browser is whom the server gives it to."""
    page = f"api/battles/{table.battle_id}/page"
    return (
        f'<a class="act" href="{page}" download="battle.html">Save as a page</a>'
        f'<a class="act" href="{page}?masked=true" download="battle-masked.html">Save without names</a>'
    )


def _act(action: str, text: str, key: str, shown: str, kind: str = "") -> str:
    return (
        f'<button type="button" class="act {kind}" data-action="{action}" data-key="{key}" '
        f'aria-keyshortcuts="{shown}"><kbd>{shown}</kbd>{text}</button>'
    )


def _ui(does: str, text: str, key: str, shown: str) -> str:
    """A button for the page's script alone."""
    return (
        f'<button type="button" class="act" data-battle-ui="{does}" data-key="{key}" aria-keyshortcuts="{key}">'
        f"<kbd>{shown}</kbd>{text}</button>"
    )


# ---- words


def not_kept(why: str, tries: int) -> str:
    """What the user is told of a vote that the store could not keep."""
    again = f" Tried {tries} times." if tries > 1 else ""
    return f"Your vote could not be kept, and is not lost: press it again in a moment. {why}{again}"


def not_drawn(error: ArenaError, sides: int) -> str:
    """What the user is told of a battle that could not begin, with what helps."""
    if error.code != "too_few_contestants":
        return error.message
    fewer = "choose fewer sides, " if sides > 2 else ""
    return f"{error.message}. Pull another one in the Models tab, {fewer}or let columns of the Compare tab fight."


def kept_note(open_to_all: bool) -> str:
    """Whether others can read what is asked here; `open_to_all`: who opens the page may have all conversations."""
    who = "Whoever may open this page" if open_to_all else "Only who runs this server"
    return f"Battles you vote on are kept here, prompts and answers included. {who} can export them."


def too_few(
    models: Sequence[str], *, starting: bool = False, limited: bool = False, error: ArenaError | None = None
) -> str:
    """What is missing for a battle; empty where nothing is.

    `starting`: the engine is; `limited`: by a key's list; `error`: why nobody can say which models there are.
    """
    if len(models) > 1:
        return ""
    if starting:
        return "The embedded engine is starting; its models can fight in a moment."
    if limited:
        have = f"only {models[0]}" if models else "none"
        return f"Of the models here your key may use {have}, and a battle needs two. Ask the operator for more."
    if error is not None:
        return f"No model server tells which models it has, and a battle needs two: {error.message}."
    have = f"Only {models[0]} is installed" if models else "No model is installed"
    return (
        f"{have}, and a battle needs two. Pull another one in the Models tab, or let columns of the Compare tab fight: "
        "that may be one model with two settings."
    )


def _revealed(table: Table) -> Mapping[str, RevealedSide]:
    return table.outcome.revealed or {} if table.outcome is not None else {}


def _best(table: Table) -> tuple[str, ...]:
    """The sides that won, if any did."""
    outcome = table.outcome
    if outcome is None:
        return ()
    if outcome.verdict in table.sides:
        return (str(outcome.verdict),)
    ranks = outcome.ranks or {}
    return tuple(side for side, at in ranks.items() if at == 1) if len(set(ranks.values())) > 1 else ()
