"""The doors that lead to an endpoint, each asked the same way: one faulty column among healthy ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from arena.types import ChatMessage
from arena.ui.callers import NOBODY
from arena.ui.conversation import Conversations, View, Views
from arena.ui.lineup import ColumnChoice
from arena.ui.markdown import safe_markdown
from arena.ui.sessions import Asking, Session, Sessions
from tests.fake_ollama import text_of
from tests.faults.serving import ServedArena
from tests.faults.table import Fault

HELLO = [{"role": "user", "content": "Hello!"}]
GOOD_TOKENS = 40
SEED_FIGURES = ("tokens", "duration_s", "tokens_per_sec")
FAULTY = "B"


class Told(Struct, frozen=True):
    """What one column said: its text, and its error's code and words, if any."""

    text: str
    code: str = ""
    error: str = ""


class Outcome(Struct, frozen=True):
    """What came back through a door: every column, and the request that asked for it (unknown on the page)."""

    columns: dict[str, Told]
    request_id: str | None = None


def good_model(seed: int) -> str:
    """A healthy neighbour; each seed says something else."""
    return f"fx-ok:n-{GOOD_TOKENS}_seed-{seed}"


def neighbours(letters: str) -> dict[str, Told]:
    """What the healthy columns say, alone or beside a faulty one."""
    return {letter: Told(text_of(GOOD_TOKENS, seed)) for seed, letter in enumerate(letters, 1) if letter != FAULTY}


def _request(fault: Fault, letters: str) -> dict[str, Any]:
    instances = [
        {"id": letter, "model": fault.model, "endpoint": fault.endpoint}
        if letter == FAULTY
        else {"id": letter, "model": good_model(seed), "endpoint": "fake"}
        for seed, letter in enumerate(letters, 1)
    ]
    return {"history": HELLO, "model_instances": instances}


def chat(arena: ServedArena, fault: Fault) -> Outcome:
    """POST /api/chat with two columns."""
    answer = arena.ask("POST", "/api/chat", _request(fault, "AB"))
    assert answer.status == 200
    body = answer.json()
    columns = {}
    for name, entry in body["results"].items():
        assert entry["response"] == entry["assistant"]
        assert all(isinstance(entry["metrics"][figure], int | float) for figure in SEED_FIGURES)
        columns[name] = Told(entry["response"], entry.get("error_code") or "", entry["error"] or "")
    assert body["errors"] == {name: column.error for name, column in columns.items() if column.error}
    return Outcome(columns, answer.request_id)


def stream_chat(arena: ServedArena, fault: Fault) -> Outcome:
    """POST /api/stream_chat with eight columns; each ends with exactly one last line."""
    answer = arena.ask("POST", "/api/stream_chat", _request(fault, "ABCDEFGH"))
    assert answer.status == 200
    texts: dict[str, str] = {}
    columns: dict[str, Told] = {}
    for line in answer.lines():
        name = line["instance_id"]
        assert name not in columns, "a line after the last"
        texts[name] = texts.get(name, "") + line["token"]
        if line["done"]:
            assert all(isinstance(line["metrics"][figure], int | float) for figure in SEED_FIGURES)
            columns[name] = Told(texts[name], line.get("error_code", ""), line.get("error", ""))
    assert set(texts) == set(columns), "a column without an end"
    return Outcome(columns, answer.request_id)


def page(arena: ServedArena, fault: Fault) -> Outcome:
    """A send of three columns from the page; what every column shows last is what became of it."""
    letters = "ABC"
    choices = {
        letter: ColumnChoice(fault.model if letter == FAULTY else good_model(seed))
        for seed, letter in enumerate(letters, 1)
    }
    session = Sessions(letters).of("a page")
    session.visible = list(letters)
    shown = arena.run(_sent(Conversations(arena.arena), session, Asking("Hello!", (), choices, "", "together")))
    assert session.busy == []
    columns = {}
    for letter in letters:
        turn = session.columns[letter].last
        assert turn is not None
        assert turn.prompt == ChatMessage("user", "Hello!")
        error = turn.reply.error
        assert bool(shown[letter].notice) == (error is not None), "an error is shown in its own column"
        assert _said(shown[letter]) == safe_markdown(turn.reply.text), "what was said stays, whatever came after it"
        columns[letter] = Told(turn.reply.text, error.code if error else "", error.message if error else "")
    return Outcome(columns)


async def _sent(conversations: Conversations, session: Session, asking: Asking) -> Views:
    """What every column shows at the end of a send, followed as the page's script does.

    A column that is in no frame any more has ended and is settled at once; the others at the end of the stream.
    """
    assert conversations.take(session, asking) is None
    opened = await conversations.open(session)
    assert set(opened) == set(session.visible)
    settled: Views = {}

    def settle() -> None:
        views = {letter: view for letter, view in conversations.ended(session).items() if view.chat is not None}
        assert not views.keys() & settled.keys(), "an answer ends once"
        settled.update(views)

    async with aclosing(conversations.answer(session, NOBODY)) as frames:
        async for growing in frames:
            assert not growing.keys() & settled.keys(), "a frame after the end"
            if growing.keys() < opened.keys() - settled.keys():
                settle()
    settle()
    assert set(settled) == set(opened), "a column without an end"
    return settled


def _said(view: View) -> str:
    """The answer in a column's chat, without its thoughts."""
    return "".join(
        message["content"]
        for message in view.chat or []
        if message["role"] == "assistant" and not message.get("metadata")
    )


Door = Callable[[ServedArena, Fault], Outcome]
DOORS: dict[str, tuple[Door, str]] = {
    "chat": (chat, "AB"),
    "stream_chat": (stream_chat, "ABCDEFGH"),
    "page": (page, "ABC"),
}
