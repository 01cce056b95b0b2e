"""The vote in the compare tab: who can be voted for, what is kept, and what the columns show."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import gradio as gr
import pytest

from arena.arena import Arena
from arena.errors import ArenaError
from arena.types import Metrics
from arena.ui.column_events import ColumnEvents
from arena.ui.compare import draw_compare
from arena.ui.direct import comparable, control, judged
from arena.ui.lineup import ColumnChoice
from arena.ui.page import Page
from arena.ui.sessions import Turn
from tests.api.conftest import settings_for
from tests.fake_ollama import FakeOllama
from tests.ui.pieces import failed, session_with, turn, with_manifest

PATIENCE_S = 10.0
REQUEST = cast(gr.Request, SimpleNamespace(session_hash="s", request=None))


def whole(letter: str, text: str = "Yes.", **more: object) -> Turn:
    """A turn that was answered."""
    return with_manifest(turn(letter, text, metrics=Metrics(tokens=3), **more))  # type: ignore[arg-type]


# ---- who can be voted for


def test_two_whole_answers_to_the_same_prompt_can_be_compared() -> None:
    session = session_with(A=[whole("A")], B=[turn("B", "Half", error=failed("stopped"))], C=[whole("C")])
    assert comparable(session) == ["A", "C"]
    assert control(session, "B") == ""
    button = control(session, "C")
    assert re.search(r'<button type="button" .*data-action="best" aria-label="Vote: C is the best answer"', button)


@pytest.mark.parametrize(
    "columns",
    [
        {"A": [whole("A")]},
        {"A": [whole("A")], "B": []},
        {"A": [], "B": []},
        {"A": [whole("A")], "B": [turn("B", "Still")]},
        {"A": [whole("A")], "B": [whole("B", prompt="Else?")]},
        {"A": [whole("A")], "B": [whole("B", "")]},
        {"A": [whole("A")], "B": [turn("B", "No manifest", metrics=Metrics())]},
    ],
)
def test_who_has_nothing_to_compare_with_has_no_button(columns: dict[str, list[Turn]]) -> None:
    session = session_with(**columns)
    assert comparable(session) == []
    assert control(session, "A") == ""


def test_what_was_asked_later_of_one_column_alone_is_not_compared() -> None:
    alone = whole("A", prompt="And?")
    alone.asked_s = 9.0
    assert comparable(session_with(A=[whole("A"), alone], B=[whole("B")])) == []


def test_all_turns_are_judged_where_they_are_the_same_and_whole() -> None:
    def columns(first_of_b: Turn) -> dict[str, list[Turn]]:
        return {"A": [whole("A", prompt="1?"), whole("A", "Two")], "B": [first_of_b, whole("B", "Too")]}

    silent = turn("B", error=failed("timeout"), prompt="1?")
    for first, prompts in (
        (whole("B", prompt="1?"), ["1?", "Why?"]),
        (whole("B", prompt="Other?"), ["Why?"]),
        (silent, ["Why?"]),
        (turn("B", "Half", error=failed("stopped"), prompt="1?"), ["Why?"]),
    ):
        session = session_with(**columns(first))
        told, judged_columns = judged(session, comparable(session))
        assert told == prompts
        assert {len(column.replies) for column in judged_columns} == {len(prompts)}
        assert [column.replies[-1].text for column in judged_columns] == ["Two", "Too"]


# ---- the vote


class Desk:
    """Two columns, asked and answered."""

    def __init__(self, arena: Arena) -> None:
        page = Page(arena)
        self.arena, self.conversations = arena, page.conversations
        with gr.Blocks(analytics_enabled=False):
            self.drawn = draw_compare(3)
        self.events = {
            letter: ColumnEvents(self.drawn, column, page.conversations, page.sessions)
            for letter, column in self.drawn.columns.items()
        }
        self.session = page.sessions.of("s")
        self.session.set_columns([ColumnChoice("fx-ok"), ColumnChoice("fx-ok:n-5")])
        for letter in "AB":
            self.session.columns[letter].turns.append(whole(letter, letter, model=f"m-{letter}"))

    async def vote(self, letter: str) -> dict[str, str]:
        """Vote for a column; the status lines that come back."""
        updates = await self.events[letter].prefer(REQUEST)
        return {name: updates[column.status] for name, column in self.drawn.columns.items() if column.status in updates}


@pytest.fixture
async def desk(fake: FakeOllama, tmp_path: Path) -> AsyncIterator[Desk]:
    arena = Arena(settings_for(fake.url, data=tmp_path))
    yield Desk(arena)
    arena.store.close()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    words: list[str] = []
    monkeypatch.setattr(gr, "Info", words.append)
    monkeypatch.setattr(gr, "Warning", words.append)
    return words


async def test_a_vote_is_kept_and_shown(desk: Desk, said: list[str]) -> None:
    shown = desk.conversations.figures_again(desk.session)
    assert all('data-action="best"' in (view.status or "") for view in shown.values())
    statuses = await desk.vote("B")
    assert said == ["Thanks! B is kept as the best of 2."]
    assert "your best" in statuses["B"]
    assert "best" not in statuses["A"]
    ((_, vote),) = desk.arena.store.votes()
    assert (vote.model_a, vote.model_b, vote.verdict, vote.blind) == ("m:latest", "m:latest", "b", False)
    battle = desk.arena.store.battle(vote.battle_id)
    assert battle is not None
    assert battle.prompts == ("Why?",)
    await desk.vote("A")
    assert "for another one" in said[-1]
    assert desk.arena.store.last_number() == 1


async def test_an_answer_asked_again_may_be_voted_on_again(desk: Desk, said: list[str]) -> None:
    await desk.vote("B")
    desk.session.columns["A"].turns[-1] = whole("A", "Another", model="m-A")
    assert "data-action" in control(desk.session, "A")
    await desk.vote("A")
    assert said[-1].startswith("Thanks! A")
    assert control(desk.session, "B") == ""
    assert desk.arena.store.last_number() == 2


async def test_a_late_click_and_a_store_that_fails_are_told(desk: Desk, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "arena.sqlite3").mkdir()
    assert "data-action" in (await desk.vote("A"))["A"], "it can be tried again"
    desk.session.visible.remove("B")
    assert "data-action" not in (await desk.vote("A"))["A"]
    assert "safe to try again" in said[0]
    assert "nothing to compare" in said[1]
    with pytest.raises(ArenaError):
        await desk.conversations.prefer(desk.session, "C", None)  # type: ignore[arg-type]
