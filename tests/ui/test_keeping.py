"""Presets and kept conversations on the page: what is kept comes back, and whatever fails is said and loses nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from arena.arena import Arena
from arena.kept import Conversation, KeptColumn, KeptTitle, Preset
from arena.settings import load
from arena.types import Failed, Metrics, ModelInstance, Options
from arena.ui.attachments import Attachment
from arena.ui.callers import caller_of
from arena.ui.compare import CompareParts, Updates, draw_compare
from arena.ui.conversation import Conversations
from arena.ui.direct import comparable
from arena.ui.keeping import Keeping
from arena.ui.keeping_parts import keep_panel, presets_panel, saying
from arena.ui.kept import conversation_of, lineup_of, preset_of, reopen
from arena.ui.lineup import ColumnChoice, Lineup
from arena.ui.sending import Sending
from arena.ui.sessions import Session, Sessions
from tests.fake_ollama import FakeOllama
from tests.ui.pieces import EVIL, FULL, session_with, turn, with_manifest

REQUEST = cast(gr.Request, SimpleNamespace(request=None, session_hash="s", query_params={}))
OWN = ColumnChoice("tiny", Options(temperature=0.3, stop=("END",)), think="low", system="Rhyme.")


def event(action: str, **data: str) -> gr.EventData:
    return gr.EventData(None, {"action": action, **data})


class Desk:
    """The compare tab with its panels, on a started arena."""

    def __init__(self, arena: Arena, drawn: CompareParts) -> None:
        self.arena, self.drawn = arena, drawn
        self.conversations, self.sessions = Conversations(arena), Sessions("ABCDEF")
        self.keeping = Keeping(drawn, self.conversations, self.sessions, arena.kept)
        self.session = self.sessions.of("s")

    def values(self, system: str = "", order: str = "together") -> dict[Any, Any]:
        drawn = self.drawn
        return {drawn.prompt: {"text": "", "files": []}, drawn.system: system, drawn.order: order, drawn.saved: None}

    async def presets(self, action: str, values: dict[Any, Any] | None = None, /, **data: str) -> Updates:
        return await self.keeping.act_on_presets(values or self.values(), REQUEST, event(action, **data))

    async def kept(self, action: str, **data: str) -> Updates:
        return await self.keeping.act_on_kept(REQUEST, event(action, **data))

    def said(self, updates: Updates) -> str:
        """The word that goes with these updates."""
        panel = updates.get(self.drawn.presets_panel) or updates[self.drawn.keep_panel]
        found = re.search('data-say="([^"]*)"', panel)
        return found[1] if found else ""


@pytest.fixture(scope="module")
def drawn() -> CompareParts:
    """The components, drawn once."""

    async def draw() -> CompareParts:
        with gr.Blocks(analytics_enabled=False):
            return draw_compare(6)

    return asyncio.run(draw())  # inside a loop: Gradio would open one of its own and leave it open


@pytest.fixture
async def desk(fake: FakeOllama, drawn: CompareParts, tmp_path: Path) -> AsyncIterator[Desk]:
    arena = Arena(load(endpoints=(f"fake={fake.url}",), engine="off", data=tmp_path))
    async with arena.running():
        await arena.started()
        yield Desk(arena, drawn)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said about failures."""
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    return said


# ---- there and back


def test_a_line_up_is_the_same_after_it_was_a_preset() -> None:
    lineup = Lineup((OWN, ColumnChoice("big:70b", endpoint="gpu1")), "Be brief.", "one_after_another")
    preset = preset_of(lineup, "AC")
    assert [instance.id for instance in preset.instances] == ["A", "C"]
    assert [instance.system for instance in preset.instances] == ["Rhyme.", None]
    assert lineup_of(preset, 6) == lineup
    assert len(lineup_of(preset, 1).columns) == 1


def test_a_preset_from_elsewhere_is_brought_into_range() -> None:
    preset = Preset((ModelInstance("x", "m", Options(num_ctx=1, seed=2**62)),))
    (choice,) = lineup_of(preset, 6).columns
    assert (choice.options.num_ctx, choice.options.seed) == (16, 2**31 - 1)


def test_a_conversation_is_the_same_after_it_was_kept() -> None:
    picture = Attachment("p.png", "image", 3, "aGk=", "/tmp/p.png")
    broken = Failed("B", "timeout", "Silence.", Metrics(tokens=3))
    session = session_with(
        A=[with_manifest(turn(text="Because", thinking="hm", metrics=FULL, attachments=(picture,)))],
        B=[turn("B", "Be", error=broken), turn("B", "So", metrics=FULL)],
        C=[],
    )
    kept = conversation_of(session)
    other = Sessions("AB").of("other")
    assert reopen(other, kept, 7.0) == ""
    assert other.visible == ["A", "B"], "there is no third one here"
    assert conversation_of(other).columns == kept.columns[:2], "with the digest of a picture that is no longer there"
    assert other.choices["A"] == ColumnChoice("m", Options(temperature=0.3))
    assert [message.content for message in other.columns["B"].history()] == ["Why?", "Be", "Why?", "So"]
    assert not other.busy


def test_a_system_prompt_that_all_share_comes_back_as_shared() -> None:
    session = session_with(A=[turn(metrics=FULL)], B=[turn("B", metrics=FULL)])
    for system in ("Be brief.", None):
        for column in session.columns.values():
            for one in column.turns:
                one.instance = ModelInstance(column.letter, "m", system=system)
        kept = conversation_of(session)
        other = Sessions("AB").of("other")
        assert reopen(other, kept, 0.0) == (system or "")
        assert other.choices["A"].system == ""
    session.columns["A"].turns[0].instance = ModelInstance("A", "m", system="Rhyme.")
    other = Sessions("AB").of("other")
    assert reopen(other, conversation_of(session), 0.0) == ""
    assert (other.choices["A"].system, other.choices["B"].system) == ("Rhyme.", "")


def test_an_answer_that_was_under_way_comes_back_as_stopped() -> None:
    other = Sessions("AB").of("other")
    reopen(other, conversation_of(session_with(A=[turn(text="Bec")])), 0.0)
    error = other.columns["A"].turns[0].reply.error
    assert error is not None
    assert error.code == "stopped"


def test_nobody_votes_on_what_was_reopened() -> None:
    session = session_with(
        A=[with_manifest(turn(text="1", metrics=FULL))], B=[with_manifest(turn("B", "2", metrics=FULL))]
    )
    assert comparable(session) == ["A", "B"]
    other = Sessions("AB").of("other")
    reopen(other, conversation_of(session), 0.0)
    assert comparable(other) == []


def test_columns_are_arranged_anew_without_losing_those_that_stay() -> None:
    session = session_with(A=[turn(metrics=FULL)], B=[turn("B", metrics=FULL)], C=[turn("C")])
    session.close("B")
    session.only = "C"
    session.arrange([ColumnChoice("x"), ColumnChoice("y")])
    assert session.visible == ["A", "B"]
    assert [len(session.columns[letter].turns) for letter in "AB"] == [1, 0], "B begins anew"
    assert session.only is None
    assert not session.columns["C"].busy, "nothing runs for nobody"
    session.only = "A"
    session.arrange([ColumnChoice("x")])
    assert session.only == "A"


@pytest.mark.anyio
async def test_the_text_of_a_file_that_was_kept_is_edited_with_the_prompt(desk: Desk) -> None:
    notes = Attachment("n.txt", "text", 3, "abc", "/tmp/n.txt")
    before = session_with(A=[turn(metrics=FULL, text="1", prompt="--- n.txt ---\nabc", attachments=(notes,))])
    sending = Sending(desk.drawn, desk.conversations, desk.sessions)
    reopen(desk.session, conversation_of(before), 0.0)
    assert sending.edit(REQUEST)[desk.drawn.prompt] == {"text": "--- n.txt ---\nabc", "files": []}


# ---- the panels


def test_the_panels_escape_every_word_from_outside() -> None:
    preset = Preset((ModelInstance("A", "m"),))
    text = presets_panel({EVIL: preset, "b": preset}, confirming=EVIL) + presets_panel({EVIL: preset})
    text += keep_panel([KeptTitle(EVIL, EVIL, EVIL)], EVIL, asked=True) + keep_panel(
        [KeptTitle("1", EVIL, EVIL)], asked=False
    )
    text += saying("", EVIL, 1)
    assert "<img" not in text
    assert "onerror" in text


def test_there_is_nothing_to_keep_before_the_first_prompt() -> None:
    assert 'data-action="keep" disabled' in keep_panel([], asked=False)
    assert 'data-action="keep">' in keep_panel([], asked=True)


# ---- events


@pytest.mark.anyio
async def test_columns_are_saved_set_and_deleted(desk: Desk) -> None:
    desk.session.set_columns([OWN, ColumnChoice("big:70b"), ColumnChoice("m")])
    saved = await desk.presets("save", desk.values("Be brief.", "one_after_another"), name=" Small ones ")
    assert desk.said(saved) == "Saved: Small ones"
    desk.session.set_columns([ColumnChoice("other")])
    desk.session.columns["A"].turns.append(turn(metrics=FULL))
    used = await desk.presets("use", key="Small ones")
    assert desk.said(used) == "Columns set: Small ones"
    assert [desk.session.choices[letter].model for letter in desk.session.visible] == ["tiny:latest", "big:70b", "m"]
    assert (used[desk.drawn.system], used[desk.drawn.order]) == ("Be brief.", "one_after_another")
    assert used[desk.drawn.columns["A"].model].value == "tiny:latest"
    assert used[desk.drawn.columns["C"].box].visible
    assert len(desk.session.columns["A"].turns) == 1, "what was said stays"
    asked = await desk.presets("ask", key="Small ones")
    assert "Delete Small ones?" in asked[desk.drawn.presets_panel]
    assert "Delete Small ones?" not in (await desk.presets("show"))[desk.drawn.presets_panel]
    deleted = await desk.presets("delete", key="Small ones")
    assert desk.said(deleted) == "Deleted: Small ones"
    assert "None yet" in deleted[desk.drawn.presets_panel]


@pytest.mark.anyio
async def test_what_cannot_be_done_with_presets_is_said(desk: Desk, warned: list[str]) -> None:
    desk.session.set_columns([OWN, ColumnChoice()])
    for action, data, why in (
        ("save", {"name": "x"}, "Choose a model"),
        ("use", {"key": "gone"}, "not there any more"),
        ("delete", {"key": "gone"}, "No such preset"),
    ):
        assert desk.said(await desk.presets(action, **data)) == ""
        assert why in warned[-1]
    desk.session.set_columns([OWN])
    await desk.presets("save", name="a/<b>")
    assert "slash" in warned[-1]
    assert len(warned) == 4


@pytest.mark.anyio
async def test_a_conversation_is_kept_opened_gone_on_with_and_deleted(desk: Desk) -> None:
    session, panel = desk.session, desk.drawn.keep_panel
    session.set_columns([ColumnChoice("m"), ColumnChoice("n")])
    picture = Attachment("p.png", "image", 3, "aGk=")
    session.columns["A"].turns.append(turn(text="Because", metrics=FULL, attachments=(picture,)))
    assert desk.said(await desk.kept("keep")) == "Kept: Why?"
    assert desk.said(await desk.kept("keep")) == "Kept as it is now: Why?"
    (kept,) = re.findall(r'data-action="open" data-key="(\w+)"', await desk.keeping.show_kept(REQUEST))
    before = conversation_of(session)
    session.clear()
    assert session.kept == ""
    opened = await desk.kept("open", key=kept)
    assert desk.said(opened) == "Opened: Why? (its pictures were not kept)"
    assert conversation_of(session) == before
    assert opened[desk.drawn.columns["A"].chat][-1]["content"] == "Because"
    session.columns["A"].turns.append(turn(text="More", metrics=FULL))
    assert desk.said(await desk.kept("keep")) == "Kept as it is now: Why?"
    assert "Delete Why??" in (await desk.kept("ask", key=kept))[panel]
    assert "Nothing yet" in (await desk.kept("delete", key=kept))[panel]
    assert session.kept == ""
    desk.session.kept = "another"
    await desk.kept("keep")
    other = re.findall(r'data-action="open" data-key="(\w+)"', await desk.keeping.show_kept(REQUEST))
    session.kept = "not this one"
    await desk.kept("delete", key=other[0])
    assert session.kept == "not this one"


@pytest.mark.anyio
async def test_a_conversation_that_the_page_cannot_show_whole_is_not_replaced_by_its_part(desk: Desk) -> None:
    (column,) = conversation_of(session_with(A=[turn(text="Because", metrics=FULL)])).columns
    wide = Conversation(tuple(KeptColumn(letter, column.turns) for letter in "ABCDEFGH"))
    caller, kept = caller_of(REQUEST), desk.arena.kept
    whole = await kept.keep(caller, wide)
    assert desk.said(await desk.kept("open", key=whole.id)) == "Opened: Why? (the first 6 of its 8 columns)"
    assert desk.said(await desk.kept("keep")) == "Kept: Why?"
    assert (await kept.conversation(caller, whole.id))[1] == wide


@pytest.mark.anyio
async def test_what_is_downloaded_comes_with_its_ending(desk: Desk) -> None:
    desk.session.set_columns([ColumnChoice("m")])
    desk.session.columns["A"].turns.append(turn(text="Because", metrics=FULL))
    for kind, ending, begins in (
        ("json", "json", "{"),
        ("markdown", "md", "# Comparison"),
        ("html", "html", "<!doctype html>"),
        ("masked", "html", "<!doctype html>"),
    ):
        updates = await desk.kept("export", kind=kind)
        first, _, rest = updates[desk.drawn.parcel].partition("\n")
        assert (first, rest[: len(begins)]) == (ending, begins)
    assert (await desk.kept("show"))[desk.drawn.parcel] == "", "it is downloaded once"


@pytest.mark.anyio
@pytest.mark.parametrize("forged", [{"kind": "exe"}, {}])
async def test_a_download_of_no_known_kind_is_refused(desk: Desk, warned: list[str], forged: dict[str, str]) -> None:
    assert (await desk.kept("export", **forged))[desk.drawn.parcel] == ""
    assert warned[-1] == "kind: there is no such file. Choose one of json, markdown, html, masked."


@pytest.mark.anyio
async def test_answers_under_way_and_a_store_that_is_gone_lose_nothing(
    desk: Desk, warned: list[str], tmp_path: Path
) -> None:
    session = desk.session
    session.set_columns([ColumnChoice("m")])
    session.columns["A"].turns.append(turn(text="Because", metrics=FULL))
    await desk.kept("keep")
    (tmp_path / "arena.sqlite3").rename(tmp_path / "elsewhere")
    kept_before, before = session.kept, conversation_of(session)
    failed = await desk.kept("keep")
    assert "cannot be used now" in warned[-1]
    assert session.kept == kept_before
    assert conversation_of(session) == before
    assert desk.drawn.keep_panel in failed
    (tmp_path / "elsewhere").rename(tmp_path / "arena.sqlite3")
    assert desk.said(await desk.kept("keep")) == "Kept as it is now: Why?"
    running: Session = desk.session
    running.columns["A"].turns.append(turn())
    await desk.kept("keep")
    assert "Wait until" in warned[-1]


@pytest.mark.anyio
async def test_a_panel_says_why_it_shows_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.arena.kept, "_shared", True)
    for panel in (await desk.keeping.show_presets(REQUEST), await desk.keeping.show_kept(REQUEST)):
        assert "reload the page" in panel
