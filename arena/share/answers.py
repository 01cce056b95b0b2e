"""Answers side by side: what was asked, who said what, and how it was found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from markdown_it import MarkdownIt
from msgspec import Struct

from arena.share.page import page


class Answer(Struct, frozen=True):
    """One answer. `facts` stand below its name, `note` below its text; `mark` says how it was found."""

    name: str
    text: str
    facts: str = ""
    note: str = ""
    mark: str = ""
    best: bool = False


class Round(Struct, frozen=True):
    """A prompt and the answers to it."""

    prompt: str
    answers: tuple[Answer, ...]


def answers_page(title: str, told: Sequence[str], rounds: Sequence[Round], now: datetime | None = None) -> str:
    """One document with all rounds. Everything in it is taken as plain text, the answers as Markdown without HTML."""
    # pictures would be fetched from elsewhere; the links go nowhere but to the web, when somebody follows them
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    markdown.disable("image")
    body = "\n".join(_round(number, each, len(rounds), markdown) for number, each in enumerate(rounds, 1))
    return page(title, told, body, now)


def _round(number: int, one: Round, of: int, markdown: MarkdownIt) -> str:
    head = f"<h2>Prompt {number}</h2>" if of > 1 else "<h2>Prompt</h2>"
    said = "\n".join(_answer(each, markdown) for each in one.answers)
    return (
        f'<section>{head}\n<p class="prompt">{escape(one.prompt)}</p>\n<div class="answers">\n{said}\n</div></section>'
    )


def _answer(answer: Answer, markdown: MarkdownIt) -> str:
    mark = f' <span class="mark">{escape(answer.mark)}</span>' if answer.mark else ""
    facts = f'<p class="quiet">{escape(answer.facts)}</p>' if answer.facts else ""
    note = f'<p class="quiet note">{escape(answer.note)}</p>' if answer.note else ""
    kind = ' class="best"' if answer.best else ""
    said = markdown.render(answer.text) if answer.text else '<p class="quiet">No answer.</p>'
    return f'<article{kind}><h3>{escape(answer.name)}{mark}</h3>{facts}<div class="said">{said}</div>{note}</article>'
