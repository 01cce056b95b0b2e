"""The comparison as a file: JSON for programs, Markdown for people, HTML to send around."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from arena import __version__
from arena.battle import without_names
from arena.kept import FORMAT
from arena.share import Answer, Round, answers_page
from arena.types import Metrics
from arena.ui.kept import conversation_of
from arena.ui.markdown import in_line, quoted
from arena.ui.parts import DASH
from arena.ui.sessions import Session, Turn


def as_json(session: Session, now: datetime | None = None) -> str:
    """All visible columns with all their turns, as indented JSON."""
    columns = msgspec.to_builtins(conversation_of(session).columns)
    document = {"format": FORMAT, "app_version": __version__, "exported_at": _stamp(now), "columns": columns}
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_markdown(session: Session, now: datetime | None = None) -> str:
    """All visible columns, prompt by prompt, with a table of figures and the manifests."""
    lines = ["# Comparison", "", f"Made with Ollama Arena {__version__}, {_stamp(now)}", ""]
    rounds = max((len(session.columns[letter].turns) for letter in session.visible), default=0)
    for index in range(rounds):
        turns = [
            (letter, session.columns[letter].turns[index])
            for letter in session.visible
            if len(session.columns[letter].turns) > index
        ]
        lines += _round(index + 1, turns)
    return "\n".join(lines).rstrip() + "\n"


def _round(number: int, turns: list[tuple[str, Turn]]) -> Iterable[str]:
    prompts = {turn.shown for _, turn in turns}
    yield from (f"## {number}. Prompt", "")
    if len(prompts) == 1:
        yield from _prompt(turns[0][1])
    yield from (
        "| | Model | Settings | Tokens | Tokens/s | First token | Load | Notes |",
        "|---|---|---|---:|---:|---:|---:|---|",
    )
    yield from (_row(letter, turn) for letter, turn in turns)
    yield ""
    for letter, turn in turns:
        yield from (f"### {letter}: {in_line(turn.instance.model)}", "")
        if len(prompts) > 1:
            yield from _prompt(turn)
        yield from _answer(turn)


def as_html(session: Session, *, masked: bool = False, now: datetime | None = None) -> str:
    """All visible columns, prompt by prompt, as one page that needs nothing else.

    `masked` leaves out which models they are, what they cost, and where an answer names one of them.
    """
    turns = {letter: session.columns[letter].turns for letter in session.visible}
    models = sorted({name for told in turns.values() for turn in told for name in _names(turn)}) if masked else []
    rounds = []
    for index in range(max(map(len, turns.values()), default=0)):
        asked: dict[str, list[Answer]] = {}
        for letter, told in turns.items():
            if len(told) > index:
                asked.setdefault(told[index].shown, []).append(_shared(letter, told[index], models))
        rounds += [Round(prompt, tuple(answers)) for prompt, answers in asked.items()]
    lines = ["The models are not named here"] if masked else []
    return answers_page("Comparison", lines, rounds, now)


def as_masked(session: Session) -> str:
    """The same page without what tells which models they are."""
    return as_html(session, masked=True)


def _names(turn: Turn) -> Iterable[str]:
    """What gives the model away: an alias, what it stood for, and its family."""
    yield turn.instance.model
    if turn.reply.manifest is not None:
        yield turn.reply.manifest.model
        if turn.reply.manifest.family:
            yield turn.reply.manifest.family


def _shared(letter: str, turn: Turn, hidden: list[str]) -> Answer:
    """`hidden` are the models whose names must not be told, if any."""
    best = turn.ballot == "best"
    mark, text = "★ best" if best else "", turn.reply.text
    if hidden:
        return Answer(letter, without_names(text, hidden), mark=mark, best=best)
    metrics = turn.figures or Metrics()
    reliable = metrics.rate_reliable and metrics.tokens_per_sec is not None
    figures = (
        "" if metrics.tokens is None else f"{metrics.tokens:,} tokens",
        f"{metrics.tokens_per_sec:.1f} tokens/s" if reliable else "",
        "" if metrics.ttft_s is None else f"first token {_seconds(metrics.ttft_s)}",
        "" if turn.reply.error is None else f"{turn.reply.error.code}: {turn.reply.error.message}",
    )
    note = ", ".join(filter(None, figures))
    return Answer(f"{letter}: {turn.instance.model}", text, _options(turn), note, mark, best)


def _options(turn: Turn) -> str:
    return ", ".join(f"{key} {value}" for key, value in turn.instance.options.sent().items()) or "model's own"


def _prompt(turn: Turn) -> Iterable[str]:
    yield from (quoted(turn.shown), "")
    if turn.attachments:
        yield from ("Attached: " + ", ".join(in_line(item.name) for item in turn.attachments), "")


def _answer(turn: Turn) -> Iterable[str]:
    reply = turn.reply
    if reply.thinking:
        yield from ("<details><summary>Thinking</summary>", "", quoted(reply.thinking), "", "</details>", "")
    yield from (quoted(reply.text) if reply.text else "*No answer.*", "")
    if reply.error is not None:
        yield from (f"*{reply.error.code}: {in_line(reply.error.message)}*", "")
    if reply.manifest is not None:
        manifest = json.dumps(msgspec.to_builtins(reply.manifest), indent=2, ensure_ascii=False)
        yield from ("<details><summary>Manifest</summary>", "", "```json", manifest, "```", "", "</details>", "")


def _row(letter: str, turn: Turn) -> str:
    metrics = turn.figures or Metrics()
    rate = f"{metrics.tokens_per_sec:.1f}" if metrics.rate_reliable and metrics.tokens_per_sec is not None else DASH
    notes = [
        name
        for holds, name in (
            (metrics.contended, "shared server"),
            (bool(metrics.prompt_cached), "cached prompt"),
            (metrics.cut_by_limit, "cut by limit"),
            (turn.reply.error is not None, turn.reply.error.code if turn.reply.error else ""),
        )
        if holds
    ]
    cells = (
        letter, turn.instance.model, _options(turn), DASH if metrics.tokens is None else str(metrics.tokens), rate,
        _seconds(metrics.ttft_s), _seconds(metrics.load_s), ", ".join(notes),
    )  # fmt: skip
    return "| " + " | ".join(in_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _seconds(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f} s"


def _stamp(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).isoformat(timespec="seconds")
